"""Log entries as they are written, for a stream that misses none and tells none twice.

Neither ids nor times rise with the commits: a transaction may hold an id for long, and what a device sent may be days
old. So a place in the stream is a snapshot of PostgreSQL's (which transactions had ended): what the next snapshot shows
and this one did not is new, whatever committed first.
"""

import re
import time
from dataclasses import dataclass
from itertools import pairwise
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, Text, cast, func, literal, select
from sqlalchemy.types import UserDefinedType

from app import db
from app.api_schema import Schema
from app.errors import ValidationFailed
from app.logs import queries
from app.logs.models import LogEntry
from app.streams import BATCH, Part, frame

CHANNEL = "log_entries"
TOLD_SECONDS = 10.0
MAX_XACT = 2**63 - 1
_SNAPSHOT = re.compile(r"(\d{1,19}):(\d{1,19}):((?:\d{1,19}(?:,\d{1,19})*)?)")


class _Snapshot(UserDefinedType[str]):
    cache_ok = True

    def get_col_spec(self, **_options: Any) -> str:
        return "pg_snapshot"


class _Xid8(UserDefinedType[str]):
    cache_ok = True

    def get_col_spec(self, **_options: Any) -> str:
        return "xid8"


@dataclass(frozen=True)
class Place:
    """Everything that ``seen`` shows has been told, and of what ``until`` shows besides, ids up to ``after``."""

    seen: str
    until: str | None = None
    after: int = 0

    def __str__(self) -> str:
        return self.seen if self.until is None else f"{self.seen}/{self.until}/{self.after}"


def now() -> Place:
    """The place after all that has committed."""
    return Place(_snapshot())


def place(text: str) -> Place:
    """The place that a ``Last-Event-ID`` names. Raises ValidationFailed."""
    seen, *rest = text.split("/")
    if not _is_snapshot(seen) or len(rest) not in (0, 2):
        raise _strange()
    if not rest:
        return Place(seen)
    until, after = rest
    if not _is_snapshot(until) or not re.fullmatch(r"\d{1,19}", after) or int(after) > queries.MAX_ID:
        raise _strange()
    return Place(seen, until, int(after))


class Tail:
    """The organization's entries after a place that match the filters, part by part."""

    def __init__(self, org_id: UUID, start: Place, schema: Schema, **filters: Any) -> None:
        self._query, self._place, self._schema = queries.matching(org_id, **filters), start, schema
        self._told_at = 0.0

    def __call__(self) -> Part:
        """The next part; one without entries tells the place now and then, so that a return from there is short."""
        until = self._place.until or _snapshot()
        found = db.session.execute(_new(self._query, self._place, until)).all()
        more = len(found) == BATCH
        frames = [self._frame(entry, Place(self._place.seen, until, entry.id)) for entry in found[:-1]]
        self._place = Place(self._place.seen, until, found[-1].id) if more else Place(until)
        if found:
            frames.append(self._frame(found[-1], self._place))
            self._told_at = time.monotonic()
        elif time.monotonic() - self._told_at > TOLD_SECONDS:
            frames.append(f"id: {self._place}\n\n")
            self._told_at = time.monotonic()
        return Part("".join(frames), more=more)

    def _frame(self, entry: Any, after: Place) -> str:
        return frame("log", self._schema.dump(entry), id=str(after))


def _snapshot() -> str:
    return str(db.session.scalar(select(cast(func.pg_current_snapshot(), Text))))


def _new(query: Any, after: Place, until: str) -> Any:
    """The next entries: what ``until`` shows, and ``after`` did not. The index leads to those of late transactions."""
    seen, shown = (cast(literal(one, Text), _Snapshot) for one in (after.seen, until))
    xact = cast(cast(LogEntry.xact, Text), _Xid8)
    oldest = cast(cast(func.pg_snapshot_xmin(seen), Text), BigInteger)
    return (
        query.where(
            LogEntry.xact >= oldest,
            ~func.pg_visible_in_snapshot(xact, seen),
            func.pg_visible_in_snapshot(xact, shown),
            LogEntry.id > after.after,
        )
        .order_by(LogEntry.id)
        .limit(BATCH)
    )


def _is_snapshot(text: str) -> bool:
    """Whether PostgreSQL would read it: ``xmin:xmax:xip,…``, in order."""
    found = _SNAPSHOT.fullmatch(text)
    if found is None:
        return False
    lower, upper = int(found[1]), int(found[2])
    running = [int(one) for one in found[3].split(",")] if found[3] else []
    in_order = all(a < b for a, b in pairwise(running))
    return 0 < lower <= upper <= MAX_XACT and in_order and all(lower <= one < upper for one in running)


def _strange() -> ValidationFailed:
    return ValidationFailed(details={"Last-Event-ID": ["Not an event of this stream."]})
