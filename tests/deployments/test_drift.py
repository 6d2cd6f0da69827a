"""Devices that run something else than what was deployed: seen once, told once, put right."""

from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text

from app import db
from tests import make
from tests.deployments.fleet import Fleet
from tests.deployments.reports import Agent, hash_of
from tests.statements import counted

OTHER = "0" * 64


@pytest.fixture
def fleet(api: Any, org: UUID) -> Fleet:
    """Two devices that run version 1."""
    made = Fleet(api, org, 2)
    made.finish(made.deploy())
    return made


def notes(fleet: Fleet) -> list[tuple[str, str]]:
    items = fleet.api.get("/logs?limit=500", expect=200)["items"]
    return [(one["kind"], one["message"]) for one in reversed(items) if str(one["kind"]).startswith("drift.")]


def names(fleet: Fleet, drift: str) -> list[str]:
    items = fleet.api.get(f"/devices?drift={drift}&sort=name", expect=200)["items"]
    return [item["name"] for item in items]


def test_a_changed_flow_drifts_until_it_is_as_it_was(fleet: Fleet) -> None:
    agent = Agent(fleet)
    agent.runs(1)
    assert (agent.drift(), names(fleet, "true")) == ([], [])
    agent.runs(1, hash=OTHER)
    shadow = fleet.api.get(f"{agent.path}/shadow", expect=200)
    (drift,) = agent.drift()
    since = datetime.fromisoformat(drift.pop("since"))
    assert since == datetime.fromisoformat(shadow["metadata"]["reported"][f"flows.{fleet.flow_id}.hash"])
    assert drift == {
        "flow_id": fleet.flow_id, "flow_name": "Watch", "deployed_version": 1, "deployed_hash": hash_of(fleet, 1),
        "running_hash": OTHER, "running_status": "running",
    }  # fmt: skip
    assert (names(fleet, "true"), names(fleet, "false")) == (["device-0"], ["device-1"])
    assert fleet.api.get("/metrics", expect=200)["devices_drifting"] == 1
    agent.runs(1, hash="1" * 64, errors=3)
    assert datetime.fromisoformat(agent.drift()[0]["since"]) == since, "it began when it began"
    agent.runs(1)
    assert (agent.drift(), names(fleet, "true")) == ([], [])
    assert notes(fleet) == [
        ("drift.began", "flow Watch differs from what was deployed: it was changed"),
        ("drift.ended", "flow Watch is again as it was deployed"),
    ]


def test_a_flow_that_is_gone_or_stopped_drifts(fleet: Fleet) -> None:
    first, second = Agent(fleet, 0), Agent(fleet, 1)
    first.runs(1)
    first.lost()
    (gone,) = first.drift()
    assert (gone["running_hash"], gone["running_status"]) == (None, None)
    first.report(flows={str(uuid4()): {"hash": OTHER, "status": "running"}})
    assert len(first.drift()) == 1, "a report of another flow changes nothing"
    second.runs(1, status="stopped")
    assert second.drift()[0]["running_status"] == "stopped"
    assert [words for _kind, words in notes(fleet)] == [
        "flow Watch differs from what was deployed: it is not there any more",
        "flow Watch differs from what was deployed: it was stopped",
    ]


def test_a_flow_that_is_not_reported_yet_is_not_missed_at_once(fleet: Fleet) -> None:
    agent = Agent(fleet)
    agent.report(flows={str(uuid4()): {"hash": OTHER, "status": "running"}})
    assert agent.drift() == []
    fleet.sql("UPDATE installations SET installed_at = installed_at - interval '61 seconds'")
    agent.report(flows={str(uuid4()): {"hash": OTHER, "status": "running"}})
    assert len(agent.drift()) == 1


def test_reports_around_an_installation_are_no_drift(fleet: Fleet) -> None:
    agent = Agent(fleet)
    agent.runs(1)
    fleet.publish()
    made = fleet.deploy()
    commands = fleet.step(made)
    agent.runs(2)
    assert agent.drift() == [], "it tells of the new one before its answer is recorded"
    fleet.answer(commands)
    assert agent.drift() == []
    fleet.publish()
    fleet.finish(fleet.deploy())
    assert agent.drift() == [], "it has not told of the newest one yet"
    assert notes(fleet) == []


@pytest.mark.parametrize("flows", ["odd", None, 7, ["x"], {"x": "y"}])
def test_strange_reports_are_no_drift(fleet: Fleet, flows: Any) -> None:
    agent = Agent(fleet)
    agent.report(flows=flows)
    agent.report(flows={fleet.flow_id: "odd"})
    agent.report(flows={fleet.flow_id: {"status": "running"}})
    assert agent.drift() == []


