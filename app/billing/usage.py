"""What an organization has used, by the hour (UTC): added up from what is stored anyway, and told by bucket.

An hour is added up once it is over and again after each of the next two, for what came late; from then on it stands
(``usage_hours``) and is reported. So the present hour and the two before it are provisional: asked for, they are added
up on the spot.
"""

import time
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import text

from app import db
from app.billing import usage_queries as queries
from app.errors import ValidationFailed

HOUR = timedelta(hours=1)
AGAIN = 2
"""So often an hour is added up anew, after each of the hours that follow."""
REACH = timedelta(days=7)
"""How far back an aggregation goes after an outage: so long the smallest plan keeps the journal that it reads."""
AT_ONCE = 24 * HOUR
"""At most added up by one transaction, which begins with an hour and takes more while that is quick."""
QUICK_SECONDS = 1.0
GRANULARITIES = ("hour", "day", "month")
MOST_BUCKETS = 1_000
EARLIEST = datetime(2000, 1, 1, tzinfo=UTC)
COUNTED = ("device_seconds", "commands", "deployments", "points", "points_refused")


def read(
    org_id: UUID, begin: datetime | None = None, end: datetime | None = None, granularity: str = "day"
) -> dict[str, Any]:
    """What the organization used from ``begin`` to before ``end``, in buckets of whole UTC hours, days or months.

    ``{period_start, period_end, granularity, totals: Counts, buckets: [{start, end, provisional, **Counts}]}``, where
    ``Counts`` is ``{device_seconds, device_hours, commands, deployments, points, points_refused}``: integers, but
    ``device_hours``, which is ``device_seconds`` / 3600, rounded to 4 places. Every bucket of the range is there, the
    oldest first, also one of zeros; ``provisional``: it holds hours that may still change. Times are aware datetimes.

    Default: the current UTC month so far. The range is widened to whole buckets, and ends with the present one.
    Raises ValidationFailed (``from``, ``to`` or ``granularity``).
    """
    now: datetime = db.session.execute(text("SELECT now()")).scalar_one()
    starts = _starts(now, begin, end, granularity)
    settled = _floor(now, "hour") - AGAIN * HOUR
    counts = {start: dict.fromkeys(COUNTED, 0) for start in starts}
    until = _next(starts[-1], granularity)
    for row in queries.used(org_id, starts[0], until, settled, granularity):
        bucket = counts[_floor(row.hour, granularity)]
        for name in COUNTED:
            bucket[name] += getattr(row, name)
    totals = {name: sum(bucket[name] for bucket in counts.values()) for name in COUNTED}
    return {
        "period_start": starts[0],
        "period_end": until,
        "granularity": granularity,
        "totals": _with_hours(totals),
        "buckets": [_bucket(start, _next(start, granularity), settled, bucket) for start, bucket in counts.items()],
    }


def _bucket(start: datetime, end: datetime, settled: datetime, counts: dict[str, int]) -> dict[str, Any]:
    return {"start": start, "end": end, "provisional": end > settled, **_with_hours(counts)}


def _with_hours(counts: dict[str, int]) -> dict[str, Any]:
    return {**counts, "device_hours": round(counts["device_seconds"] / 3600, 4)}


def _starts(now: datetime, begin: datetime | None, end: datetime | None, granularity: str) -> list[datetime]:
    """Where the buckets of a range begin, oldest first, at least one. Raises ValidationFailed."""
    if granularity not in GRANULARITIES:
        raise ValidationFailed(details={"granularity": [f"Must be one of: {', '.join(GRANULARITIES)}."]})
    begin = _floor(now, "month") if begin is None else begin
    if begin < EARLIEST:
        raise ValidationFailed(details={"from": [f"Must not lie before {EARLIEST.year}."]})
    if end is not None and begin >= end:
        raise ValidationFailed(details={"from": ["Must lie before to."]})
    if begin >= now:
        raise ValidationFailed(details={"from": ["Must lie in the past."]})
    end = now if end is None else min(end, now)
    starts = [_floor(begin, granularity)]
    while (following := _next(starts[-1], granularity)) < end:
        if len(starts) == MOST_BUCKETS:
            most = f"The range is too long: at most {MOST_BUCKETS} buckets of one {granularity}."
            raise ValidationFailed(details={"from": [most]})
        starts.append(following)
    return starts


def _floor(moment: datetime, granularity: str) -> datetime:
    """Where the bucket begins that holds a moment."""
    whole = moment.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    if granularity == "hour":
        return whole
    return whole.replace(hour=0) if granularity == "day" else whole.replace(day=1, hour=0)


def _next(start: datetime, granularity: str) -> datetime:
    """Where the bucket after the one that begins there begins."""
    if granularity == "month":
        return _floor(start + timedelta(days=31), "month")
    return start + (HOUR if granularity == "hour" else 24 * HOUR)


def catch_up() -> int:
    """Add up every hour that is over and may have changed, each few in a transaction of their own; rows that changed.

    Safe to run twice, or at once. Idle times leave no rows, so after them it looks back as far as it may.
    """
    with db.transaction(system=True):
        now, newest = queries.last()
        done, earliest = _floor(now, "hour"), _floor(now, "hour") - REACH
        changed = queries.count_late(earliest)
    begin = earliest if newest is None else max(earliest, min(newest, done - HOUR) - (AGAIN - 1) * HOUR)
    span = HOUR
    while begin < done:
        began = time.monotonic()
        changed += aggregate(begin, min(begin + span, done))
        begin += span
        span = min(AT_ONCE, 2 * span) if time.monotonic() - began < QUICK_SECONDS else HOUR
    return changed


def aggregate(begin: datetime, end: datetime | None = None) -> int:
    """Add up the hours from ``begin`` (whole) to before ``end`` of every organization; how many rows changed.

    Default: one hour. In a transaction of its own, set-wise, safe to repeat.
    """
    with db.transaction(system=True):
        return queries.aggregate(begin, begin + HOUR if end is None else end)
