"""``make run``: the whole platform on one machine, in the foreground.

Embedded servers where no URL is given, migrations, web, worker, scheduler, the demo; Ctrl-C ends all of it.
"""

import os
import signal
import socket
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import FrameType

import httpx

from config import demo, embedded, local_stripe, mailbox, plans, webhook_receiver
from config.launch import host, leftovers
from config.launch.console import Terminal
from config.launch.program import LaunchError, Program
from config.launch.supervision import STORES, Stopped, Supervisor
from config.launch.watchdog import Watchdog
from config.settings import Settings, SettingsError, load

ROOT = Path(__file__).resolve().parent.parent
READY_SECONDS = 60.0


def main() -> int:
    """Run until a person stops it. 0: stopped on request; 1: could not start, with one line that says why."""
    terminal = Terminal()
    try:
        settings = load(os.environ)
        plans.load(settings.plans_file)
        data_dir = settings.data_dir.resolve()
        with embedded.lock(data_dir):
            return _supervise(settings, data_dir, terminal)
    except (LaunchError, SettingsError, OSError) as error:
        terminal.say(f"cannot start: {error}")
        return 1


def _supervise(settings: Settings, data_dir: Path, terminal: Terminal) -> int:
    # What a killed supervisor left is ended first: it may hold the port and does its work twice.
    leftovers.end_marked(data_dir)
    # Held by this process: while web is started again, who connects waits instead of being refused.
    door = _listen(settings)
    common = {**os.environ, "EDGEFLOW_DATA_DIR": str(data_dir), "PYTHONUNBUFFERED": "1"}
    common[leftovers.MARK] = str(data_dir)
    supervisor = Supervisor(terminal, Watchdog(common))
    _stop_on_signals(supervisor)
    try:
        environment = _start_servers(supervisor, settings, data_dir, common)
        if (data_dir / "home").is_symlink():
            away = (data_dir / "home").readlink()
            terminal.say(f"PostgreSQL's user may not enter {data_dir}: its data are in {away}")
        environment = _catch_alerts(supervisor, settings, data_dir, environment)
        environment = _stand_in_for_stripe(supervisor, settings, data_dir, environment)
        _start_platform(supervisor, settings, environment, terminal, door)
        _start_demo(supervisor, settings, data_dir, environment, terminal)
        supervisor.watch()
        return 0
    except Stopped:
        return 0
    finally:
        supervisor.stopping.set()
        terminal.say("stopping; Ctrl-C once more kills")
        supervisor.stop()
        terminal.say("stopped")


def _listen(settings: Settings) -> socket.socket:
    try:
        return host.listen(settings.host, settings.port)
    except OSError as error:
        raise LaunchError(
            f"EDGEFLOW_PORT: {settings.host}:{settings.port} is not to be had ({error.strerror or error}); "
            f"choose another port: EDGEFLOW_PORT={settings.port + 10} make run"
        ) from None


def _stop_on_signals(supervisor: Supervisor) -> None:
    def handle(_number: int, _frame: FrameType | None) -> None:
        if supervisor.stopping.is_set():
            supervisor.killing.set()
        supervisor.stopping.set()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, handle)


def _start_servers(
    supervisor: Supervisor, settings: Settings, data_dir: Path, common: dict[str, str]
) -> dict[str, str]:
    """Start the servers that no URL is given for; the environment of everything else."""
    servers = embedded.servers(data_dir, postgres=not settings.database_url, valkey=not settings.redis_url)
    for program in servers.programs:
        supervisor.start(program, STORES, READY_SECONDS)
    given = {"DATABASE_URL": servers.database_url, "REDIS_URL": servers.redis_url}
    return {**common, **{name: url for name, url in given.items() if url}}


def _catch_alerts(
    supervisor: Supervisor, settings: Settings, data_dir: Path, environment: dict[str, str]
) -> dict[str, str]:
    """In development alerts reach what runs on this machine: webhooks its own receivers, mail the log and a folder."""
    if settings.production:
        return environment
    told = {**environment, "EDGEFLOW_WEBHOOK_PRIVATE": environment.get("EDGEFLOW_WEBHOOK_PRIVATE") or "1"}
    if settings.smtp_url:
        return told
    port = host.remembered_port(data_dir, "mail")
    supervisor.add(mailbox.program(port, data_dir / "mail", ROOT, environment))
    return {**told, "EDGEFLOW_SMTP_URL": mailbox.url(port)}


