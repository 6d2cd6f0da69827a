"""What an organization has used, by the hour (UTC): added up from what is stored anyway, and told by bucket.

An hour is added up again after each of the next two, for what came late; from then on it stands (``usage_hours``), and
is reported. So the present hour and the two before it are provisional: asked for, they are added up on the spot.
"""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any, cast
from uuid import UUID

from sqlalchemy import CursorResult, text

from app import db
from app.billing import usage_queries
from app.errors import ValidationFailed

HOUR = timedelta(hours=1)
AGAIN = 2
"""An hour is added up once it is over, and again after each of so many more."""
REACH = timedelta(days=7)
"""How far back an aggregation goes after an outage: so long the smallest plan keeps the journal that it reads."""
AT_ONCE = timedelta(hours=6)
"""Added up by one statement."""
GRANULARITIES = ("hour", "day", "month")
MOST_BUCKETS = 1_000
COUNTED = ("device_seconds", "commands", "deployments", "points", "points_refused")


def read(
    org_id: UUID, begin: datetime | None = None, end: datetime | None = None, granularity: str = "day"
) -> dict[str, Any]:
    """What the organization used from ``begin`` to before ``end``, in buckets of whole UTC hours, days or months.

    ``{period_start, period_end, granularity, totals: Counts, buckets: [{start, end, provisional, **Counts}]}``, where
    ``Counts`` is ``{device_seconds, device_hours, commands, deployments, points, points_refused}``: integers, but
    ``device_hours``, which is ``device_seconds`` / 3600, rounded to 4 places. Every bucket of the range is there, oldest
    first, also one of zeros; ``provisional``: it holds hours that may still change. Times are aware datetimes.

    Default: the current UTC month so far. The range is widened to whole buckets, and ends with the present one.
    Raises ValidationFailed (``from``, ``to`` or ``granularity``).
    """
    now = _now()
    begin = _floor(begin or _floor(now, "month"), _known(granularity))
    end = min(end or now, now)
    _demand_range(begin, end, granularity)
    buckets = _buckets(begin, end, granularity)
    settled = _floor(now, "hour") - AGAIN * HOUR
    for row in _used(org_id, begin, _after(max(buckets), granularity), settled):
        bucket = buckets[_floor(row.hour, granularity)]
        for name in COUNTED:
            bucket[name] += getattr(row, name)
    told = [_told(start, _after(start, granularity), counts, settled) for start, counts in buckets.items()]
    totals = {name: sum(counts[name] for counts in buckets.values()) for name in COUNTED}
    return {
        "period_start": begin,
        "period_end": told[-1]["end"],
        "granularity": granularity,
        "totals": _with_hours(totals),
        "buckets": told,
    }
