"""Roll-ups: each point counts exactly once in every level, whenever it comes and whoever is killed.

A level has a watermark: buckets that begin before it are complete. The job moves it, together with the buckets it
completes, in one transaction; a transaction that stores points adds those that lie before it to their buckets itself.
Storing holds a lock shared, the job holds it alone. So none can store points of a bucket while that bucket is being
completed: for every point either the job comes first, and storing merges it, or the point does, and the job counts it.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast

from sqlalchemy import CursorResult, text
from sqlalchemy.orm import Session

from app.metrics.levels import LEVELS, RAW, SUMMED, Level

LOCK = 0x45444D52  # "EDMR"; advisory locks are kept per database
SETTLE_SECONDS = 30  # most points are here by then: merging costs more than counting

COLUMNS = "org_id, series_id, time, count, sum, min, max, last, last_at"
# The value of the newest point, of several at one time the largest: whatever the order they come in, it is the same.
# An array and not ORDER BY within the aggregate, which would sort all points.
_OF_POINTS = (
    f"count(*), sum({SUMMED}), min(value), max(value), (max(ARRAY[date_part('epoch', time), value]))[2], max(time)"
)
_OF_BUCKETS = (
    "sum(count), sum(sum), min(min), max(max), (max(ARRAY[date_part('epoch', last_at), last]))[2], max(last_at)"
)


@dataclass(frozen=True)
class Step:
    """How far one transaction got, and whether there was more to do."""

    until: datetime
    more: bool


def lock_shared(session: Session) -> None:
    """Before a transaction stores points: no roll-up runs until it ends."""
    session.execute(text("SELECT pg_advisory_xact_lock_shared(:key)"), {"key": LOCK})


def merge_late(session: Session) -> None:
    """Add those of ``incoming_points`` that lie before a level's watermark to their buckets. Wants ``lock_shared``.

    ``incoming_points``: the temporary table ``(org_id, series_id, time, value, claimed_at)`` of what is being stored.
    """
    late = session.execute(
        text(
            "SELECT w.level FROM metric_watermarks w, (SELECT min(time) AS first FROM incoming_points) i "
            "WHERE i.first < w.rolled_until"
        )
    ).scalars()
    names = set(late)
    for level in LEVELS:
        if level.name in names:
            session.execute(text(_merge(level)), {"level": level.name})


def advance(session: Session, level: Level, seconds: int) -> Step | None:
    """Complete the next ``seconds`` of a level's buckets; None when there is nothing to complete.

    Wants a system transaction. Holds up storing until it ends, so ``seconds`` should be few.
    """
    session.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": LOCK})
    begin = session.scalar(
        text("SELECT rolled_until FROM metric_watermarks WHERE level = :level"), {"level": level.name}
    )
    if begin is None:
        begin = session.scalar(text(_begin(level)), {"level": level.name})
    if begin is None:
        return None
    values: dict[str, Any] = {"level": level.name, "begin": begin, "seconds": seconds}
    target = session.scalar(text(_target(level)), values)
    if target is None or target <= begin:
        return None
    until: datetime = session.scalar(text("SELECT least(:target, :begin + make_interval(secs => :seconds))"),
                                     {**values, "target": target})  # fmt: skip
    filled = cast(CursorResult[Any], session.execute(text(_fill(level)), {"begin": begin, "until": until}))
    if filled.rowcount == 0:  # nobody sent anything: on to where somebody did
        until = session.scalar(text(_next(level)), {"begin": until, "target": target})
    session.execute(
        text("UPDATE metric_watermarks SET rolled_until = :until WHERE level = :level"),
        {"level": level.name, "until": until},
    )
    return Step(until, until < target)


def _bucket(level: Level, moment: str = "time") -> str:
    return f"date_bin('{level.seconds} s', {moment}, 'epoch')"


def _begin(level: Level) -> str:
    """The first watermark: where the source begins, or its own watermark; now, when there is nothing yet."""
    source = _source_level(level)
    if source is None:
        first = f"coalesce((SELECT min(time) FROM {RAW}), now() - interval '{SETTLE_SECONDS} s')"
    else:
        known = f"(SELECT rolled_until FROM metric_watermarks WHERE level = '{source.name}')"
        first = f"least((SELECT min(time) FROM {source.table}), {known})"
    return (
        "INSERT INTO metric_watermarks (level, rolled_until) "
        f"SELECT :level, {_bucket(level, first)} WHERE {first} IS NOT NULL RETURNING rolled_until"
    )


def _target(level: Level) -> str:
    """How far the level can be completed now."""
    source = _source_level(level)
    if source is None:
        return f"SELECT {_bucket(level, f'''now() - interval '{SETTLE_SECONDS} s' ''')}"
    return f"SELECT {_bucket(level, 'rolled_until')} FROM metric_watermarks WHERE level = '{source.name}'"


def _next(level: Level) -> str:
    """Where the source goes on."""
    first = f"(SELECT min(time) FROM {level.source} WHERE time >= :begin AND time < :target)"
    return f"SELECT coalesce({_bucket(level, first)}, :target)"


def _source_level(level: Level) -> Level | None:
    return next((one for one in LEVELS if one.table == level.source), None)


def _fill(level: Level) -> str:
    """Buckets lie by name, so that one name of a whole fleet is found on few pages.

    Those that are there already (a lost watermark) are made anew: they hold what their source holds.
    """
    replaced = ", ".join(f"{name} = excluded.{name}" for name in ("count", "sum", "min", "max", "last", "last_at"))
    return (
        f"INSERT INTO {level.table} ({COLUMNS}) "
        f"SELECT b.* FROM (SELECT org_id, series_id, {_bucket(level)} AS time, "
        f"{_OF_POINTS if level.source == RAW else _OF_BUCKETS} "
        f"FROM {level.source} WHERE time >= :begin AND time < :until GROUP BY 1, 2, 3) b "
        "JOIN metric_series s ON s.id = b.series_id ORDER BY b.time, s.name, b.series_id "
        f"ON CONFLICT (series_id, time) DO UPDATE SET {replaced}"
    )


def _merge(level: Level) -> str:
    """In the order of the key: two that store at once wait for each other's buckets in one direction only."""
    table = level.table
    return (
        f"INSERT INTO {table} ({COLUMNS}) "
        f"SELECT org_id, series_id, {_bucket(level)}, {_OF_POINTS} FROM incoming_points "
        "WHERE time < (SELECT rolled_until FROM metric_watermarks WHERE level = :level) "
        "GROUP BY 1, 2, 3 ORDER BY 2, 3 "
        f"ON CONFLICT (series_id, time) DO UPDATE SET count = {table}.count + excluded.count, "
        f"sum = {table}.sum + excluded.sum, min = least({table}.min, excluded.min), "
        f"max = greatest({table}.max, excluded.max), "
        f"last = CASE WHEN (excluded.last_at, excluded.last) > ({table}.last_at, {table}.last) "
        f"THEN excluded.last ELSE {table}.last END, last_at = greatest({table}.last_at, excluded.last_at)"
    )