def _stand_in_for_stripe(
    supervisor: Supervisor, settings: Settings, data_dir: Path, environment: dict[str, str]
) -> dict[str, str]:
    """In development, where nobody gave a key of Stripe's, a small Stripe on this machine takes the money."""
    if not local_stripe.wanted(settings):
        return environment
    port = host.remembered_port(data_dir, "stripe")
    told = {**environment, **local_stripe.platform_environment(data_dir, port)}
    supervisor.add(local_stripe.program(port, data_dir, settings, ROOT, told))
    return told


def _start_platform(
    supervisor: Supervisor,
    settings: Settings,
    environment: dict[str, str],
    terminal: Terminal,
    door: socket.socket,
) -> None:
    supervisor.run(_python("migrate", environment, "alembic", "-c", "migrations/alembic.ini", "upgrade", "head"))
    web = {**environment, "EDGEFLOW_LISTEN_FD": str(door.fileno())}
    serve = ("gunicorn", "-c", "config/gunicorn.py", "wsgi:app")
    supervisor.add(replace(_python("web", web, *serve), inherits=[door.fileno()]))
    size = ["--processes", str(settings.worker_processes), "--threads", str(settings.worker_threads)]
    # Less than the time a stopping worker has, so that it hands back what it could not finish.
    size += ["--worker-shutdown-timeout", "6000"]
    supervisor.add(_python("worker", environment, "dramatiq", "workers", *size))
    supervisor.add(_python("scheduler", environment, "scheduler"))
    ready = Readiness(host.local_url(settings.host, settings.port), terminal.say)
    supervisor.wait(ready)


def _python(name: str, environment: dict[str, str], module: str, *arguments: str) -> Program:
    return Program(name=name, command=[sys.executable, "-m", module, *arguments], cwd=ROOT, environment=environment)


class Readiness:
    """Asks ``/readyz`` each time it is called; says now and then what is missing."""

    def __init__(self, url: str, say: Callable[[str], None]) -> None:
        # Not through a proxy of the environment: this never leaves the machine.
        self._client = httpx.Client(base_url=url, trust_env=False, timeout=3, headers={"Connection": "close"})
        self._say = say
        self._asked = 0

    def __call__(self) -> bool:
        self._asked += 1
        try:
            answer = self._client.get("/readyz")
            missing = f"{answer.status_code} {answer.text.strip()[:300]}"
            if answer.status_code == httpx.codes.OK:
                self._client.close()
                return True
        except httpx.HTTPError as error:
            missing = str(error) or type(error).__name__
        if self._asked % 100 == 0:
            self._say(f"still not ready: {missing}")
        return False


def _start_demo(
    supervisor: Supervisor, settings: Settings, data_dir: Path, environment: dict[str, str], terminal: Terminal
) -> None:
    terminal.say(f"ready: {settings.url}/api/v1   Swagger UI: {settings.url}/api/v1/docs")
    if not settings.demo:
        return

    def start_fleet(arguments: list[str], credentials: dict[str, str]) -> None:
        supervisor.add(_python("fleet", {**environment, **credentials}, "agent", *arguments))

    def receive_webhooks(secret: str) -> str:
        port = host.remembered_port(data_dir, "webhook")
        supervisor.add(webhook_receiver.program(port, secret, ROOT, environment))
        return webhook_receiver.url(port)

    stage = demo.Demo(
        local_url=host.local_url(settings.host, settings.port),
        public_url=settings.url,
        data_dir=data_dir,
        terminal=terminal,
        start_fleet=start_fleet,
        receive_webhooks=receive_webhooks,
        takes_test_cards=local_stripe.wanted(settings),
        stopping=supervisor.stopping,
    )
    threading.Thread(target=stage.run, name="demo", daemon=True).start()


if __name__ == "__main__":
    sys.exit(main())
