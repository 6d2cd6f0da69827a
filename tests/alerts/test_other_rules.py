"""Rules over silence, rollouts and logs."""

from typing import Any
from uuid import UUID

import pytest

from app import db
from app.tunnel import sweep
from config.settings import settings
from tests import make
from tests.alerts.watched import Watched, tick
from tests.deployments.fleet import Fleet


@pytest.fixture
def watched(api: Any, org: UUID) -> Watched:
    return Watched(api, org)


OFFLINE_AFTER = 75


def test_a_silent_device_fires_when_it_counts_as_offline(watched: Watched) -> None:
    assert settings().offline_after == OFFLINE_AFTER
    rule = watched.bare_rule("device_offline")
    assert watched.after(OFFLINE_AFTER - 1).state(rule) == "ok"
    assert watched.after(1).state(rule) == "firing"
    watched.connect(*watched.devices)
    assert watched.after(1).state(rule) == "ok"
    assert watched.kinds(rule) == ["firing", "resolved"]


def test_it_fires_in_time_also_when_the_gateway_died(watched: Watched) -> None:
    """For_seconds count from when the device fell silent, not from when a sweep came to close its connection."""
    rule = watched.bare_rule("device_offline", for_seconds=20)
    assert watched.after(OFFLINE_AFTER + 4).state(rule) == "pending"
    with db.transaction(system=True):
        assert sum(sweep.sweep().values()) >= 1
    assert watched.after(15).state(rule) == "pending"
    assert watched.after(1).state(rule) == "firing"  # OFFLINE_AFTER + 20 s after the last sign of life


def test_a_device_that_says_goodbye_is_offline_at_once(watched: Watched) -> None:
    rule = watched.bare_rule("device_offline", for_seconds=10)
    watched.sql("UPDATE connections SET disconnected_at = now() WHERE org_id = :org", org=watched.org)
    assert watched.after(9).state(rule) == "pending"
    assert watched.after(1).state(rule) == "firing"


def test_another_silence_is_counted_anew(watched: Watched) -> None:
    """Also when nobody looked while the device was back."""
    rule = watched.bare_rule("device_offline", for_seconds=60)
    gone = "UPDATE connections SET disconnected_at = now() WHERE org_id = :org"
    watched.sql(gone, org=watched.org)
    assert watched.after(50).state(rule) == "pending"
    watched.connect(*watched.devices)
    watched.sql(gone, org=watched.org)
    assert watched.after(59).state(rule) == "pending"
    assert watched.after(1).state(rule) == "firing"


def test_pending_and_disabled_devices_are_not_offline(watched: Watched) -> None:
    rule = watched.bare_rule("device_offline")
    make.device(watched.org, name="never connected")
    watched.sql("UPDATE devices SET disabled_at = now() WHERE id = :id", id=watched.devices[0].id)
    assert watched.after(3600).state(rule) == "ok"


def entries(watched: Watched, count: int, message: str = "valve stuck", **fields: Any) -> None:
    for _ in range(count):
        watched.log(message, watched.devices[0], **fields)


def test_matches_are_counted_in_a_window(watched: Watched) -> None:
    rule = watched.bare_rule("log_match", query={"q": "valve -test"}, threshold=3, for_seconds=60)
    entries(watched, 2)
    entries(watched, 5, "valve test")
    entries(watched, 5, "pump stuck")
    assert watched.after(30).state(rule) == "ok"
    entries(watched, 1, "VALVE open")
    assert watched.after(0).state(rule) == "firing"
    assert [alert.value for alert in watched.alerts(rule)] == [3]
    assert watched.after(20).state(rule) == "firing"
    assert watched.after(10).state(rule) == "ok"  # the first two have left the window


def test_a_log_rule_has_defaults_and_levels(watched: Watched) -> None:
    rule = watched.bare_rule("log_match", query={"level": "error"})
    assert (rule["threshold"], rule["for_seconds"]) == (1, 300)
    entries(watched, 1, level=2)
    assert watched.after(1).state(rule) == "ok"
    entries(watched, 1, level=3)
    assert watched.after(1).state(rule) == "firing"


