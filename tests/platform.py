"""The platform as an operator runs it: web, worker and scheduler processes, on a free port."""

import os
import secrets
import signal
import socket
import ssl
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType

import httpx

from config.local_stripe import METERS

ROOT = Path(__file__).parent.parent
TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""For clients of plain HTTP, which need none: without it each would read all certificates that the world trusts."""
GOODBYE_SECONDS = 3
"""How long parts may take to end once nothing is asked of them any more: a web process waits for its callers' idle
connections, which tests leave open, for twice as long."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Platform:
    """Real processes against the test's database. ``web``: how many separate gunicorns, each with one process.

    ``stripe``: also a local Stripe, at ``stripe_url``; without it there is billing, and nobody to pay.
    """

    def __init__(
        self,
        folder: Path,
        web: int = 1,
        environ: dict[str, str] | None = None,
        parts: tuple[str, ...] = ("worker", "scheduler"),
        *,
        stripe: bool = False,
    ) -> None:
        self.folder, self.parts = folder, parts
        self.ports = [free_port() for _ in range(web)]
        self.stripe_port = free_port() if stripe else 0
        self.environ = {
            **os.environ,
            "EDGEFLOW_WEB_WORKERS": "1",
            "EDGEFLOW_LOG_LEVEL": "INFO",
            "PYTHONUNBUFFERED": "1",
            **(self._stripe_environ() if stripe else {}),
            **(environ or {}),
        }
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def url(self, number: int = 0) -> str:
        return f"http://127.0.0.1:{self.ports[number]}"

    @property
    def stripe_url(self) -> str:
        return f"http://127.0.0.1:{self.stripe_port}"

    @property
    def stripe_key(self) -> str:
        return self.environ["STRIPE_API_KEY"]

    def _stripe_environ(self) -> dict[str, str]:
        """As an operator sets them: keys of nobody's real account."""
        return {
            "STRIPE_API_KEY": f"sk_test_{secrets.token_hex(12)}",
            "STRIPE_API_BASE": self.stripe_url,
            "STRIPE_WEBHOOK_SECRET": f"whsec_{secrets.token_hex(12)}",
        }

    def __enter__(self) -> "Platform":
        if self.stripe_port:
            self.start("stripe")
        for number in range(len(self.ports)):
            self.start(f"web{number}")
        for part in self.parts:
            self.start(part)
        self.wait_ready()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for name in reversed(list(self.processes)):
            self.kill(name, signal.SIGTERM)
        deadline = time.monotonic() + GOODBYE_SECONDS
        for process in self.processes.values():
            try:
                process.wait(timeout=max(0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    def start(self, name: str) -> None:
        """Start ``web<n>``, ``worker`` or ``scheduler`` (of these, too, ``worker2`` and so on), or ``stripe``."""
        environ = dict(self.environ)
        if name.startswith("web"):
            environ["EDGEFLOW_PORT"] = str(self.ports[int(name[3:])])
        with (self.folder / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                [sys.executable, "-m", *self.command(name)],
                cwd=ROOT,
                env=environ,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def command(self, name: str) -> list[str]:
        """The module that a part runs, and its arguments."""
        if name.startswith("web"):
            return ["gunicorn", "-c", "config/gunicorn.py", "wsgi:app"]
        if name.startswith("worker"):
            return ["dramatiq", "workers", "--processes", "1", "--threads", "4"]
        if name == "stripe":
            webhook = f"{self.url()}/api/v1/billing/webhooks/stripe"
            data = str(self.folder / "stripe.sqlite")
            plans = self.environ.get("EDGEFLOW_PLANS_FILE", "config/plans.toml")
            meters = [f"--meter={name}" for name in METERS]
            command = ["tools.local_stripe", "--port", str(self.stripe_port), "--data", data, "--plans", plans]
            return [*command, "--webhook", webhook, *meters]
        return ["scheduler"]

    def kill(self, name: str, how: int = signal.SIGKILL) -> None:
        """Signal a part: with SIGKILL the whole group of its processes, as a host's crash would."""
        process = self.processes[name]
        try:
            if how == signal.SIGKILL:
                os.killpg(process.pid, how)
                process.wait(timeout=5)
            else:
                process.send_signal(how)
        except ProcessLookupError:
            return

    def rest(self) -> None:
        """End worker and scheduler for a while."""
        for name in ("worker", "scheduler"):
            process = self.processes.pop(name, None)
            if process is not None and process.poll() is None:
                process.send_signal(signal.SIGTERM)
                process.wait(timeout=12)

    def resume(self) -> None:
        """Start worker and scheduler again if they rest."""
        resting = [name for name in self.parts if name not in self.processes]
        for name in resting:
            self.start(name)
        if resting:
            self.wait_ready()

    def restart(self, name: str) -> None:
        self.kill(name)
        self.start(name)

    def wait_ready(self, timeout: float = 30) -> None:
        deadline = time.monotonic() + timeout
        for number in range(len(self.ports)):
            while True:
                try:
                    path = "readyz" if "worker" in self.parts else "healthz"
                    if httpx.get(f"{self.url(number)}/{path}", timeout=2, verify=TLS).status_code == 200:
                        break
                except httpx.HTTPError:
                    time.sleep(0.1)
                ended = any(process.poll() is not None for process in self.processes.values())
                if ended or time.monotonic() > deadline:
                    raise TimeoutError(f"not ready: {self.logs()}")
                time.sleep(0.1)

    def logs(self, name: str | None = None) -> str:
        files = [self.folder / f"{name}.log"] if name else sorted(self.folder.glob("*.log"))
        return "\n".join(f"== {file.name}\n{file.read_text()[-4000:]}" for file in files)
