"""PostgreSQL and Valkey from wheels, for development and for a single machine that has neither.

``servers`` prepares them for a supervisor; ``start`` also runs them, for tests and scripts.
"""

import contextlib
import fcntl
import os
import signal
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from config.launch.leftovers import MARK
from config.launch.postgres import Postgres
from config.launch.program import LaunchError, Program, await_ready, kill_group, send
from config.launch.valkey import Valkey
from config.launch.watchdog import Watchdog

# After a crash PostgreSQL replays its log first.
READY_SECONDS = 60.0


@dataclass(frozen=True)
class Servers:
    """Servers that are ready to be run, and the URLs under which they will serve. Empty: not asked for."""

    programs: list[Program]
    database_url: str = field(repr=False)
    redis_url: str = field(repr=False)
    superuser_url: str = field(repr=False)


def servers(data_dir: Path, *, postgres: bool = True, valkey: bool = True, durable: bool = True) -> Servers:
    """Prepare the servers of ``data_dir``: end what a killed start left, choose ports, at first make a cluster.

    Only the holder of ``lock`` may call it. Raises LaunchError.
    """
    store = Postgres(data_dir, durable=durable) if postgres else None
    broker = Valkey(data_dir, durable=durable) if valkey else None
    return Servers(
        programs=[server.program() for server in (store, broker) if server],
        database_url=store.url if store else "",
        redis_url=broker.url if broker else "",
        superuser_url=store.superuser_url if store else "",
    )


def lock(data_dir: Path) -> IO[str]:
    """Claim a data folder until the returned file is closed; raises LaunchError if another process has it.

    The kernel lets go of it when its holder dies, however that happens.
    """
    data_dir.mkdir(parents=True, exist_ok=True)
    file = os.fdopen(os.open(data_dir / "lock", os.O_RDWR | os.O_CREAT, 0o644), "r+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = file.read().strip()
        file.close()
        raise LaunchError(
            f"{data_dir} is in use by process {holder}: stop that one, or set EDGEFLOW_DATA_DIR to another folder"
        ) from None
    file.truncate(0)
    file.write(str(os.getpid()))
    file.flush()
    return file


@dataclass
class Embedded:
    """Running servers. ``stop`` ends them; if this process is killed instead, its watchdog does."""

    database_url: str = field(repr=False)
    redis_url: str = field(repr=False)
    superuser_url: str = field(repr=False)
    processes: dict[str, "subprocess.Popen[bytes]"]
    _signals: dict[str, signal.Signals]
    _lock: IO[str]
    _watchdog: Watchdog

    def stop(self, patience: float = 5.0) -> None:
        """End Valkey, then PostgreSQL, killing what is still there after ``patience`` seconds. Twice is once."""
        for name in reversed(list(self.processes)):
            process = self.processes.pop(name)
            send(process, self._signals[name])
            with contextlib.suppress(subprocess.TimeoutExpired):  # then it is killed
                process.wait(patience)
            kill_group(process.pid)
            process.wait()
            self._watchdog.forget(process.pid)
        self._watchdog.close()
        self._lock.close()


def start(data_dir: Path, *, postgres: bool = True, valkey: bool = True, durable: bool = True) -> Embedded:
    """Run the servers of ``data_dir``, logging to ``<data_dir>/log/<name>.log``, and return when they serve.

    ``durable=False`` is for tests: a crash of the machine may lose data. Raises LaunchError.
    """
    data_dir = data_dir.resolve()
    claimed = lock(data_dir)
    watchdog = Watchdog({**os.environ, MARK: str(data_dir)})
    try:
        prepared = servers(data_dir, postgres=postgres, valkey=valkey, durable=durable)
    except LaunchError:
        claimed.close()
        raise
    signals = {program.name: program.stop_signal for program in prepared.programs}
    urls = prepared.database_url, prepared.redis_url, prepared.superuser_url
    running = Embedded(*urls, processes={}, _signals=signals, _lock=claimed, _watchdog=watchdog)
    try:
        for program in prepared.programs:
            running.processes[program.name] = _run(program, data_dir, watchdog)
    except LaunchError:
        running.stop()
        raise
    return running


def _run(program: Program, data_dir: Path, watchdog: Watchdog) -> "subprocess.Popen[bytes]":
    log = data_dir / "log" / f"{program.name}.log"
    log.parent.mkdir(exist_ok=True)
    with log.open("ab") as output:
        process = program.spawn(output)
    watchdog.watch(process.pid, program.stop_signal, stage=1)
    try:
        await_ready(program, lambda: process.poll() is not None, READY_SECONDS)
    except LaunchError as error:
        kill_group(process.pid)
        process.wait()
        watchdog.forget(process.pid)
        raise LaunchError(f"{error}; its log is {log}") from error
    return process