def test_entries_of_no_device_count_for_the_organization(watched: Watched) -> None:
    rule = watched.bare_rule("log_match", query={"q": "refused"})
    narrow = watched.bare_rule("log_match", query={"q": "refused"}, target={"tags": ["pump"]})
    watched.log("sign-in refused")
    tick()
    assert [alert.subject for alert in watched.alerts(rule)] == [str(watched.org)]
    assert watched.alerts(narrow) == []


def test_what_alerts_write_matches_no_rule(watched: Watched) -> None:
    rule = watched.bare_rule("log_match", query={"q": "alert"}, for_seconds=60)
    hot = watched.rule()
    watched.send(99)
    watched.after(1).after(1)
    assert watched.state(hot) == "firing"
    entry = "SELECT count(*) FROM log_entries WHERE org_id = :org AND kind = 'alert.firing'"
    assert watched.sql(entry, org=watched.org).scalar() == 1
    assert watched.state(rule) == "ok"


def test_a_devices_wrong_clock_hides_no_match(watched: Watched) -> None:
    rule = watched.bare_rule("log_match", query={"q": "valve"})
    entries(watched, 1)
    watched.sql("UPDATE log_entries SET time = now() - interval '6 days' WHERE org_id = :org", org=watched.org)
    assert watched.after(1).state(rule) == "firing"


@pytest.fixture
def fleet(api: Any, org: UUID) -> Fleet:
    return Fleet(api, org, 2)


@pytest.fixture
def seen(fleet: Fleet) -> Watched:
    return Watched(fleet.api, fleet.org, 0)


def failed(fleet: Fleet, on_failure: str) -> Any:
    deployment = fleet.deploy(strategy={"on_failure": on_failure, "retries": 0, "max_in_flight": 1})
    fleet.answer(fleet.step(deployment), "DRIVER_ERROR")
    fleet.step(deployment)
    return fleet.read(deployment)


@pytest.mark.parametrize(("on_failure", "status"), [("abort", "failed"), ("pause", "paused")])
def test_a_failed_deployment_fires(fleet: Fleet, seen: Watched, on_failure: str, status: str) -> None:
    rule = seen.bare_rule("deployment_failed")
    tick()
    deployment = failed(fleet, on_failure)
    assert deployment["status"] == status
    tick()
    (alert,) = seen.alerts(rule)
    assert (alert.state, str(alert.deployment_id), alert.device_id) == ("firing", deployment["id"], None)


def test_what_somebody_paused_has_not_failed(fleet: Fleet, seen: Watched) -> None:
    rule = seen.bare_rule("deployment_failed")
    deployment = fleet.deploy()
    fleet.act(deployment, "pause")
    tick()
    assert seen.alerts(rule) == []


def test_accepted_failures_end_it(fleet: Fleet, seen: Watched) -> None:
    rule = seen.bare_rule("deployment_failed")
    deployment = failed(fleet, "pause")
    tick()
    assert seen.state(rule) == "firing"
    fleet.act(deployment, "start", {"acknowledge_failures": True})
    tick()
    assert seen.state(rule) == "ok"
    fleet.act(deployment, "pause")
    tick()
    assert seen.state(rule) == "ok"


def test_a_later_success_of_the_flow_ends_it(fleet: Fleet, seen: Watched) -> None:
    rule = seen.bare_rule("deployment_failed")
    failed(fleet, "abort")
    tick()
    assert seen.state(rule) == "firing"
    fleet.publish()
    assert fleet.finish(fleet.deploy())["status"] == "succeeded"
    tick()
    assert seen.state(rule) == "ok"
    assert seen.events(rule)[-1].data["reason"] == "a later deployment of the flow succeeded"


def test_a_rollback_ends_it(fleet: Fleet, seen: Watched) -> None:
    rule = seen.bare_rule("deployment_failed")
    deployment = failed(fleet, "abort")
    tick()
    fleet.act(deployment, "rollback")
    tick()
    assert seen.state(rule) == "ok"


def test_failures_from_before_the_rule_are_no_news(fleet: Fleet, seen: Watched) -> None:
    failed(fleet, "abort")
    rule = seen.bare_rule("deployment_failed")
    tick()
    assert seen.alerts(rule) == []
