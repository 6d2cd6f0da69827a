"""The platform's journal: what it saw and did, among the organization's logs with ``source: platform``.

Every room may write in it, and it reads nothing. An entry about a change belongs to the change's transaction and is
rolled back with it. Names, ids, states and reasons go in; keys, tokens, passwords, payloads and answers never do.
"""

import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from typing import Any
from uuid import UUID

import structlog
from sqlalchemy import text
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from app import db, log_context
from app.batch import Batcher

log = structlog.get_logger(__name__)

LEVELS = ("debug", "info", "warning", "error")
"""Stored as their places in this list."""

GATHER_SECONDS = 0.25
BATCH = 1_000
WAITING = 20_000
"""While the database is away so many wait in the process; further ones are dropped, and counted."""


@dataclass(frozen=True)
class Note:
    """An entry. ``org_id`` None: the organization that the user ``user_id`` signs in to, if he has one."""

    org_id: UUID | None
    kind: str
    message: str
    level: str = "info"
    device_id: UUID | None = None
    fields: dict[str, Any] = field(default_factory=dict)
    user_id: UUID | None = None


_INSERT = text("""
INSERT INTO log_entries (org_id, device_id, level, source, kind, message, fields)
SELECT n.org_id, n.device_id, n.level, 'platform', n.kind, n.message, n.fields
FROM (
    SELECT coalesce(g.org_id, (SELECT m.org_id FROM memberships m WHERE m.user_id = g.user_id
                               ORDER BY m.created_at, m.org_id LIMIT 1)) AS org_id,
        g.device_id, g.level, g.kind, g.message, g.fields
    FROM jsonb_to_recordset(CAST(:notes AS jsonb))
        AS g (org_id uuid, user_id uuid, device_id uuid, level smallint, kind text, message text, fields jsonb)
) n
WHERE n.org_id IS NOT NULL
""")


def note(
    org_id: UUID | None, kind: str, message: str, *, level: str = "info", device_id: UUID | None = None, **fields: Any
) -> None:
    """Write one entry in the current transaction, which must act for ``org_id``; None: there is nobody to tell.

    Who acts and in which request is added.
    """
    if org_id is not None:
        note_many([Note(org_id, kind, message, level, device_id, {**fields, **_circumstances()})])


def note_many(notes: Iterable[Note]) -> None:
    """Write entries in the current transaction, in one statement."""
    given = list(notes)
    if not given:
        return
    # One text, which costs a tenth of an array a column.
    db.session.execute(_INSERT, {"notes": _storable([_row(one) for one in given])})


def later(entry: Note) -> None:
    """Write an entry soon, by a thread of this process: for what is no change, and whose caller must not wait.

    Gathered, so that a thousand a second are four statements. What a process that is killed had not written is lost.
    """
    _late().add(entry)


def drain(timeout: float) -> bool:
    """Wait until what came ``later`` is written; False if that took longer."""
    return _late().drain(timeout)


def _row(one: Note) -> dict[str, Any]:
    return {
        "org_id": one.org_id,
        "user_id": one.user_id,
        "device_id": one.device_id,
        "level": LEVELS.index(one.level),
        "kind": one.kind,
        "message": one.message,
        "fields": {key: value for key, value in one.fields.items() if value is not None},
    }


def _storable(rows: list[dict[str, Any]]) -> str:
    """What stands in names and devices' codes may hold what PostgreSQL cannot."""
    return db.as_json(rows).replace("\\u0000", "\\ufffd")


def _circumstances() -> dict[str, Any]:
    context = log_context.fields()
    return {key: context[key] for key in ("actor", "request_id") if context.get(key)}


class _Late:
    """Entries on their way, in bounds."""

    def __init__(self) -> None:
        self._waiting, self._dropped, self._lock = 0, 0, threading.Lock()
        away = (OperationalError, InterfaceError, PoolTimeout)
        self._batches: Batcher[Note] = Batcher(
            "journal", self._write, seconds=GATHER_SECONDS, most=BATCH, passing=away, failed=self._forget
        )

    def add(self, entry: Note) -> None:
        with self._lock:
            full = self._waiting >= WAITING
            self._dropped += full
            self._waiting += not full
        if not full:
            self._batches.add(entry)

    def drain(self, timeout: float) -> bool:
        return self._batches.drain(timeout)

    def _write(self, batch: list[Note]) -> None:
        with db.transaction(system=True):
            note_many(batch)
        self._forget(batch)

    def _forget(self, batch: list[Note], _error: Exception | None = None) -> None:
        with self._lock:
            self._waiting -= len(batch)
            dropped, self._dropped = self._dropped, 0
        if dropped:
            log.warning("journal entries dropped: too many waited for the database", entries=dropped)


@cache
def _late() -> _Late:
    """The thread of this process, begun at first use (after the web server has forked)."""
    return _Late()
