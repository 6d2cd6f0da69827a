"""Log entries page by page, newest first."""

import base64
import binascii
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, Select, func, literal, literal_column, select, tuple_

from app import db
from app.billing import plans
from app.errors import ValidationFailed
from app.journal import LEVELS
from app.logs.models import LogEntry
from app.organizations.models import Organization

MAX_ID = 2**63 - 1
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

SHOWN = (
    LogEntry.id, LogEntry.time, LogEntry.claimed_at, LogEntry.received_at, LogEntry.level, LogEntry.source,
    LogEntry.kind, LogEntry.device_id, LogEntry.message, LogEntry.fields,
)  # fmt: skip


def page(
    org_id: UUID, *, limit: int, cursor: str | None = None, from_: datetime | None = None, **filters: Any
) -> dict[str, Any]:
    """The newest entries that match, or those that are older than ``cursor``. Raises ValidationFailed.

    Entries that come meanwhile change no later page: newer ones lie before the cursor; late ones, whose time is older,
    stand in their place. What the organization's plan keeps no longer is not told, though it may be there still.
    """
    kept_since = _kept_since(org_id)
    filters["from_"] = kept_since if from_ is None else max(from_, kept_since)
    before = None if cursor is None else _place(cursor)
    listed = plain if filters.get("q") is None else searched
    found = db.session.execute(listed(org_id, limit + 1, before, **filters)).all()
    items = found[:limit]
    return {"items": items, "next_cursor": _cursor(items[-1]) if len(found) > limit else None}


def plain(org_id: UUID, limit: int, before: tuple[datetime, int] | None = None, **filters: Any) -> Select[Any]:
    """The newest ``limit`` entries that match, before a time and id."""
    query = matching(org_id, **filters)
    if before is not None:
        query = query.where(tuple_(LogEntry.time, LogEntry.id) < tuple_(*before))
    return _newest(query, limit)


def searched(org_id: UUID, limit: int, before: tuple[datetime, int] | None = None, **filters: Any) -> Select[Any]:
    """As ``plain``, for what has words: they are sought where their index may be used (see ``find_log_entries``)."""
    level, (time, entry_id) = filters.get("level"), before or (None, None)
    at = LogEntry.time.type
    found = func.find_log_entries(
        filters["q"], None if level is None else LEVELS.index(level), filters.get("source"), filters.get("kind"),
        filters.get("device_id"), literal(filters.get("from_"), at), literal(filters.get("to"), at), literal(time, at),
        literal(entry_id, BigInteger), limit,
    ).table_valued("entry_time", "entry_id")  # fmt: skip
    place = (LogEntry.time == found.c.entry_time) & (LogEntry.id == found.c.entry_id)
    return _newest(select(*SHOWN).join(found, place).where(LogEntry.org_id == org_id), limit)


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


def _newest(query: Select[Any], limit: int) -> Select[Any]:
    return query.order_by(LogEntry.time.desc(), LogEntry.id.desc()).limit(limit)


def _kept_since(org_id: UUID) -> datetime:
    now, plan = db.session.execute(select(func.now(), Organization.plan).where(Organization.id == org_id)).one()
    began: datetime = now - plans.plan(plan).retention.logs
    return began


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
