"""What a runtime must offer to be driven by the agent.

A driver implements this class and gets an entry in `agent.drivers.choice.DRIVERS`; everything above (commands, dedup,
tunnel) stays as it is. Methods raise CommandError with the code that the cloud is told.
"""

import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

from agent import __version__, metrics
from agent.protocol import CommandError
from agent.runtime.watch import Hear, nobody

JsonObject = dict[str, Any]
Point = tuple[str, int, float]
"""Metric name, Unix time in ms, value."""
MAX_NAME = 200
SILENT = {"running": False, "errors": 0, "restarts": 0}
"""The health of a runtime that does not answer."""


@dataclass(frozen=True)
class Deployment:
    """One flow to be installed. `content_hash` names its content: equal hashes are equal flows."""

    flow_id: str
    version: int | None
    content_hash: str
    flow: JsonObject
    start: bool = True


class Driver(ABC):
    """One flow runtime. Changing calls come one at a time, reading ones at any moment."""

    echoes_desired = False
    """Whether every desired key is taken over, not only those that the agent understands."""
    polled = True
    """Whether what runs may change without a command, so that it has to be looked at from time to time."""
    editor_url: str | None = None
    """Where the runtime's own editor is served, `http(s)://HOST[:PORT]`; None: it has none."""

    def __init__(self) -> None:
        self._opened = time.monotonic()
        self._hear: Hear = nobody

    def listen(self, hear: Hear) -> None:
        """Call `hear(level, message, fields)` for what flows say and what becomes of them; `flow_id` is a field."""
        self._hear = hear

    async def open(self) -> None:  # noqa: B027  (a driver may have nothing to do)
        """Start what was running when the agent was last stopped."""

    async def close(self) -> None:  # noqa: B027
        """Stop all work, without forgetting what is to run at the next start."""

    async def working(self, action: str) -> None:  # noqa: B027
        """Called before each command; a simulated device takes its time here."""

    @abstractmethod
    async def list_flows(self) -> list[JsonObject]:
        """The installed flows: id, name, status, version, content_hash, …"""

    @abstractmethod
    async def get_flow(self, flow_id: str) -> JsonObject:
        """One flow with its definition; FLOW_NOT_FOUND."""

    @abstractmethod
    async def deploy(self, order: Deployment) -> str:
        """Install it in place of what has its id, all or nothing: `installed` or `already_installed`.

        INVALID_FLOW and UNSUPPORTED_NODE_TYPE before anything is touched; START_FAILED after the old one runs again.
        """

    @abstractmethod
    async def remove(self, flow_id: str) -> bool:
        """Stop and forget a flow; False when it was not there."""

    @abstractmethod
    async def start(self, flow_id: str) -> str:
        """`started` or `already_running`; FLOW_NOT_FOUND, START_FAILED."""

    @abstractmethod
    async def stop(self, flow_id: str) -> str:
        """`stopped`, also when it was not running; FLOW_NOT_FOUND."""

    @abstractmethod
    async def node_types(self) -> list[JsonObject]:
        """The node types that flows may use here."""

    async def reported_types(self) -> list[str] | None:
        """The names of `node_types`; None where any type may be used."""
        return [str(kind["type"]) for kind in await self.node_types() if kind.get("type")]

    @abstractmethod
    async def executions(self) -> list[JsonObject]:
        """What ran, newest first."""

    async def flow_metrics(self) -> dict[str, JsonObject]:
        """Per flow id: numbers by name, of the time since the last call: `{"executions": 12, "errors": 0}`."""
        return {}

    async def running(self) -> dict[str, JsonObject]:
        """Per flow id what really runs: `{"hash", "version", "status", "errors", "restarts"}`.

        `hash`: the content hash that was deployed while the content is still that, else the hash of the definition as
        `get_flow` answers it now (`agent.content.content_hash`); None when it cannot be read. `status`: `running`,
        `stopped` or `error`. `errors` and `restarts` count since the flow was installed. Raises CommandError when the
        runtime cannot be asked.
        """
        return {
            flow["id"]: {
                "hash": flow.get("content_hash"),
                "version": flow.get("version"),
                "status": flow["status"],
                "errors": 0,
                "restarts": 0,
            }
            for flow in await self.list_flows()
        }

    async def runtime_health(self) -> JsonObject:
        """`{"running", "errors", "restarts"}`: whether the runtime answers, and the sums over its flows."""
        try:
            flows = (await self.running()).values()
        except CommandError:
            return dict(SILENT)
        counts = {name: sum(flow[name] for flow in flows) for name in ("errors", "restarts")}
        return {"running": True, **counts}

    async def measure(self, at: int) -> list[Point]:
        """What is to be reported as of `at` (Unix time in ms): the machine's numbers, and each flow's."""
        figures = {**await self.system_metrics(), "flow": await self.flow_metrics()}
        found = metrics.flatten(figures)
        return [(name, at, value) for name, value in found if len(name) <= MAX_NAME and name.isprintable()]

    async def health(self) -> JsonObject:
        """`{"status", "version", "uptime", …}`, seconds; a runtime that does not answer is no reason not to."""
        try:
            flows = await self.list_flows()
        except CommandError as error:
            flows, silence = [], str(error)
        else:
            silence = ""
        failed = sum(flow["status"] == "error" for flow in flows)
        return {
            "status": "unhealthy" if silence else "degraded" if failed else "healthy",
            "version": __version__,
            "uptime": int(time.monotonic() - self._opened),
            "flows": len(flows),
            "flows_running": sum(flow["status"] == "running" for flow in flows),
            "flows_failed": failed,
            "runtime": dict(SILENT) if silence else await self.runtime_health(),
            **({"error": silence} if silence else {}),
        }

    async def system_metrics(self) -> JsonObject:
        """The machine's figures."""
        return metrics.system_metrics()

    async def gpio_state(self) -> JsonObject:
        """The pins."""
        return metrics.gpio_state()
