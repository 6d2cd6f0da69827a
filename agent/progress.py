"""How far it is: a bar on a terminal, a line a second anywhere else."""

import sys
import time
from types import TracebackType
from typing import Self

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn


class Counter:
    """Shows `what done/total` as it grows; call it as `Fleet.start` calls its progress."""

    def __init__(self) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self._bar = Progress(*columns) if sys.stdout.isatty() else None
        self._tasks: dict[str, TaskID] = {}
        self._said = 0.0

    def __enter__(self) -> Self:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._bar:
            self._bar.stop()

    def __call__(self, what: str, done: int, total: int) -> None:
        """`done` of `total` are `what`."""
        if self._bar:
            task = self._tasks.setdefault(what, TaskID(-1))
            if task == -1:
                task = self._tasks[what] = self._bar.add_task(what, total=total)
            self._bar.update(task, completed=done)
        elif done == total or time.monotonic() - self._said >= 1:
            self._said = time.monotonic()
            print(f"{what} {done}/{total}", flush=True)