def test_a_removed_or_deleted_flow_drifts_no_more(fleet: Fleet) -> None:
    first, second = Agent(fleet, 0), Agent(fleet, 1)
    for agent in (first, second):
        agent.runs(1, hash=OTHER)
    made = fleet.api.get("/deployments", expect=200)["items"][0]
    fleet.act(made, "rollback")
    one, another = fleet.step(made)
    fleet.answer([one])
    assert len(first.drift()) + len(second.drift()) == 1
    fleet.answer([another])
    fleet.finish(made)
    other = Fleet(fleet.api, fleet.org)
    other.finish(other.deploy())
    first.runs(1, other.flow_id, hash=OTHER)
    assert names(fleet, "true") == ["device-0"]
    fleet.api.delete(f"/flows/{other.flow_id}", expect=204)
    assert names(fleet, "true") == []


def test_a_device_that_reports_no_flows_costs_nothing(fleet: Fleet) -> None:
    agent = Agent(fleet)
    with counted() as asked:
        agent.report(temperature=20)
        fleet.finish(fleet.deploy())
        assert not any("held AS" in one for one in asked)
        agent.runs(1)
        assert sum("held AS" in one for one in asked) == 1


def test_restoring_sends_it_again_although_it_is_installed(fleet: Fleet) -> None:
    agent = Agent(fleet)
    agent.runs(1, hash=OTHER)
    path = f"{agent.path}/flows/{fleet.flow_id}/restore"
    used = quota(fleet)
    made = fleet.api.post(path, expect=202)
    assert quota(fleet) == used + 1
    assert (made["version"], made["force"], made["target"]) == (1, True, {"device_ids": [str(agent.device.id)]})
    assert (made["name"], made["status"]) == ("Watch v1 restored on device-0", "in_progress")
    (batch,) = fleet.batches(made)
    assert (batch.action, batch.common["force"], batch.common["content_hash"]) == (
        "deploy_flow", True, hash_of(fleet, 1),
    )  # fmt: skip
    assert len(agent.drift()) == 1
    fleet.answer(batch.commands, data={"status": "already_installed"})
    assert agent.drift() == []
    fleet.step(made)
    assert fleet.read(made)["status"] == "succeeded"
    agent.runs(1)
    assert (agent.drift(), len(notes(fleet))) == ([], 2)
    assert fleet.api.post(path, expect=409)["code"] == "INVALID_STATE"


def quota(fleet: Fleet) -> int:
    body = {"flow_id": fleet.flow_id, "target": {"all": True}}
    used: int = fleet.api.post("/deployments?dry_run=true", body, expect=200)["quota"]["used"]
    return used


def test_an_offline_device_is_restored_when_it_connects(fleet: Fleet) -> None:
    agent = Agent(fleet)
    agent.runs(1, hash=OTHER)
    fleet.disconnect(agent.device)
    made = fleet.api.post(f"{agent.path}/flows/{fleet.flow_id}/restore", expect=202)
    assert fleet.step(made) == []
    fleet.connect([agent.device])
    assert len(fleet.step(made)) == 1


@pytest.mark.parametrize("action", ["adopt", "restore"])
def test_what_cannot_be_adopted_or_restored(app: Any, fleet: Fleet, action: str) -> None:
    agent, api = Agent(fleet), fleet.api
    path = f"{agent.path}/flows/{fleet.flow_id}/{action}"
    assert api.post(path, expect=409)["code"] == "INVALID_STATE"
    api.post(f"{agent.path}/flows/{uuid4()}/{action}", expect=404)
    api.post(f"/devices/{uuid4()}/flows/{fleet.flow_id}/{action}", expect=404)
    agent.runs(1, hash=OTHER)
    make.client(app, fleet.org, "viewer").post(path, expect=403)
    make.client(app, make.organization()).post(path, expect=404)
    api.put(agent.path, {"disabled": True}, expect=200)
    assert api.post(path, expect=409)["current_state"] == "disabled"


def test_adopting_needs_the_device_and_a_draft_without_changes(fleet: Fleet) -> None:
    agent, api = Agent(fleet), fleet.api
    path = f"{agent.path}/flows/{fleet.flow_id}/adopt"
    agent.runs(1, hash=OTHER)
    fleet.disconnect(agent.device)
    assert api.post(path, expect=503)["code"] == "DEVICE_OFFLINE"
    definition = {"nodes": [{"id": "mine", "type": "debug"}]}
    api.put(f"/flows/{fleet.flow_id}", {"definition": definition}, expect=200)
    refused = api.post(path, expect=409)
    assert (refused["code"], refused["current_version"]) == ("VERSION_CONFLICT", 1)
    agent.lost()
    gone = api.post(path, {"overwrite": True}, expect=409)
    assert (gone["code"], gone["allowed_actions"]) == ("INVALID_STATE", ["restore"])


def test_drift_of_another_tenant_is_not_counted(fleet: Fleet) -> None:
    Agent(fleet).runs(1, hash=OTHER)
    other = make.client(fleet.api.http.application, make.organization())
    assert other.get("/metrics", expect=200)["devices_drifting"] == 0
    with db.transaction(fleet.org) as session:
        assert session.scalar(text("SELECT count(*) FROM shadows WHERE drift <> '{}'")) == 1
