"""Log entries page by page, newest first."""

import base64
import binascii
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Select, func, literal_column, select, tuple_

from app import db
from app.errors import ValidationFailed
from app.journal import LEVELS
from app.logs.models import LogEntry

MAX_ID = 2**63 - 1
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

SHOWN = (
    LogEntry.id, LogEntry.time, LogEntry.claimed_at, LogEntry.received_at, LogEntry.level, LogEntry.source,
    LogEntry.kind, LogEntry.device_id, LogEntry.message, LogEntry.fields,
)  # fmt: skip


def page(org_id: UUID, *, limit: int, cursor: str | None = None, **filters: Any) -> dict[str, Any]:
    """The newest entries that match, or those that are older than ``cursor``. Raises ValidationFailed.

    Entries that come meanwhile change no later page: newer ones lie before the cursor; late ones, whose time is older,
    stand in their place.
    """
    query = matching(org_id, **filters).order_by(LogEntry.time.desc(), LogEntry.id.desc())
    if cursor is not None:
        query = query.where(tuple_(LogEntry.time, LogEntry.id) < tuple_(*_place(cursor)))
    found = db.session.execute(query.limit(limit + 1)).all()
    items = found[:limit]
    return {"items": items, "next_cursor": _cursor(items[-1]) if len(found) > limit else None}


def matching(
    org_id: UUID,
    *,
    level: str | None = None,
    q: str | None = None,
    source: str | None = None,
    kind: str | None = None,
    device_id: UUID | None = None,
    from_: datetime | None = None,
    to: datetime | None = None,
) -> Select[Any]:
    """The organization's entries of at least a level, about all words of ``q``, from ``from_`` until before ``to``.

    ``q`` is read as search engines read it: ``"exact words"``, ``or``, ``-without``.
    """
    query: Select[Any] = select(*SHOWN).where(LogEntry.org_id == org_id)
    if level is not None:
        query = query.where(LogEntry.level >= LEVELS.index(level))
    if q is not None:
        # The configuration's name stands in the statement, as in the index.
        words = func.to_tsvector(literal_column("'simple'"), LogEntry.message)
        query = query.where(words.bool_op("@@")(func.websearch_to_tsquery(literal_column("'simple'"), q)))
    for column, value in ((LogEntry.source, source), (LogEntry.kind, kind), (LogEntry.device_id, device_id)):
        if value is not None:
            query = query.where(column == value)
    if from_ is not None:
        query = query.where(LogEntry.time >= from_)
    if to is not None:
        query = query.where(LogEntry.time < to)
    return query


def _cursor(entry: Any) -> str:
    micros = (entry.time - EPOCH) // timedelta(microseconds=1)
    return base64.urlsafe_b64encode(f"{micros}.{entry.id}".encode()).decode().rstrip("=")


def _place(cursor: str) -> tuple[datetime, int]:
    """The time and id that a cursor stands for. Raises ValidationFailed."""
    try:
        micros, entry_id = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode("ascii").split(".")
        if not (micros.isdecimal() and entry_id.isdecimal() and len(micros) < 18 and int(entry_id) <= MAX_ID):
            raise ValueError(cursor)
        return EPOCH + timedelta(microseconds=int(micros)), int(entry_id)
    except (ValueError, UnicodeError, binascii.Error, OverflowError):
        raise ValidationFailed(details={"cursor": ["Not a cursor of this list."]}) from None
