"""Which series a query is about, and their points in one statement over as many levels as it takes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, cast
from uuid import UUID

from sqlalchemy import Select, func, select, text

from app import db
from app.billing import plans
from app.devices.models import Device
from app.metrics.grid import Grid
from app.metrics.levels import LEVELS, RAW, SUMMED, Level, serving
from app.metrics.models import Series, Watermark
from app.organizations.models import Organization


@dataclass(frozen=True)
class Aggregate:
    """How values are made: ``a`` and ``b`` of a level's rows and of raw points, how many of them make one, and the end.

    ``folded`` makes ``a`` and ``b`` of several, in as many steps as one likes; ``final`` the value of several.
    """

    rolled: tuple[str, str]
    raw: tuple[str, str]
    folded: tuple[str, str]
    final: str


AGGREGATES = {
    "avg": Aggregate(("sum", "count::float8"), (SUMMED, "1::float8"), ("sum(a)", "sum(b)"), "sum(a) / sum(b)"),
    "min": Aggregate(("min", "NULL"), ("value", "NULL"), ("min(a)", "NULL"), "min(a)"),
    "max": Aggregate(("max", "NULL"), ("value", "NULL"), ("max(a)", "NULL"), "max(a)"),
    "sum": Aggregate(("sum", "NULL"), (SUMMED, "NULL"), ("sum(a)", "NULL"), "sum(a)"),
    "count": Aggregate(("count", "NULL"), ("1::bigint", "NULL"), ("sum(a)::bigint", "NULL"), "sum(a)::bigint"),
    # As roll-ups have it: the newest, of several at one time the largest.
    "last": Aggregate(
        ("last", "date_part('epoch', last_at)"),
        ("value", "date_part('epoch', time)"),
        ("(max(ARRAY[b, a]))[2]", "max(b)"),
        "(max(ARRAY[b, a]))[2]",
    ),
}


@dataclass(frozen=True)
class Stand:
    """The database's clock, how far each level is complete, and how long the organization's plan keeps things."""

    now: datetime
    rolled_until: dict[str, datetime]
    retention: plans.Retention

    def begins(self, kept: str) -> datetime:
        """Before this moment there is nothing any more of what ``kept`` names."""
        keep: timedelta = getattr(self.retention, kept)
        return self.now - keep


@dataclass(frozen=True)
class Part:
    """What one table answers: times from ``begin`` to before ``end``."""

    table: str
    begin: datetime
    end: datetime


def stand(org_id: UUID) -> Stand:
    """Read before the points: a watermark that has moved since leaves more to the finer table, which has it too."""
    query = select(func.now(), Organization.plan).where(Organization.id == org_id)
    now, plan = db.session.execute(query).one()
    marks = db.session.execute(select(Watermark.level, Watermark.rolled_until)).all()
    return Stand(now, {mark.level: mark.rolled_until for mark in marks}, plans.plan(plan).retention)


def series(org_id: UUID, names: Sequence[str], device_id: UUID | None = None) -> Select[Any]:
    """``id`` and ``name`` of the organization's, or a device's, series of these names."""
    query = select(Series.id, Series.name).where(Series.org_id == org_id, Series.name.in_(names))
    return cast(Select[Any], query if device_id is None else query.where(Series.device_id == device_id))


def with_tags(query: Select[Any]) -> Select[Any]:
    """Each series once for every tag of its device."""
    mine = (Device.org_id == Series.org_id) & (Device.id == Series.device_id)
    return query.add_columns(func.unnest(Device.tags).label("tag")).join(Device, mine)


def parts(grid: Grid, at: Stand) -> list[Part]:
    """Which tables to ask for which times: the coarsest as far as it is complete, the rest from ever finer ones."""
    found, begin, end = [], _moment(grid.start), _moment(grid.end)
    for level in serving(grid.step):
        until = min(end, at.rolled_until.get(level.name, begin))
        found += _part(level.table, begin, until, _bucket(at.begins(level.kept), level))
        begin = max(begin, until)
    return found + _part(RAW, begin, end, at.begins("raw"))


def values(grid: Grid, agg: str, found: Sequence[Part], members: Sequence[tuple[int, int]]) -> Iterator[Any]:
    """``(group, slots, values)`` of each group that has any: its values at those places of the grid.

    ``members``: ``(series, group)``; a series may belong to several groups.
    """
    if not found or not members:
        return iter(())
    groups: dict[int, list[int]] = {}
    for series_id, group in members:
        groups.setdefault(series_id, []).append(group)
    kinds = {kind: number for number, kind in enumerate(dict.fromkeys(tuple(own) for own in groups.values()))}
    bound: dict[str, Any] = {
        "ids": list(groups),
        "kinds": [kinds[tuple(own)] for own in groups.values()],
        "from_kinds": [number for kind, number in kinds.items() for _group in kind],
        "groups": [group for kind in kinds for group in kind],
        "start": grid.start,
        "step": grid.step,
    }
    for number, part in enumerate(found):
        bound |= {f"begin{number}": part.begin, f"end{number}": part.end}
    # A plan made for these ids: one for any number of them would expect few, and look each up by itself.
    db.session.execute(text("SET LOCAL plan_cache_mode = force_custom_plan"))
    return iter(db.session.execute(text(_statement(AGGREGATES[agg], found)), bound))


def _statement(aggregate: Aggregate, found: Sequence[Part]) -> str:
    """Series that belong to the same groups are folded first: a device's points are not read once for every tag."""
    union = " UNION ALL ".join(_read(part, number, aggregate) for number, part in enumerate(found))
    a, b = aggregate.folded
    return (
        "SELECT grouped.number, array_agg(grouped.slot) AS slots, array_agg(grouped.value) AS values FROM ("
        f"SELECT m.number, p.slot, {aggregate.final} AS value FROM ("
        f"SELECT k.kind, f.slot, {a} AS a, {b} AS b FROM ({union}) f "
        "JOIN unnest(CAST(:ids AS bigint[]), CAST(:kinds AS int[])) AS k (series_id, kind) USING (series_id) "
        "GROUP BY k.kind, f.slot) p "
        "JOIN unnest(CAST(:from_kinds AS int[]), CAST(:groups AS int[])) AS m (kind, number) USING (kind) "
        "GROUP BY m.number, p.slot) grouped GROUP BY grouped.number"
    )


def _read(part: Part, number: int, aggregate: Aggregate) -> str:
    a, b = aggregate.raw if part.table == RAW else aggregate.rolled
    return (
        "SELECT series_id, "
        "floor((date_part('epoch', time) - CAST(:start AS float8)) / CAST(:step AS float8))::int AS slot, "
        f"{a} AS a, {b} AS b FROM {part.table} "
        f"WHERE series_id = ANY(CAST(:ids AS bigint[])) AND time >= :begin{number} AND time < :end{number}"
    )


def _part(table: str, begin: datetime, end: datetime, kept_since: datetime) -> list[Part]:
    first = max(begin, kept_since)
    return [Part(table, first, end)] if first < end else []


def _moment(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _bucket(moment: datetime, level: Level) -> datetime:
    return _moment(int(moment.timestamp() // level.seconds) * level.seconds)


def kept(at: Stand) -> list[timedelta]:
    """How long raw points are kept, then each level."""
    return [at.retention.raw, *(getattr(at.retention, level.kept) for level in LEVELS)]
