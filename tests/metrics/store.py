"""Points in the database, stored as workers store them: under the shared lock, merged where they are late."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session

from app import db
from app.clock import now
from app.metrics import rollup
from app.metrics.levels import LEVELS
from app.metrics.models import Series
from tests.metrics.twin import Point

TABLES = ("metric_points", *(level.table for level in LEVELS))
CREATE = (
    "CREATE TEMPORARY TABLE IF NOT EXISTS incoming_points (org_id uuid, series_id bigint, time timestamptz, "
    "value double precision, claimed_at timestamptz) ON COMMIT DROP"
)
FILL = (
    "INSERT INTO incoming_points SELECT s.org_id, s.id, to_timestamp(g.at), g.value, NULL "
    "FROM unnest(CAST(:series AS bigint[]), CAST(:times AS float8[]), CAST(:values AS float8[])) AS g (id, at, value) "
    "JOIN metric_series s ON s.id = g.id"
)


def series(org_id: UUID, device_id: UUID, name: str = "temperature", tags: dict[str, Any] | None = None) -> int:
    made = Series(org_id=org_id, device_id=device_id, name=name, tags=tags or {}, tags_key=str(tags or ""))
    with db.transaction(org_id) as session:
        session.add(made)
    return made.id


def put(session: Session, points: Sequence[Point]) -> None:
    """What a storing transaction does with points."""
    rollup.lock_shared(session)
    session.execute(text(CREATE))
    values = {
        "series": [point.series for point in points],
        "times": [point.at for point in points],
        "values": [point.value for point in points],
    }
    session.execute(text(FILL), values)
    session.execute(text("INSERT INTO metric_points SELECT * FROM incoming_points"))
    rollup.merge_late(session)


def store(points: Sequence[Point]) -> None:
    with db.transaction(system=True) as session:
        put(session, points)


def clear() -> None:
    """No points, and no roll-ups of any."""
    with db.transaction(system=True) as session:
        for table in (*TABLES, "metric_watermarks"):
            session.execute(text(f"DELETE FROM {table}"))


def watermarks() -> dict[str, float]:
    with db.transaction(system=True) as session:
        rows = session.execute(text("SELECT level, date_part('epoch', rolled_until) AS until FROM metric_watermarks"))
        return {row.level: row.until for row in rows}


def rolled(table: str) -> dict[tuple[int, int], tuple[Any, ...]]:
    """All buckets of a level, as the twin has them."""
    with db.transaction(system=True) as session:
        rows = session.execute(
            text(
                "SELECT series_id, date_part('epoch', time), count, sum, min, max, last, date_part('epoch', last_at) "
                f"FROM {table}"
            )
        )
        return {(row[0], int(row[1])): tuple(row[2:]) for row in rows}


def recently(minutes: float = 0) -> datetime:
    """The beginning of the hour, and so many minutes before that."""
    return now().replace(minute=0, second=0, microsecond=0) - timedelta(minutes=minutes)


def moment(seconds: float) -> str:
    """As a query's ``from`` and ``to`` want it."""
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")
