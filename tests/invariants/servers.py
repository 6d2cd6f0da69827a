"""PostgreSQL and Valkey of a test's own, which it may freeze, kill and start again."""

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from types import TracebackType

import psutil
import psycopg

from config import embedded
from config.launch.postgres import Postgres
from config.launch.program import Program, await_ready, kill_group
from config.launch.valkey import Valkey
from tests.platform import ROOT

READY_SECONDS = 20


class Servers:
    """``postgres`` and ``valkey`` below ``folder``, migrated. Loopback only, gone at the end.

    ``durable``: as `make run` has them, Valkey with its append-only file.
    """

    def __init__(self, folder: Path, *, durable: bool = False) -> None:
        self.folder, self._durable = folder, durable
        self._running = embedded.start(folder, durable=durable)
        self._again: dict[str, subprocess.Popen[bytes]] = {}
        self.environ = {
            "DATABASE_URL": self._running.database_url,
            "REDIS_URL": self._running.redis_url,
            "EDGEFLOW_DATA_DIR": str(folder),
        }
        self.superuser_url = self._running.superuser_url.rsplit("/", 1)[0] + "/edgeflow"
        with psycopg.connect(self.superuser_url, autocommit=True) as connection:
            # What was answered must be there after a kill, although the test's servers do without fsync.
            connection.execute("ALTER DATABASE edgeflow SET synchronous_commit = on")
        command = [sys.executable, "-m", "alembic", "-c", "migrations/alembic.ini", "upgrade", "head"]
        subprocess.run(command, cwd=ROOT, check=True, capture_output=True, env={**os.environ, **self.environ})

    def __enter__(self) -> "Servers":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for name in ("postgres", "valkey"):
            self.thaw(name)
        for process in self._again.values():
            kill_group(process.pid)
            process.wait()
        self._running.stop()

    def freeze(self, name: str) -> None:
        """As a host that hangs: the sockets stand, nobody answers."""
        self._signal(name, signal.SIGSTOP)

    def thaw(self, name: str) -> None:
        self._signal(name, signal.SIGCONT)

    def kill(self, name: str) -> None:
        """As a host that crashes: connections break, new ones are refused."""
        self._signal(name, signal.SIGKILL)
        self._process(name).wait(10)

    def stop_at_once(self) -> None:
        """PostgreSQL's immediate shutdown: as a crash, but it ends its own children; it recovers when it starts."""
        postgres = self._process("postgres")
        postgres.send_signal(signal.SIGQUIT)
        postgres.wait(10)

    def start(self, name: str) -> None:
        """Start a killed server again on its port, and return when it serves."""
        program = self._program(name)
        program.before()
        with (self.folder / "log" / f"{name}.log").open("ab") as log:
            process = self._again[name] = program.spawn(log)
        await_ready(program, lambda: process.poll() is not None, READY_SECONDS)

    def _program(self, name: str) -> Program:
        kind = Postgres if name == "postgres" else Valkey
        return kind(self.folder, durable=self._durable).program()

    def _process(self, name: str) -> "subprocess.Popen[bytes]":
        return self._again.get(name) or self._running.processes[name]

    def _signal(self, name: str, number: signal.Signals) -> None:
        """The server with all its children: PostgreSQL's backends are processes of their own."""
        with suppress(psutil.NoSuchProcess):
            parent = psutil.Process(self._process(name).pid)
            for process in (parent, *parent.children(recursive=True)):
                with suppress(psutil.NoSuchProcess):  # a backend may end at any moment
                    process.send_signal(number)
