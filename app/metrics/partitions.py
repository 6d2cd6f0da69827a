"""What lies in partitions by time: made ahead, dropped when no plan keeps it, and thinned out for shorter plans.

Each function wants a system transaction of its own: what it locks, it locks for short.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, cast

from sqlalchemy import CursorResult, text

from app import db
from app.billing import plans
from app.metrics.levels import LEVELS, RAW

LOCK_WAIT = "SET LOCAL lock_timeout = '5s'"
"""Who waits for a table holds up all that come after; the next hour tries again."""
PAST = timedelta(days=8)
"""A device's clock may be a week late; what is older is stored as of its arrival."""
LONG_AGO = datetime(1, 1, 1, tzinfo=UTC)
WINDOW = timedelta(hours=6)
"""Rows of so much time are deleted in one transaction."""


@dataclass(frozen=True)
class Partitioned:
    """A table with partitions of a day or a month, ``ahead`` of which are there; ``kept``: its retention in a plan."""

    table: str
    every: str
    ahead: int
    kept: str


TABLES = (
    Partitioned(RAW, "day", 3, "raw"),
    *(
        Partitioned(level.table, "month", 2, level.kept)
        if level.kept == "hours"
        else Partitioned(level.table, "day", 3, level.kept)
        for level in LEVELS
    ),
    Partitioned("log_entries", "day", 3, "logs"),
)


def create(one: Partitioned) -> int:
    """Make the partitions that rows may come for, from a week ago to some ahead; how many were lacking."""
    db.session.execute(text(LOCK_WAIT))
    made = db.session.execute(
        text(
            f"SELECT count(*) FILTER (WHERE ensure_partition('{one.table}', '{one.every}', day)) FROM ("
            f"SELECT DISTINCT date_trunc('{one.every}', moment, 'UTC') AS day "
            f"FROM generate_series(now() - :past, now() + interval '{one.ahead} {one.every}', interval '1 day') moment"
            ") days"
        ),
        {"past": PAST},
    ).scalar_one()
    return int(made)


def drop(one: Partitioned) -> int:
    """Drop the partitions that no plan keeps any more; how many."""
    db.session.execute(text(LOCK_WAIT))
    before = "now() - CAST(:kept AS interval)"
    dropped = db.session.scalar(
        text(f"SELECT drop_partitions('{one.table}', '{one.every}', {before})"), {"kept": plans.longest(one.kept)}
    )
    return int(dropped or 0)


@dataclass(frozen=True)
class Excess:
    """Rows of one table, from ``begin`` to before ``end``, that the plans named do not keep."""

    table: str
    plans: tuple[str, ...]
    begin: datetime
    end: datetime


def excess(*, thorough: bool) -> Iterator[Excess]:
    """What shorter plans do not keep although others do, the newest first, in pieces for one transaction each.

    Each hour what has just passed; ``thorough``: also all that is older, which organizations left that changed their
    plan, and what lies before every partition.
    """
    now = db.session.execute(text("SELECT now()")).scalar_one()
    for one in TABLES:
        first = _first_day(one)
        for kept, names in _by_retention(one.kept).items():
            end = now - kept
            if kept < plans.longest(one.kept):  # its partitions are dropped
                yield from _windows(one.table, names, first if thorough else end - WINDOW, end)
            if thorough:
                yield Excess(one.table, names, LONG_AGO, min(first, end))


def delete(piece: Excess) -> int:
    """Delete what a piece names; how many rows."""
    statement = (
        f"DELETE FROM {piece.table} WHERE time >= :begin AND time < :end "
        "AND org_id = ANY(ARRAY(SELECT id FROM organizations "
    )
    known = [name for name in plans.plans() if name != plans.DEFAULT]
    # An unknown plan counts as the free one.
    chosen = "WHERE plan = ANY(:names) OR (:default AND NOT plan = ANY(:known))))"
    done = db.session.execute(
        text(statement + chosen),
        {
            "begin": piece.begin,
            "end": piece.end,
            "names": list(piece.plans),
            "default": plans.DEFAULT in piece.plans,
            "known": known,
        },
    )
    return cast(CursorResult[Any], done).rowcount


def _first_day(one: Partitioned) -> datetime:
    """Where the oldest partition begins."""
    oldest = (
        "SELECT coalesce(min(to_date(right(c.relname, 8), 'YYYYMMDD')::timestamp AT TIME ZONE 'UTC'), now()) "
        "FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid "
        "WHERE i.inhparent = to_regclass(:table) AND c.relname ~ '_p[0-9]{8}$'"
    )
    found: datetime = db.session.execute(text(oldest), {"table": one.table}).scalar_one()
    return found


def _by_retention(kept: str) -> dict[timedelta, tuple[str, ...]]:
    """The plans that keep something equally long."""
    found: dict[timedelta, tuple[str, ...]] = {}
    for plan in plans.plans().values():
        keep = getattr(plan.retention, kept)
        found[keep] = (*found.get(keep, ()), plan.id)
    return found


def _windows(table: str, names: tuple[str, ...], oldest: datetime, end: datetime) -> Iterator[Excess]:
    while end > oldest:
        begin = max(oldest, end - WINDOW)
        yield Excess(table, names, begin, end)
        end = begin
