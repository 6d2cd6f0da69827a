"""Which driver the command line asks for, and what it is told about its runtime."""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from agent.drivers.base import Driver
from agent.drivers.local import LocalDriver
from agent.drivers.simulated import Behaviour, SimulatedDriver


@dataclass(frozen=True)
class RuntimeOptions:
    """A runtime beside the agent. `url`: of its API, None: the usual one; `token_file`: holds its access token.

    `editor_url`: of its editor, None: as the driver knows it. What a person gives here is the agent's own
    configuration, so these hosts may be reached whatever `--allow-host` says.
    """

    state_dir: Path
    url: str | None = None
    token_file: Path | None = None
    editor_url: str | None = None

    def token(self) -> str | None:
        """The access token, read anew each time: it may be renewed while the agent runs. Raises OSError, ValueError."""
        if self.token_file is None:
            return None
        token = self.token_file.read_text(encoding="utf-8").strip()
        if not token or not token.isprintable() or not token.isascii():
            raise ValueError(f"{self.token_file} does not hold a token")
        return token


def make(name: str, runtime: RuntimeOptions) -> Driver:
    """The driver called `name`; raises OSError or ValueError when its token cannot be read."""
    runtime.token()
    driver = DRIVERS[name](runtime)
    if runtime.editor_url:
        driver.editor_url = runtime.editor_url
    return driver


def _imported(module: str, name: str) -> Callable[[RuntimeOptions], Driver]:
    """A driver imported when it is chosen: what speaks to one kind of runtime is of no use to an agent of another."""

    def build(runtime: RuntimeOptions) -> Driver:
        driver: Driver = getattr(importlib.import_module(module), name)(runtime)
        return driver

    return build


DRIVERS: dict[str, Callable[[RuntimeOptions], Driver]] = {
    "edgeflow": _imported("agent.drivers.edgeflow", "EdgeFlowDriver"),
    "local": lambda runtime: LocalDriver(runtime.state_dir / "flows"),
    "nodered": _imported("agent.drivers.nodered", "NodeRedDriver"),
    "simulated": lambda runtime: SimulatedDriver("simulated", Behaviour()),
}
