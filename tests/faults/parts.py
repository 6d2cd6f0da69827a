"""The platform's processes under a supervisor, with fault points."""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from tests.faults import points
from tests.platform import Platform

WATCH_SECONDS = 0.1
SETTINGS = {"EDGEFLOW_RATE_LIMITS": "0", "EDGEFLOW_REDELIVER_SECONDS": "3", "EDGEFLOW_DEMO": "0"}


class Parts(Platform):
    """As an operator runs them: what ends is started again. ``without``: protections to do without."""

    def __init__(
        self,
        folder: Path,
        environ: dict[str, str],
        *,
        web: int = 2,
        parts: tuple[str, ...] = ("worker", "worker2", "scheduler", "scheduler2"),
        without: tuple[str, ...] = (),
    ) -> None:
        self.armed = folder / "armed"
        self.armed.mkdir(parents=True)
        told = {points.FOLDER: str(self.armed), points.WITHOUT: " ".join(without)}
        super().__init__(folder, web=web, environ={**environ, **SETTINGS, **told}, parts=parts)
        self.restarts = 0
        self.held: set[str] = set()
        """Parts that are not started again for now."""
        self._ending = threading.Event()
        self._watcher = threading.Thread(target=self._watch, name="supervisor", daemon=True)

    def __enter__(self) -> "Parts":
        try:
            super().__enter__()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        self._watcher.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._ending.set()
        if self._watcher.is_alive():
            self._watcher.join()
        super().__exit__(kind, error, at)

    def command(self, name: str) -> list[str]:
        if name.startswith("web"):
            return ["gunicorn", "-c", "config/gunicorn.py", "tests.faults.web:app"]
        if name.startswith("worker"):
            return ["dramatiq", "tests.faults.worker", "--processes", "1", "--threads", "4"]
        return ["tests.faults.scheduler"]

    def arm(self, point: str) -> None:
        """The next process that comes to ``point`` dies, or stops, there."""
        (self.armed / f"{point}.at").unlink(missing_ok=True)
        (self.armed / point).touch()

    def reached(self, point: str, seconds: float = 20) -> int:
        """Wait until a process has; its pid. Raises TimeoutError."""
        taken, deadline = self.armed / f"{point}.at", time.monotonic() + seconds
        while not taken.exists() or not taken.read_text():
            if time.monotonic() > deadline:
                (self.armed / point).unlink(missing_ok=True)
                raise TimeoutError(f"nobody came to {point}")
            time.sleep(0.005)
        return int(taken.read_text())

    @contextlib.contextmanager
    def frozen(self, name: str) -> Iterator[None]:
        """A part stopped as by a host that hangs, with all its processes, and continued."""
        group = self.processes[name].pid
        os.killpg(group, signal.SIGSTOP)
        try:
            yield
        finally:
            os.killpg(group, signal.SIGCONT)

    def said(self, *words: str) -> int:
        """How many lines of all logs hold one of these."""
        lines = (line for file in self.folder.glob("*.log") for line in file.open(errors="replace"))
        return sum(any(word in line for word in words) for line in lines)

    def _watch(self) -> None:
        while not self._ending.wait(WATCH_SECONDS):
            for name, process in list(self.processes.items()):
                if process.poll() is not None and name not in self.held:
                    with contextlib.suppress(ProcessLookupError):  # of a killed master nothing may go on serving
                        os.killpg(process.pid, signal.SIGKILL)
                    self.restarts += 1
                    self.start(name)
