"""Questions about metrics: series on a grid of times, and what there is."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from itertools import count
from typing import Any
from uuid import UUID

from sqlalchemy import Row, func, select

from app import db
from app.clock import rfc3339
from app.deployments.models import Deployment
from app.devices import drift, status
from app.devices import service as devices
from app.devices.models import Connection, Device
from app.errors import ValidationFailed
from app.flows.models import Flow
from app.metrics import queries
from app.metrics.grid import DEFAULT_RANGE, MAX_POINTS, Grid, default_step, fitting_step, grid
from app.metrics.models import MetricUsage, Series
from app.metrics.queries import Stand

MAX_ANSWER = 500_000
"""Points in one answer."""

Answer = dict[str, Any]
Labelled = list[tuple[str, dict[str, str]]]
"""Name and labels of each series of an answer."""


def organization(org_id: UUID, *, group_by: str | None = None, name: Sequence[str] = (), **when: Any) -> Answer:
    """The organization's series of these names, or without a name its summary. Raises ValidationFailed."""
    if not name:
        return summary(org_id)
    at = queries.stand(org_id)
    query = queries.series(org_id, name)
    if group_by == "tag":
        query = queries.with_tags(query)
    if group_by == "device":
        query = query.add_columns(Series.device_id)
    found = db.session.execute(query).all()
    return _answer(at, [(row.id, (row.name, _label(row, group_by))) for row in found], **when)


def device(org_id: UUID, device_id: UUID, *, name: Sequence[str] = (), **when: Any) -> Answer:
    """A device's series, one for each set of tags that its points carry; without a name the newest value of each.

    Raises NotFound and ValidationFailed.
    """
    devices.get(org_id, device_id)
    if not name:
        return {"series": _newest(org_id, device_id)}
    at = queries.stand(org_id)
    query = queries.series(org_id, name, device_id).add_columns(Series.tags)
    found = db.session.execute(query).all()
    keys = [(row.id, (row.name, (*sorted(_texts(row.tags)), ("device", str(device_id))))) for row in found]
    return _answer(at, keys, **when)


def summary(org_id: UUID) -> Answer:
    """What the organization has, in numbers, and the names of its metrics."""
    connected = (Connection.org_id == Device.org_id) & (Connection.device_id == Device.id)
    states = (
        select(status.expression().label("status"), func.count().label("number"))
        .select_from(Device)
        .outerjoin(Connection, connected)
        .where(Device.org_id == org_id)
        .group_by("status")
    )
    used = select(func.sum(MetricUsage.points), func.sum(MetricUsage.commands)).where(MetricUsage.org_id == org_id)
    points, commands = db.session.execute(used).one()
    names = select(Series.name).where(Series.org_id == org_id).distinct().order_by(Series.name)
    return {
        "devices": {row.status: row.number for row in db.session.execute(states)},
        "devices_drifting": drift.count(org_id),
        "flows": db.session.scalar(select(func.count()).where(Flow.org_id == org_id)),
        "deployments": db.session.scalar(select(func.count()).where(Deployment.org_id == org_id)),
        "commands": int(commands or 0),
        "points_stored": int(points or 0),
        "names": list(db.session.scalars(names)),
    }


def _label(row: Row[Any], group_by: str | None) -> tuple[tuple[str, str], ...]:
    return () if group_by is None else ((group_by, str(row.device_id if group_by == "device" else row.tag)),)


def _texts(tags: dict[str, Any]) -> list[tuple[str, str]]:
    return [(key, value if isinstance(value, str) else str(value)) for key, value in tags.items()]


def _answer(
    at: Stand,
    keys: Iterable[tuple[int, Any]],
    *,
    agg: str,
    from_: datetime | None = None,
    to: datetime | None = None,
    step: int | None = None,
) -> Answer:
    """``keys``: each series with the ``(name, labels)`` that it counts for."""
    numbers: dict[Any, int] = {}
    numbering = count()
    members = []
    for series_id, key in keys:
        if key not in numbers:
            numbers[key] = next(numbering)
        members.append((series_id, numbers[key]))
    lines = _grid(at, from_, to, step, len(numbers))
    rows: dict[int, list[Any]] = {}
    for number, slots, values in queries.values(lines, agg, queries.parts(lines, at), members):
        rows[number] = row = [None] * lines.count
        for slot, value in zip(slots, values, strict=True):
            row[slot] = value
    times, nothing = lines.times, [None] * lines.count
    found = [
        {"name": name, "labels": dict(labels), "points": _points(times, rows.get(number, nothing))}
        for (name, labels), number in numbers.items()
    ]
    found.sort(key=lambda one: (one["name"], list(one["labels"].items())))
    return {"series": found}


def _points(times: Sequence[str], values: Sequence[Any]) -> list[list[Any]]:
    return [[time, value] for time, value in zip(times, values, strict=True)]


def _grid(at: Stand, begin: datetime | None, end: datetime | None, step: int | None, series: int) -> Grid:
    end = at.now if end is None else end
    begin = end - DEFAULT_RANGE if begin is None else begin
    if begin >= end:
        raise ValidationFailed(details={"from": ["Must lie before to."]})
    step = step or default_step(begin, end, queries.kept(at), at.now)
    lines = grid(begin, end, step)
    if lines.count > MAX_POINTS:
        raise _too_many(begin, end)
    if lines.count * series > MAX_ANSWER:
        most = f"{series} series of {lines.count} points: at most {MAX_ANSWER} points in one answer."
        raise ValidationFailed(details={"step": [most]})
    return lines


def _too_many(begin: datetime, end: datetime) -> ValidationFailed:
    proposed = fitting_step(begin, end)
    if proposed is None:
        return ValidationFailed(details={"from": [f"The range is too long: at most {MAX_POINTS} days."]})
    message = f"More than {MAX_POINTS} points a series: take a step of {proposed} or more."
    return ValidationFailed(details={"step": [message]}, proposed_step=proposed)


def _newest(org_id: UUID, device_id: UUID) -> list[dict[str, Any]]:
    query = select(Series.name, Series.tags, Series.last_at, Series.last_value)
    mine = query.where(Series.org_id == org_id, Series.device_id == device_id, Series.last_at.is_not(None))
    return [
        {
            "name": row.name,
            "labels": {**dict(_texts(row.tags)), "device": str(device_id)},
            "points": [[rfc3339(row.last_at), row.last_value]],
        }
        for row in db.session.execute(mine.order_by(Series.name, Series.tags_key))
    ]
