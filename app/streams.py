"""Rows as they come, as a stream of server-sent events (WHATWG HTML, "Server-sent events").

While a stream waits it holds no connection to the database and no transaction, only its socket.
"""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import structlog
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from app import db
from app.errors import AppError, NotFound, RateLimited
from app.watch import watcher

log = structlog.get_logger(__name__)

MAX_STREAMS = 250  # of one organization in one process
HEARTBEAT_SECONDS = 15.0
TRUSTED_SECONDS = 60.0
GATHER_SECONDS = 0.1  # what is busy changes more often than anybody reads
BATCH = 200

# However many streams wake at once, requests find connections to the database.
_readers = threading.BoundedSemaphore(4)
_open: Counter[UUID] = Counter()
_lock = threading.Lock()


@dataclass(frozen=True)
class Part:
    """What a look found: frames, whether more lies ready, and whether nothing will ever follow."""

    frames: str
    more: bool = False
    over: bool = False


Look = Callable[[], Part]
"""The next part, read in a transaction of the organization. It moves on only once it has read."""


def enter(org_id: UUID) -> Callable[[], None]:
    """Take one of the organization's places; what it returns gives it back, once. Raises RateLimited."""
    with _lock:
        if _open[org_id] >= MAX_STREAMS:
            raise RateLimited("too many open event streams", headers={"Retry-After": "15"})
        _open[org_id] += 1
    left = threading.Event()

    def leave() -> None:
        with _lock:
            if not left.is_set():
                left.set()
                _open[org_id] -= 1
                if not _open[org_id]:
                    del _open[org_id]

    return leave


def stream(org_id: UUID, channel: str, about: UUID, look: Look, *, still_allowed: Callable[[], UUID]) -> Iterator[str]:
    """Parts as they come, until one says that it is the last.

    ``still_allowed`` is asked again, within a transaction, when the stream goes on after 60 s: it answers the
    organization that the caller may read, or raises an AppError, which ends the stream.
    """
    trusted_until = time.monotonic() + TRUSTED_SECONDS
    yield "retry: 2000\n\n"
    with watcher.waiting(channel, about) as wake:
        while not watcher.closing:
            if not wake.wait(HEARTBEAT_SECONDS):
                yield ": still here\n\n"
            wake.clear()
            check = still_allowed if time.monotonic() > trusted_until else None
            try:
                part = _read(org_id, look, check)
            except AppError as error:
                yield frame("refused", error.body())  # "error" is what browsers call a lost connection
                return
            except (DBAPIError, PoolTimeout) as error:
                log.warning("stream not read; trying again", error=str(error).splitlines()[0])
                wake.wait(1)
                wake.set()
                continue
            trusted_until = time.monotonic() + TRUSTED_SECONDS if check else trusted_until
            if part.frames:
                yield part.frames
            if part.over:
                return
            if part.more:
                wake.set()
            else:
                time.sleep(GATHER_SECONDS)


def _read(org_id: UUID, look: Look, check: Callable[[], UUID] | None) -> Part:
    """The next part. Raises NotFound or what ``check`` raises."""
    with _readers:
        if check:
            with db.transaction():
                if check() != org_id:
                    raise NotFound("stream")
        with db.transaction(org_id):
            return look()


def frame(kind: str, data: Any, *, id: str | int | None = None) -> str:
    """One event of a stream."""
    place = "" if id is None else f"id: {id}\n"
    return f"{place}event: {kind}\ndata: {db.as_json(data)}\n\n"
