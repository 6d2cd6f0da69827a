"""Schedulers as an operator runs them: several processes, on servers of their own."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

import psycopg

from config import embedded
from tests.platform import ROOT

TABLES = """
CREATE TABLE deliveries (id bigserial, job text, due_at timestamptz);
CREATE TABLE runs (job text, due_at timestamptz, ran_at timestamptz DEFAULT now());
GRANT SELECT, INSERT ON deliveries, runs TO edgeflow_app;
GRANT USAGE ON SEQUENCE deliveries_id_seq TO edgeflow_app;
"""


class Cluster:
    """Own servers, a worker that notes what it runs, and as many schedulers as a test starts."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> "Cluster":
        self.servers = embedded.start(self.folder / "data", durable=False)
        self.environ = {
            **os.environ,
            "DATABASE_URL": self.servers.database_url,
            "REDIS_URL": self.servers.redis_url,
            "EDGEFLOW_LOG_LEVEL": "INFO",
            "PYTHONUNBUFFERED": "1",
        }
        migrate = [sys.executable, "-m", "alembic", "-c", "migrations/alembic.ini", "upgrade", "head"]
        subprocess.run(migrate, cwd=ROOT, env=self.environ, check=True, capture_output=True)
        self.database = psycopg.connect(self.servers.database_url, autocommit=True)
        self.database.execute(TABLES)
        self._spawn("worker", "dramatiq", "tests.scheduler.runner", "--processes", "1", "--threads", "2")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.database.close()
        for process in self.processes.values():
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait(timeout=5)
        self.servers.stop()

    def start(self, name: str) -> None:
        self._spawn(name, "scheduler")

    def _spawn(self, name: str, *module: str) -> None:
        log = (self.folder / f"{name}.log").open("wb")
        command = [sys.executable, "-m", *module]
        self.processes[name] = subprocess.Popen(
            command, cwd=ROOT, env=self.environ, stdout=log, stderr=log, start_new_session=True
        )

    def signal(self, name: str, number: signal.Signals) -> None:
        os.kill(self.processes[name].pid, number)

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text()

    def leads(self, name: str) -> bool:
        return "leading" in self.log(name)

    def wait(self, condition: Callable[[], Any], seconds: float) -> float:
        """Seconds until ``condition`` held; fails with the logs after ``seconds``."""
        began = time.monotonic()
        while not condition():
            logs = "\n".join(f"== {name}\n{self.log(name)}" for name in self.processes)
            assert time.monotonic() - began < seconds, logs
            time.sleep(0.05)
        return time.monotonic() - began

    def rows(self, query: str) -> list[Any]:
        return self.database.execute(query).fetchall()
