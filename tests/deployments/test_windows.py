"""Maintenance windows and rates, without a database: nights, weeks, zones, clocks that change."""

from datetime import UTC, datetime
from typing import Any

import pytest

from app.deployments.strategy import Rate, Standing, Strategy, Window, standing

ALL = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"]


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def window(begins: str, ends: str, zone: str = "UTC", days: list[str] | None = None) -> Window:
    return Window.of({"from": begins, "to": ends, "time_zone": zone, "days": days or ALL})


NIGHT = window("22:00", "04:00")
WEEKEND = window("00:00", "00:00", days=["sat", "sun"])
PARIS = window("02:00", "05:00", "Europe/Paris")
OFFICE = window("09:00", "17:00", "America/New_York", days=["mon"])


@pytest.mark.parametrize(
    ("windows", "now", "is_open", "changes_at"),
    [
        ([NIGHT], "2026-11-23T21:59", False, "2026-11-23T22:00"),
        ([NIGHT], "2026-11-23T22:00", True, "2026-11-24T04:00"),
        ([NIGHT], "2026-11-24T03:59", True, "2026-11-24T04:00"),
        ([NIGHT], "2026-11-24T04:00", False, "2026-11-24T22:00"),
        # 2026-11-28 is a Saturday; days that meet are one window
        ([WEEKEND], "2026-11-25T12:00", False, "2026-11-28T00:00"),
        ([WEEKEND], "2026-11-28T12:00", True, "2026-11-30T00:00"),
        ([NIGHT, window("04:00", "06:00")], "2026-11-24T01:00", True, "2026-11-24T06:00"),
        ([window("10:00", "11:00"), NIGHT], "2026-11-24T05:00", False, "2026-11-24T10:00"),
        # Paris: UTC+1 in winter, UTC+2 in summer; 02:00 does not exist on 2026-03-29
        ([PARIS], "2026-01-10T01:00", True, "2026-01-10T04:00"),
        ([PARIS], "2026-07-10T00:30", True, "2026-07-10T03:00"),
        ([PARIS], "2026-03-29T02:30", True, "2026-03-29T03:00"),
        ([PARIS], "2026-03-29T03:30", False, "2026-03-30T00:00"),
        ([OFFICE], "2026-11-24T00:00", False, "2026-11-30T14:00"),
    ],
)
def test_how_windows_stand(windows: list[Window], now: str, is_open: bool, changes_at: str) -> None:
    assert standing(windows, at(now)) == Standing(is_open, at(changes_at))


def test_without_windows_it_is_always_open() -> None:
    assert standing([], at("2026-11-23T12:00")) == Standing(True, None)


def test_always_open_by_windows_is_looked_at_again_within_days() -> None:
    always = standing([window("00:00", "00:00")], at("2026-11-23T12:00"))
    assert always.open
    assert always.changes_at is not None
    assert always.changes_at > at("2026-11-29T00:00")


@pytest.mark.parametrize(
    ("rate", "notified", "succeeded", "expected"),
    [
        (Rate(10, 2, increase_after_notified=100), 99, 0, 10),
        (Rate(10, 2, increase_after_notified=100), 100, 0, 20),
        (Rate(10, 2, increase_after_notified=100), 350, 0, 80),
        (Rate(10, 1.5, increase_after_succeeded=10), 500, 9, 10),
        (Rate(10, 1.5, increase_after_succeeded=10), 500, 20, 22),
        (Rate(1000, 5, increase_after_succeeded=1), 10_000, 10_000, 500),
    ],
)
def test_a_rate_grows_up_to_its_cap(rate: Rate, notified: int, succeeded: int, expected: int) -> None:
    assert Strategy(exponential_rate=rate, max_per_minute=500).per_minute(notified, succeeded) == expected


@pytest.mark.parametrize("stored", [{}, {"retries": 3, "unknown": 1}, {"exponential_rate": None}])
def test_strategies_of_former_times_are_read(stored: dict[str, Any]) -> None:
    assert Strategy.of(stored).stages == (100,)
    assert Strategy.of(stored).per_minute(0, 0) is None
