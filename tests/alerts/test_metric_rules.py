"""Rules over the newest values of metrics: when they fire, and when it is over."""

from typing import Any
from uuid import UUID

import pytest

from tests import make
from tests.alerts.watched import Watched, tick


@pytest.fixture
def watched(api: Any, org: UUID) -> Watched:
    return Watched(api, org)


def test_a_rule_fires_and_is_over(watched: Watched) -> None:
    rule = watched.rule()
    watched.send(80)
    assert watched.after(15).state(rule) == "ok"  # not above
    watched.send(80.5)
    assert watched.after(15).state(rule) == "firing"
    (alert,) = watched.alerts(rule)
    assert (alert.subject, alert.device_name, alert.value) == (str(watched.devices[0].id), "device-0", 80.5)
    watched.send(80)
    assert watched.after(15).state(rule) == "ok"
    assert watched.kinds(rule) == ["firing", "resolved"]
    assert watched.read(rule)["alerts"] == {"pending": 0, "firing": 0, "acknowledged": 0, "resolved": 1}


@pytest.mark.parametrize(
    ("condition", "at", "below", "above"),
    [
        ("gt", False, False, True),
        ("gte", True, False, True),
        ("lt", False, True, False),
        ("lte", True, True, False),
        ("eq", True, False, False),
        ("ne", False, True, True),
    ],
)
def test_conditions(watched: Watched, condition: str, at: bool, below: bool, above: bool) -> None:
    rule = watched.rule(condition=condition, threshold=5)
    for value, fires in ((5, at), (4, below), (6, above)):
        watched.send(value)
        tick()
        assert (watched.state(rule) == "firing") == fires, value


def test_it_waits_for_seconds_and_begins_anew_after_each_recovery(watched: Watched) -> None:
    rule = watched.rule(for_seconds=60)
    watched.send(90)
    assert watched.after(15).state(rule) == "pending"
    assert watched.after(45).state(rule) == "pending"
    watched.send(70)
    assert watched.after(10).state(rule) == "ok"
    assert watched.alerts(rule) == []  # what never fired leaves no trace
    watched.send(90)
    assert watched.after(0).state(rule) == "pending"
    watched.send(90)
    assert watched.after(59).state(rule) == "pending"
    assert watched.after(1).state(rule) == "firing"
    assert watched.kinds(rule) == ["firing"]


def test_hysteresis_keeps_it_firing_until_it_is_really_over(watched: Watched) -> None:
    rule = watched.rule(clear_threshold=75)
    for value, state in ((78, "ok"), (81, "firing"), (78, "firing"), (75.5, "firing"), (75, "ok"), (78, "ok")):
        watched.send(value)
        assert watched.after(15).state(rule) == state, value


def test_what_is_pending_goes_between_the_thresholds(watched: Watched) -> None:
    rule = watched.rule(clear_threshold=75, for_seconds=60)
    watched.send(81)
    assert watched.after(15).state(rule) == "pending"
    watched.send(78)
    assert watched.after(15).state(rule) == "ok"


def test_breaching_again_is_a_new_alert(watched: Watched) -> None:
    rule = watched.rule()
    for value in (90, 70, 90):
        watched.send(value)
        watched.after(15)
    assert [alert.state for alert in watched.alerts(rule)] == ["resolved", "firing"]
    assert watched.kinds(rule) == ["firing", "resolved", "firing"]


def test_silence_keeps_an_alert_as_it_is(watched: Watched) -> None:
    rule = watched.rule(for_seconds=60)
    watched.send(90)
    assert watched.after(15).state(rule) == "pending"
    assert watched.after(300).state(rule) == "pending"  # nothing shows that it goes on
    watched.send(90)
    assert watched.after(0).state(rule) == "firing"
    assert watched.after(3600).state(rule) == "firing"


def test_silence_can_be_the_end(watched: Watched) -> None:
    rule = watched.rule(no_data="ok")
    watched.send(90)
    assert watched.after(299).state(rule) == "firing"
    assert watched.after(1).state(rule) == "ok"
    assert watched.events(rule)[-1].data == {"reason": "no data"}


def test_silence_can_be_the_alarm(watched: Watched) -> None:
    rule = watched.rule(no_data="alert", for_seconds=30)
    never = make.device(watched.org, name="never connected")[0]
    assert watched.after(15).state(rule) == "ok"  # the device is new: it may yet send
    assert watched.after(300).state(rule) == "pending"
    assert watched.after(30).state(rule) == "firing"
    assert str(never.id) not in {alert.subject for alert in watched.alerts(rule)}
    watched.send(20)
    assert watched.after(1).state(rule) == "ok"


def test_a_value_says_something_for_three_times_the_wait(watched: Watched) -> None:
    rule = watched.rule(no_data="ok", for_seconds=200)
    watched.send(90)
    watched.after(0)
    assert watched.after(599).state(rule) == "firing"
    assert watched.after(1).state(rule) == "ok"


def test_the_worst_of_a_devices_series_counts(watched: Watched) -> None:
    rule = watched.rule()
    watched.send(20, tags='{"core":"0"}')
    watched.send(95, tags='{"core":"1"}')
    watched.send(85, tags='{"core":"2"}')
    assert watched.after(1).state(rule) == "firing"
    assert [alert.value for alert in watched.alerts(rule)] == [95]
    watched.send(20, tags='{"core":"1"}')
    assert watched.after(1).state(rule) == "firing"
    watched.send(20, tags='{"core":"2"}')
    assert watched.after(1).state(rule) == "ok"


def test_targets(api: Any, org: UUID) -> None:
    watched = Watched(api, org, 3)
    pump, named, _other = watched.devices
    watched.sql("UPDATE devices SET tags = '{pump}' WHERE id = :id", id=pump.id)
    rules = {
        "tag": watched.rule(target={"tags": ["valve", "pump"]}),
        "ids": watched.rule(target={"device_ids": [str(named.id)]}),
        "all": watched.rule(target={"all": True}),
    }
    for device in watched.devices:
        watched.send(99, device)
    tick()
    found = {name: {alert.device_id for alert in watched.alerts(rule)} for name, rule in rules.items()}
    assert found == {"tag": {pump.id}, "ids": {named.id}, "all": {device.id for device in watched.devices}}


def test_another_tenants_values_are_none_of_its_business(watched: Watched, app: Any) -> None:
    rule = watched.rule(target={"all": True})
    other = make.organization()
    theirs = Watched(make.client(app, other), other)
    theirs.send(99)
    tick()
    assert watched.alerts(rule) == []


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("UPDATE devices SET tags = '{}' WHERE id = :id", "not a target any more"),
        ("UPDATE devices SET disabled_at = now() WHERE id = :id", "device disabled"),
        ("DELETE FROM devices WHERE id = :id", "device deleted"),
    ],
)
def test_a_device_that_leaves_ends_its_alert(api: Any, org: UUID, change: str, reason: str) -> None:
    watched = Watched(api, org, tags=["pump"])
    firing = watched.rule(target={"tags": ["pump"]})
    pending = watched.rule(target={"tags": ["pump"]}, for_seconds=600)
    watched.send(99)
    watched.after(1)
    watched.sql(change, id=watched.devices[0].id)
    watched.after(1)
    assert [watched.state(firing), watched.state(pending)] == ["ok", "ok"]
    (ended,) = watched.alerts(firing)
    assert (ended.state, ended.subject, ended.device_name) == ("resolved", str(watched.devices[0].id), "device-0")
    assert watched.events(firing)[-1].data == {"reason": reason}
    assert watched.alerts(pending) == []
