"""The watchdog: a child that reads a pipe and, when its parent is gone, stops what the parent had started.

It runs as a file of its own (``python -I watchdog.py``), so that starting it costs little and imports nothing of ours.
Lines on its standard input: ``+ pid signal stage`` and ``- pid``. A parent that ended in order said ``-`` to all.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import psutil  # type: ignore[import-untyped]

# Seconds that each stage has: first what serves (0), then what stores (1).
PATIENCE = (8.0, 1.5)


@dataclass(frozen=True)
class Watched:
    process: psutil.Process  # knows its start time, so a recycled pid is not taken for it
    number: int
    stage: int


class Watchdog:
    """The parent's end: tell it what runs. If the watchdog was killed, the next call starts another one."""

    def __init__(self, environment: dict[str, str]) -> None:
        self._environment = environment
        self._lines: dict[int, str] = {}
        self._child: subprocess.Popen[bytes] | None = None

    def watch(self, pid: int, number: signal.Signals, stage: int) -> None:
        self._lines[pid] = f"+ {pid} {int(number)} {stage}\n"
        self._tell(self._lines[pid])

    def forget(self, pid: int) -> None:
        self._lines.pop(pid, None)
        self._tell(f"- {pid}\n")

    def check(self) -> None:
        """Start the child, also when somebody killed it, and tell it everything that it should know."""
        if self._child is None or self._child.poll() is not None:
            command = [sys.executable, "-I", str(Path(__file__).resolve())]
            pipe = subprocess.PIPE
            self._child = subprocess.Popen(
                command, stdin=pipe, stdout=subprocess.DEVNULL, cwd="/", env=self._environment, start_new_session=True
            )
            self._write("".join(self._lines.values()))

    def close(self) -> None:
        """End it; with everything forgotten it has nothing to do. Waits until it is gone."""
        if self._child and self._child.stdin:
            with contextlib.suppress(BrokenPipeError):  # it was killed
                self._child.stdin.close()
            self._child.wait()

    def _tell(self, line: str) -> None:
        if self._child is None or self._child.poll() is not None:
            self.check()
        else:
            self._write(line)

    def _write(self, text: str) -> None:
        assert self._child is not None
        assert self._child.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it was killed; check() starts another one and repeats
            self._child.stdin.write(text.encode())
            self._child.stdin.flush()


def _follow(watched: dict[int, Watched], line: str) -> None:
    verb, pid, *rest = line.split()
    if verb == "-":
        watched.pop(int(pid), None)
        return
    with contextlib.suppress(psutil.NoSuchProcess):  # it ended before we read of it
        watched[int(pid)] = Watched(psutil.Process(int(pid)), int(rest[0]), int(rest[1]))


def _runs(one: Watched) -> bool:
    try:
        return one.process.is_running() and one.process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _stop(stage: list[Watched], patience: float) -> None:
    for one in stage:
        with contextlib.suppress(psutil.NoSuchProcess):  # ended meanwhile
            one.process.send_signal(one.number)
    deadline = time.monotonic() + patience
    while any(map(_runs, stage)) and time.monotonic() < deadline:
        time.sleep(0.05)
    for one in stage:
        # Their sessions too: a master that was killed leaves children which hold its port.
        with contextlib.suppress(ProcessLookupError, PermissionError):  # the session is empty
            os.killpg(one.process.pid, signal.SIGKILL)


def main() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    watched: dict[int, Watched] = {}
    for line in sys.stdin:
        _follow(watched, line)
    for stage, patience in enumerate(PATIENCE):
        _stop([one for one in watched.values() if one.stage == stage], patience)


if __name__ == "__main__":
    main()
