"""Points go in: by COPY, under series that are found or made, with last values and what each organization has stored.

Everything here belongs to the caller's system transaction.
"""

import struct
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session

from app.metrics import rollup
from app.metrics.series import Key, Series, Wanted, find_or_make, known

Point = tuple[Key, int, float, int | None]
"""Key, microseconds since 1970, value, and the time that the device claimed where that was not taken."""

# COPY's binary format: PostgreSQL counts from 2000. A row is what its series knows of it, and one of these.
_POSTGRES_EPOCH_US = int(datetime(2000, 1, 1, tzinfo=UTC).timestamp()) * 1_000_000
_TAIL = struct.Struct("!qidi").pack
_TAIL_CLAIMED = struct.Struct("!qidiq").pack
_HEADER = b"PGCOPY\n\xff\r\n\0" + struct.pack("!ii", 0, 0)
_TRAILER = struct.pack("!h", -1)
_ROWS_AT_ONCE = 2_000
_LATEST_AT_ONCE = 5_000


class FromDevice(NamedTuple):
    """Points of one device, and the hour (UTC) in which they arrived."""

    org_id: UUID
    device_id: UUID
    points: Sequence[Point]
    hour: datetime


@dataclass
class Stored:
    """What became of points: how many of each organization and hour were stored, and how many refused, by reason."""

    points: Counter[tuple[UUID, datetime]] = field(default_factory=Counter)
    refused: dict[UUID, Counter[str]] = field(default_factory=dict)


class StaleSeries(Exception):
    """A remembered series is gone, or not there yet. It is forgotten now: roll back and do it again."""


def add(session: Session, incoming: Sequence[FromDevice]) -> Stored:
    """Store points, in one transaction with whatever else the session does. Raises StaleSeries."""
    stored = Stored()
    rows, latest = list[bytes](), dict[int, tuple[int, float]]()
    later = list[FromDevice]()
    for one in incoming:
        count, unknown = _write(one, rows, latest)
        stored.points[one.org_id, one.hour] += count
        if unknown:
            later.append(one._replace(points=unknown))
    if later:
        _add_new(session, later, rows, latest, stored)
    if rows:
        rollup.lock_shared(session)
        _copy(session, rows)
        session.execute(_INSERT)
        rollup.merge_late(session)
        _set_latest(session, latest, incoming)
    return stored


def _write(one: FromDevice, rows: list[bytes], latest: dict[int, tuple[int, float]]) -> tuple[int, list[Point]]:
    """Add the rows of a device's points to ``rows``; how many, and the points whose series are not known."""
    unknown = list[Point]()
    series_of, before = known.of(one.device_id), len(rows)
    for point in one.points:
        key, us, value, claimed = point
        series: Series | None = series_of.get(key)
        if series is None:
            unknown.append(point)
            continue
        if claimed is None:
            rows.append(series.head + _TAIL(us - _POSTGRES_EPOCH_US, 8, value, -1))
        else:
            rows.append(series.head + _TAIL_CLAIMED(us - _POSTGRES_EPOCH_US, 8, value, 8, claimed - _POSTGRES_EPOCH_US))
        last = latest.get(series.id)
        if last is None or us >= last[0]:
            latest[series.id] = (us, value)
    return len(rows) - before, unknown


def _add_new(
    session: Session,
    later: list[FromDevice],
    rows: list[bytes],
    latest: dict[int, tuple[int, float]],
    stored: Stored,
) -> None:
    """Points of series that this process did not know: those of devices that are gone are dropped."""
    wanted: set[Wanted] = {(one.org_id, one.device_id, point[0]) for one in later for point in one.points}
    refused = find_or_make(session, wanted)
    for one in later:
        count, without = _write(one, rows, latest)
        stored.points[one.org_id, one.hour] += count
        reasons = [refused.get((one.org_id, one.device_id, point[0])) for point in without]
        found = Counter(reason for reason in reasons if reason)
        if found:
            stored.refused.setdefault(one.org_id, Counter()).update(found)


