"""Devices that send no telemetry are asked once a minute, each at its place in it, and a failure is told once."""

import time
from collections import Counter
from collections.abc import Callable
from typing import Any
from uuid import UUID, uuid4

import pytest
import structlog
from structlog.testing import capture_logs

from app.tunnel import polling
from app.tunnel.polling import Poll, until_place
from app.tunnel.protocol import Answer, offline, timed_out, unsupported


class Device:
    """What a connection's ``ask`` was told."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(polling, "log", structlog.get_logger("test"))  # a cached one would not be captured
        self.asked: list[tuple[str, float, Callable[[Answer], None]]] = []
        self.told: list[Any] = []
        self.id = uuid4()
        self.poll = Poll(self._ask, self.id, self.told.append)

    def _ask(self, _id: str, action: str, _payload: Any, timeout: float, deliver: Callable[[Answer], None]) -> None:
        self.asked.append((action, timeout, deliver))

    def live(self, seconds: float) -> None:
        """Tick as a hub does, over so long a time from now."""
        start = time.monotonic()
        for tenth in range(int(seconds * 10)):
            self.poll.tick(start + tenth / 10)


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Device:
    return Device(monkeypatch)


def test_a_device_is_asked_once_a_minute_and_not_at_once(device: Device) -> None:
    device.live(14)
    assert device.asked == []
    device.live(15 + 60 + 5 * 60)
    assert len(device.asked) == 6
    assert {action for action, _timeout, _deliver in device.asked} == {"get_system_metrics"}


def test_a_gateway_that_stood_still_asks_once_for_all_that_it_missed(device: Device) -> None:
    start = time.monotonic()
    device.poll.tick(start + 3_600)
    device.poll.tick(start + 3_600.1)
    assert len(device.asked) == 1


def test_a_fleet_spreads_over_the_minute_and_keeps_its_places() -> None:
    moment = time.time()
    fleet = [uuid4() for _ in range(6_000)]
    tenths = Counter(int(until_place(one, moment) / 6) for one in fleet)
    assert set(tenths) == set(range(10))
    assert max(tenths.values()) < 800
    for one in fleet[:100]:
        assert (until_place(one, moment) - until_place(one, moment + 7)) % 60 == pytest.approx(7, abs=0.01)
    assert until_place(UUID(int=1_500), 60_000.0) == pytest.approx(1.5)


def test_answers_are_passed_on(device: Device) -> None:
    device.live(80)
    device.asked[0][2](Answer("success", data={"cpu": {"usage_percent": 5}}))
    assert device.told == [{"cpu": {"usage_percent": 5}}]


def test_a_failure_is_told_once_until_it_has_worked_again(device: Device) -> None:
    device.live(80 + 5 * 60)
    deliver = [deliver for _action, _timeout, deliver in device.asked]
    with capture_logs() as logs:
        for answer in (timed_out(sent=True), unsupported("no"), timed_out(sent=True)):
            deliver[0](answer)
        assert len(logs) == 1
        deliver[0](Answer("success", data={}))
        deliver[0](offline())
        assert [line["event"] for line in logs] == ["no system metrics"] * 2
    assert device.told == [{}]
