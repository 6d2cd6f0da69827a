"""Rules through the API: validation by type, changes, silence, acknowledgement, history."""

from typing import Any
from uuid import UUID, uuid4

import pytest

from tests import make
from tests.alerts.watched import RULE, Watched, tick


@pytest.fixture
def watched(api: Any, org: UUID) -> Watched:
    return Watched(api, org)


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"threshold": None}, "threshold"),
        ({"metric": None}, "metric"),
        ({"condition": "near"}, "condition"),
        ({"clear_threshold": 81}, "clear_threshold"),
        ({"condition": "eq", "clear_threshold": 79}, "clear_threshold"),
        ({"query": {"q": "x"}}, "query"),
        ({"type": "device_offline"}, "metric"),
        ({"type": "log_match", "metric": None, "condition": None}, "query"),
        ({"type": "deployment_failed", "no_data": "ok"}, "no_data"),
        ({"target": {"all": True, "tags": ["a"]}}, "target._schema"),
        ({"target": {"device_ids": [str(uuid4())]}}, "target.device_ids"),
        ({"for_seconds": -1}, "for_seconds"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_what_cannot_be_a_rule(api: Any, fields: dict[str, Any], field: str) -> None:
    answer = api.post("/alerts", {**RULE, **fields}, expect=400)
    assert field in answer["details"], answer


def test_another_tenants_device_is_as_unknown_as_any(watched: Watched) -> None:
    foreign = make.device(make.organization())[0]
    answers = [watched.rule(target={"device_ids": [str(one)]}, expect=400) for one in (foreign.id, uuid4())]
    assert answers[0]["details"] == answers[1]["details"]


def test_a_change_is_checked_as_a_whole(watched: Watched) -> None:
    rule = watched.rule(clear_threshold=75)
    path = f"/alerts/{rule['id']}"
    assert "clear_threshold" in watched.api.put(path, {"threshold": 70}, expect=400)["details"]
    changed = watched.api.put(path, {"type": "device_offline", "for_seconds": 30}, expect=200)
    assert (changed["metric"], changed["threshold"], changed["clear_threshold"]) == (None, None, None)
    assert watched.read(rule) == changed


def firing(watched: Watched, **fields: Any) -> Any:
    rule = watched.rule(**fields)
    watched.send(99)
    tick()
    assert watched.state(rule) == "firing"
    return rule


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"enabled": False}, "rule disabled"),
        ({"metric": "pressure"}, "rule changed"),
        ({"type": "log_match", "query": {"q": "x"}}, "rule changed"),
    ],
)
def test_a_change_ends_at_once_what_does_not_apply(watched: Watched, change: dict[str, Any], reason: str) -> None:
    rule = firing(watched)
    assert watched.api.put(f"/alerts/{rule['id']}", change, expect=200)["state"] == "ok"
    assert watched.events(rule)[-1].data["reason"] == reason
    tick()
    assert watched.state(rule) == "ok"


def test_another_threshold_is_judged_by_the_next_evaluation(watched: Watched) -> None:
    rule = firing(watched)
    watched.api.put(f"/alerts/{rule['id']}", {"threshold": 99}, expect=200)
    tick()
    assert watched.state(rule) == "ok"


def test_a_disabled_rule_is_not_evaluated(watched: Watched) -> None:
    rule = watched.rule(enabled=False)
    watched.send(99)
    tick()
    assert watched.state(rule) == "ok"


def test_acknowledging_keeps_it_firing(watched: Watched) -> None:
    rule = firing(watched)
    path = f"/alerts/{rule['id']}/acknowledge"
    answer = watched.api.post(path, {"comment": "on my way"}, expect=200)
    assert (answer["state"], answer["alerts"]["acknowledged"]) == ("firing", 1)
    tick()
    (alert,) = watched.alerts(rule)
    assert (alert.state, alert.comment) == ("firing", "on my way")
    assert alert.acknowledged_by
    assert watched.kinds(rule) == ["firing", "acknowledged"]
    watched.send(20)
    tick()
    watched.send(99)
    tick()
    assert [alert.acknowledged_at is None for alert in watched.alerts(rule)] == [False, True]


def test_nothing_to_acknowledge_is_a_conflict(watched: Watched) -> None:
    rule = watched.rule(for_seconds=60)
    watched.send(99)
    tick()
    answer = watched.api.post(f"/alerts/{rule['id']}/acknowledge", expect=409)
    assert (answer["code"], answer["current_state"]) == ("INVALID_STATE", "pending")


def test_silence_is_a_change_and_can_be_lifted(watched: Watched) -> None:
    rule = firing(watched)
    path = f"/alerts/{rule['id']}"
    until = "2099-01-01T00:00:00Z"
    assert watched.api.put(path, {"silenced_until": until}, expect=200)["silenced_until"] == until
    assert watched.state(rule) == "firing"
    assert watched.api.put(path, {"silenced_until": None}, expect=200)["silenced_until"] is None


def test_lists(watched: Watched) -> None:
    hot, calm = firing(watched), watched.rule(name="calm", threshold=1000, severity="info")
    listed = {state: watched.api.get(f"/alerts?state={state}", expect=200) for state in ("firing", "pending", "ok")}
    assert {state: [one["id"] for one in page["items"]] for state, page in listed.items()} == {
        "firing": [hot["id"]], "pending": [], "ok": [calm["id"]],
    }  # fmt: skip
    assert watched.api.get("/alerts?severity=info", expect=200)["total"] == 1
    (instance,) = watched.api.get(f"/alerts/{hot['id']}/instances?state=firing", expect=200)["items"]
    assert (instance["value"], instance["device_name"]) == (99, "device-0")
    kinds = [one["kind"] for one in watched.api.get(f"/alerts/{hot['id']}/events", expect=200)["items"]]
    assert kinds == ["firing", "created"]


def test_deleting_a_rule_takes_its_alerts_along(watched: Watched) -> None:
    rule = firing(watched)
    watched.api.delete(f"/alerts/{rule['id']}", expect=204)
    watched.api.get(f"/alerts/{rule['id']}", expect=404)
    assert watched.alerts(rule) == []


def test_viewers_read_and_change_nothing(watched: Watched, app: Any) -> None:
    rule = firing(watched)
    viewer = make.client(app, watched.org, "viewer")
    viewer.get(f"/alerts/{rule['id']}", expect=200)
    viewer.put(f"/alerts/{rule['id']}", {"enabled": False}, expect=403)
    viewer.post(f"/alerts/{rule['id']}/acknowledge", expect=403)
    viewer.post("/alerts", RULE, expect=403)
    assert watched.api.get("/alerts", expect=200)["total"] == 1
    now = watched.api.get(f"/alerts/{rule['id']}", expect=200)
    assert (now["enabled"], watched.state(rule)) == (True, "firing")
    assert [one["kind"] for one in watched.api.get(f"/alerts/{rule['id']}/events", expect=200)["items"]] == [
        "firing", "created",
    ]  # fmt: skip