_TABLE = text("""
CREATE TEMPORARY TABLE IF NOT EXISTS incoming_points (
    org_id uuid NOT NULL, series_id bigint NOT NULL, time timestamptz NOT NULL, value float8 NOT NULL,
    claimed_at timestamptz
) ON COMMIT DELETE ROWS
""")
# By way of the temporary table, since COPY into a table with row-level security is refused.
_INSERT = text("""
INSERT INTO metric_points (org_id, series_id, time, value, claimed_at)
SELECT org_id, series_id, time, value, claimed_at FROM incoming_points
""")


def _copy(session: Session, rows: list[bytes]) -> None:
    session.execute(_TABLE)
    driver: Any = session.connection().connection.driver_connection
    with driver.cursor() as cursor, cursor.copy("COPY incoming_points FROM STDIN (FORMAT BINARY)") as copy:
        copy.write(_HEADER)
        for start in range(0, len(rows), _ROWS_AT_ONCE):
            copy.write(b"".join(rows[start : start + _ROWS_AT_ONCE]))
        copy.write(_TRAILER)


# The rows are locked in one order, so that two transactions with the same series never wait for each other.
_LATEST = text("""
WITH given AS (
    SELECT * FROM unnest(CAST(:ids AS bigint[]), CAST(:times AS bigint[]), CAST(:values AS float8[]))
        AS g (id, us, value)
), there AS (
    SELECT s.id, timestamptz 'epoch' + g.us * interval '1 microsecond' AS at, g.value
    FROM metric_series s JOIN given g ON g.id = s.id ORDER BY s.id FOR NO KEY UPDATE OF s
), told AS (
    UPDATE metric_series s SET last_at = t.at, last_value = t.value
    FROM there t WHERE s.id = t.id AND (s.last_at IS NULL OR s.last_at <= t.at)
)
SELECT count(*) FROM there
""")


def _set_latest(session: Session, latest: dict[int, tuple[int, float]], incoming: Sequence[FromDevice]) -> None:
    """Set what rules and summaries read. Raises StaleSeries when a series is not there."""
    for part in _parts(sorted(latest.items())):
        values = {
            "ids": [series_id for series_id, _last in part],
            "times": [us for _id, (us, _value) in part],
            "values": [value for _id, (_us, value) in part],
        }
        if session.scalar(_LATEST, values) != len(part):
            known.forget({one.device_id for one in incoming})
            raise StaleSeries


def _parts(items: list[Any]) -> Iterator[list[Any]]:
    for start in range(0, len(items), _LATEST_AT_ONCE):
        yield items[start : start + _LATEST_AT_ONCE]


class Used(NamedTuple):
    """What an organization had stored and refused."""

    points: int
    refused: int
    logs: int


_USAGE = text("""
INSERT INTO metric_usage (org_id, day, points, refused, logs)
SELECT o.id, CAST(now() AT TIME ZONE 'UTC' AS date), g.points, g.refused, g.logs
FROM unnest(CAST(:orgs AS uuid[]), CAST(:points AS bigint[]), CAST(:refused AS bigint[]), CAST(:logs AS bigint[]))
    AS g (org_id, points, refused, logs)
JOIN organizations o ON o.id = g.org_id
ORDER BY o.id
ON CONFLICT (org_id, day) DO UPDATE SET points = metric_usage.points + excluded.points,
    refused = metric_usage.refused + excluded.refused, logs = metric_usage.logs + excluded.logs
""")


def count(session: Session, used: dict[UUID, Used]) -> None:
    """Add to what was stored today. The last statement of a transaction: the organization's others wait for its row."""
    if used:
        columns = zip(*used.values(), strict=True)
        points, refused, logs = (list(column) for column in columns)
        session.execute(_USAGE, {"orgs": list(used), "points": points, "refused": refused, "logs": logs})
