"""Gather what many ask for within a moment, and do it once for all of them."""

import threading
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

import structlog

log = structlog.get_logger(__name__)

RETRY_SECONDS = 0.25

T = TypeVar("T")


class Batcher(Generic[T]):
    """Calls ``handle`` with what was added, at most ``most`` at a time, ``seconds`` after the first.

    ``handle`` runs in one thread, never twice at once; what it raises is logged and its items go to ``failed``.
    ``key``: items with equal keys never share a batch (the later one waits for the next).
    ``passing``: errors that pass (the database is away): the batch is handled again until they have. With it, any
    other error is put down to a single item: each is handled alone, so that one cannot spoil it for the rest.
    """

    def __init__(
        self,
        name: str,
        handle: Callable[[list[T]], None],
        *,
        seconds: float,
        most: int,
        key: Callable[[T], Hashable] | None = None,
        failed: Callable[[list[T], Exception], None] | None = None,
        passing: tuple[type[Exception], ...] = (),
    ) -> None:
        self._name, self._handle, self._seconds, self._most = name, handle, seconds, most
        self._key, self._failed, self._passing = key, failed, passing
        self._pause = threading.Event()
        self._items: list[T] = []
        self._wake = threading.Condition()
        self._idle = threading.Event()
        self._idle.set()
        threading.Thread(target=self._run, name=f"batch-{name}", daemon=True).start()

    def add(self, item: T) -> None:
        with self._wake:
            self._items.append(item)
            self._idle.clear()
            self._wake.notify()

    def drain(self, timeout: float) -> bool:
        """Wait until all that was added has been handled; False if that took longer."""
        return self._idle.wait(timeout)

    def _run(self) -> None:
        while True:
            with self._wake:
                while not self._items:
                    self._idle.set()
                    self._wake.wait()
            self._pause.wait(self._seconds)
            self._carry_out(self._take())

    def _carry_out(self, batch: list[T]) -> None:
        try:
            self._handle(batch)
        except self._passing as error:
            log.warning("batch tried again", batch=self._name, items=len(batch), error=str(error).splitlines()[0])
            self._pause.wait(RETRY_SECONDS)
            with self._wake:
                self._items = batch + self._items
        except Exception as error:
            log.exception("batch failed", batch=self._name, items=len(batch))
            self._take_apart(batch, error)

    def _take_apart(self, batch: list[T], error: Exception) -> None:
        if self._passing and len(batch) > 1:
            for item in batch:
                self._carry_out([item])
        elif self._failed:
            self._failed(batch, error)

    def _take(self) -> list[T]:
        with self._wake:
            if self._key is None:
                batch, self._items = self._items[: self._most], self._items[self._most :]
                return batch
            seen: set[Hashable] = set()
            batch, rest = list[T](), list[T]()
            for item in self._items:
                key = self._key(item)
                fits = len(batch) < self._most and key not in seen
                seen.add(key)
                (batch if fits else rest).append(item)
            self._items = rest
            return batch
