"""Points of metrics: counted by the hour (UTC) of arrival, and in a day (UTC) no more stored than the plan allows.

Everything here belongs to the transaction that stores them. Any number store at once: each looks first what room there
is, and only their last statements take turns, which check what was taken for granted. Who finds that others have taken
the room meanwhile does it again; one of them always comes through. So no point too many is stored, and none too few.
"""

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session

from app import journal
from app.billing import plans
from app.journal import Note
from config.settings import settings

QUOTA = "metric_points_per_day"
DAY = timedelta(days=1)

Arrival = tuple[UUID, datetime]
"""An organization, and the hour or the day (UTC) in which something of it arrived."""


class Overtaken(Exception):
    """Others have meanwhile stored what was left of a day's points: roll back and do it again."""


@dataclass
class Room:
    """How many points of each day there still is room for; ``left`` has only the days that do not take all."""

    left: dict[Arrival, int] = field(default_factory=dict)

    def take(self, org_id: UUID, arrived: datetime, wanted: int) -> int:
        """How many of some more points are to be stored: those that come first."""
        day = org_id, day_of(arrived)
        if day not in self.left:
            return wanted
        granted = min(wanted, self.left[day])
        self.left[day] -= granted
        return granted


def hour_of(moment: datetime) -> datetime:
    return moment.replace(minute=0, second=0, microsecond=0)


def day_of(moment: datetime) -> datetime:
    return moment.replace(hour=0, minute=0, second=0, microsecond=0)


def room(session: Session, wanted: Mapping[Arrival, int]) -> Room:
    """The room for so many points of an hour, as it is now: ``count`` says whether it was still there."""
    days = _by_day(wanted)
    return Room({day: one.left for day, one in _days(session, days).items() if one.left < days[day]})


def count(session: Session, stored: Mapping[Arrival, int], refused: Mapping[Arrival, int]) -> None:
    """Add to what was stored, and refused for want of room, in an hour. Raises Overtaken.

    The first refusal of a day is told in the organization's journal. The last statements of a transaction: its
    organizations' others wait for it.
    """
    hours = sorted(hour for hour in stored.keys() | refused.keys() if stored.get(hour) or refused.get(hour))
    if not hours:
        return
    days, over = _by_day(stored), _by_day(refused)
    if settings().billing:
        _take_turns(session, hours)
        stand = _days(session, days.keys() | over.keys())
        if any(days[day] > one.left for day, one in stand.items() if days[day]):
            raise Overtaken
        _tell(stand, over)
    values = {
        "orgs": [org_id for org_id, _hour in hours],
        "hours": [hour for _org, hour in hours],
        "points": [stored.get(hour, 0) for hour in hours],
        "refused": [refused.get(hour, 0) for hour in hours],
    }
    session.execute(_COUNT, values)


def _by_day(hours: Mapping[Arrival, int]) -> Counter[Arrival]:
    days = Counter[Arrival]()
    for (org_id, hour), number in hours.items():
        days[org_id, day_of(hour)] += number
    return days


_USED = text("""
SELECT o.id, o.plan, g.day, coalesce(u.points, 0) AS points, coalesce(u.refused, 0) AS refused
FROM unnest(CAST(:orgs AS uuid[]), CAST(:days AS timestamptz[])) AS g (org_id, day)
JOIN organizations o ON o.id = g.org_id
CROSS JOIN LATERAL (
    SELECT CAST(sum(p.points) AS bigint) AS points, CAST(sum(p.refused) AS bigint) AS refused FROM usage_points p
    WHERE p.org_id = o.id AND p.hour >= g.day AND p.hour < g.day + interval '24 hours'
) u
""")


@dataclass(frozen=True)
class _Day:
    """What a limited organization's day stands at."""

    limit: int
    points: int
    refused: int

    @property
    def left(self) -> int:
        return max(0, self.limit - self.points)


def _days(session: Session, wanted: Collection[Arrival]) -> dict[Arrival, _Day]:
    """How those days stand whose points are limited."""
    if not wanted or not settings().billing:
        return {}
    values = {"orgs": [org_id for org_id, _day in wanted], "days": [day for _org, day in wanted]}
    found = dict[Arrival, _Day]()
    for row in session.execute(_USED, values):
        limit = plans.plan(row.plan).quotas[QUOTA]
        if limit is not None:
            found[row.id, row.day] = _Day(limit, row.points, row.refused)
    return found


_TURNS = text("""
SELECT pg_advisory_xact_lock(hashtextextended('points ' || one.org, 0)) FROM unnest(CAST(:orgs AS text[])) AS one (org)
""")


def _take_turns(session: Session, hours: Collection[Arrival]) -> None:
    """In one order everywhere. Statements that begin after this see what others have counted."""
    session.execute(_TURNS, {"orgs": sorted({str(org_id) for org_id, _hour in hours})})


def _tell(days: Mapping[Arrival, _Day], refused: Mapping[Arrival, int]) -> None:
    """Note the first refusal of a day. Who comes after has waited for this turn, and sees it counted."""
    journal.note_many(
        Note(
            org_id,
            "quota.exceeded",
            f"points are refused until {day + DAY:%Y-%m-%d %H:%M} UTC: the plan's {stands.limit} of a day are stored",
            "warning",
            fields={"quota": QUOTA, "limit": stands.limit, "day": f"{day:%Y-%m-%d}"},
        )
        for (org_id, day), stands in sorted(days.items())
        if refused[org_id, day] and not stands.refused
    )


_COUNT = text("""
INSERT INTO usage_points (org_id, hour, points, refused)
SELECT o.id, g.hour, g.points, g.refused
FROM unnest(CAST(:orgs AS uuid[]), CAST(:hours AS timestamptz[]), CAST(:points AS bigint[]), CAST(:refused AS bigint[]))
    AS g (org_id, hour, points, refused)
JOIN organizations o ON o.id = g.org_id
ORDER BY o.id, g.hour
ON CONFLICT (org_id, hour) DO UPDATE SET points = usage_points.points + excluded.points,
    refused = usage_points.refused + excluded.refused
""")
