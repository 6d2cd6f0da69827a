"""A deployment's events as a stream of server-sent events (WHATWG HTML, "Server-sent events").

While a stream waits it holds no connection to the database and no transaction, only its socket.
"""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any
from uuid import UUID

import structlog
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from app import db
from app.api_schema import Schema
from app.deployments import events
from app.deployments.watch import watcher
from app.errors import AppError, NotFound, RateLimited

log = structlog.get_logger(__name__)

MAX_STREAMS = 250  # of one organization in one process
HEARTBEAT_SECONDS = 15.0
TRUSTED_SECONDS = 60.0
GATHER_SECONDS = 0.1  # a busy rollout changes more often than anybody reads
BATCH = 200

# Caches must keep nothing, and proxies pass each event on at once.
HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}

# However many streams wake at once, requests find connections to the database.
_readers = threading.BoundedSemaphore(4)
_open: Counter[UUID] = Counter()
_lock = threading.Lock()


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


def stream(
    org_id: UUID, deployment_id: UUID, after: int, *, schema: Schema, still_allowed: Callable[[], UUID]
) -> Iterator[str]:
    """Events after ``after`` as they come, until the deployment is over.

    ``still_allowed`` is asked again, within a transaction, when the stream goes on after 60 s: it answers the
    organization that the caller may read, or raises an AppError, which ends the stream.
    """
    trusted_until = time.monotonic() + TRUSTED_SECONDS
    yield "retry: 2000\n\n"
    with watcher.waiting(deployment_id) as wake:
        while not watcher.closing:
            if not wake.wait(HEARTBEAT_SECONDS):
                yield ": still here\n\n"
            wake.clear()
            check = still_allowed if time.monotonic() > trusted_until else None
            try:
                found, over = _read(org_id, deployment_id, after, check)
            except AppError as error:
                yield _frame("refused", error.body())  # "error" is what browsers call a lost connection
                return
            except (DBAPIError, PoolTimeout) as error:
                log.warning("events not read; trying again", error=str(error).splitlines()[0])
                wake.wait(1)
                wake.set()
                continue
            trusted_until = time.monotonic() + TRUSTED_SECONDS if check else trusted_until
            if found:
                after = found[-1].id
                yield _frames(found, schema)
            if over:
                return
            if len(found) == BATCH:
                wake.set()
            elif found:
                time.sleep(GATHER_SECONDS)


def _read(
    org_id: UUID, deployment_id: UUID, after: int, check: Callable[[], UUID] | None
) -> tuple[list[events.DeploymentEvent], bool]:
    """The next events, and whether they are the last. Raises NotFound or what ``check`` raises."""
    with _readers:
        if check:
            with db.transaction():
                if check() != org_id:
                    raise NotFound("deployment")
        with db.transaction(org_id):
            # In this order: what happened before the end is there once the end is.
            finished = events.finished(org_id, deployment_id)
            found = list(events.since(org_id, deployment_id, after, BATCH))
    return found, finished and len(found) < BATCH


def _frames(found: Iterable[events.DeploymentEvent], schema: Schema) -> str:
    return "".join(f"id: {one.id}\n{_frame(one.kind, schema.dump(one))}" for one in found)


def _frame(kind: str, data: Any) -> str:
    return f"event: {kind}\ndata: {db.as_json(data)}\n\n"
