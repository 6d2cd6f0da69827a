"""How a rollout is meant to go on: its stages, gates, rates and maintenance windows. Plain data, as stored."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
HORIZON = 9  # days: every window of a week comes at least once, whatever the zone


@dataclass(frozen=True)
class Window:
    """A time of the week in which devices may be changed; one that ends before it begins ends on the next day."""

    days: tuple[str, ...]
    begins: time
    ends: time
    zone: str

    @classmethod
    def of(cls, stored: Mapping[str, Any]) -> "Window":
        begins, ends = time.fromisoformat(stored["from"]), time.fromisoformat(stored["to"])
        return cls(tuple(stored["days"]), begins, ends, stored["time_zone"])

    def occurrences(self, now: datetime) -> list[tuple[datetime, datetime]]:
        """From yesterday's (it may have passed midnight) to those of the days ahead, in UTC."""
        zone = ZoneInfo(self.zone)
        today = now.astimezone(zone).date()
        found = []
        for day in (today + timedelta(days=number) for number in range(-1, HORIZON)):
            if DAYS[day.weekday()] in self.days:
                last = day if self.ends > self.begins else day + timedelta(days=1)
                begin, end = datetime.combine(day, self.begins, zone), datetime.combine(last, self.ends, zone)
                found.append((begin.astimezone(UTC), end.astimezone(UTC)))
        return found


@dataclass(frozen=True)
class Standing:
    """Whether the maintenance windows are open, and when that changes (None: never)."""

    open: bool = True
    changes_at: datetime | None = None


def standing(windows: Sequence[Window], now: datetime) -> Standing:
    """How windows stand at a moment. Without any it is always open; those that meet count as one."""
    if not windows:
        return Standing()
    occurrences = sorted(one for window in windows for one in window.occurrences(now))
    closes = now
    for begin, end in occurrences:
        if begin <= closes < end:
            closes = end
    if closes > now:
        return Standing(True, closes)
    return Standing(False, min(begin for begin, _end in occurrences if begin > now))


@dataclass(frozen=True)
class Rate:
    """A rate that grows (AWS IoT Jobs): ``base_per_minute`` times ``increment_factor`` for each further so many
    devices notified, or succeeded."""

    base_per_minute: int
    increment_factor: float
    increase_after_notified: int | None = None
    increase_after_succeeded: int | None = None

    def per_minute(self, notified: int, succeeded: int, most: int) -> int:
        """Devices a minute at this point, never more than ``most``."""
        if self.increase_after_notified:
            steps = notified // self.increase_after_notified
        else:
            steps = succeeded // (self.increase_after_succeeded or 1)
        rate = float(self.base_per_minute)
        while steps > 0 and rate < most:
            rate, steps = rate * self.increment_factor, steps - 1
        return min(most, int(rate))


@dataclass(frozen=True)
class Health:
    """What an installed flow must show for ``for_seconds``: that it runs, with no more than ``max_errors`` errors."""

    max_errors: int
    for_seconds: int


@dataclass(frozen=True)
class Strategy:
    """How a rollout goes on. Times in seconds; the backoff doubles each time; ``stages``: cumulative percent."""

    stages: tuple[int, ...] = (100,)
    success_threshold: int = 100
    soak_seconds: int = 0
    max_in_flight: int = 50
    max_per_minute: int | None = None
    exponential_rate: Rate | None = None
    timeout_seconds: int = 300
    retries: int = 2
    retry_backoff_seconds: int = 60
    failure_threshold: int = 10
    min_executed: int = 1
    on_failure: str = "pause"
    maintenance_windows: tuple[Window, ...] = ()
    health: Health | None = None

    @classmethod
    def of(cls, stored: Mapping[str, Any]) -> "Strategy":
        known = {one.name: stored[one.name] for one in fields(cls) if one.name in stored}
        if known.get("exponential_rate"):
            known["exponential_rate"] = Rate(**known["exponential_rate"])
        if known.get("health"):
            known["health"] = Health(**known["health"])
        known["stages"] = tuple(known.get("stages") or (100,))
        known["maintenance_windows"] = tuple(Window.of(one) for one in known.get("maintenance_windows") or ())
        return cls(**known)

    def per_minute(self, notified: int, succeeded: int) -> int | None:
        """How many devices may be sent to within a minute, as things stand; None: as many as there are."""
        if self.exponential_rate is None:
            return self.max_per_minute
        return self.exponential_rate.per_minute(notified, succeeded, self.max_per_minute or MOST_PER_MINUTE)


MOST_PER_MINUTE = 1_000_000
