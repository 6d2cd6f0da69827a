"""Deployments over the API: what is accepted, what is answered, which action is possible when."""

from typing import Any
from uuid import UUID, uuid4

import pytest

from tests import make
from tests.deployments.fleet import Fleet


def test_a_deployment_is_created_with_its_defaults(api: Any, org: UUID) -> None:
    fleet = Fleet(api, org, 2)
    made = fleet.deploy(start=False)
    assert (made["name"], made["status"], made["version"]) == ("Watch v1", "created", 1)
    assert (made["reason"], made["allowed_actions"]) == ("created: not started", ["start", "cancel"])
    assert made["strategy"] == {
        "stages": [100], "success_threshold": 100, "soak_seconds": 0, "max_per_minute": None, "exponential_rate": None,
        "maintenance_windows": [], "health": None, "max_in_flight": 50, "timeout_seconds": 300,
        "retries": 2, "retry_backoff_seconds": 60,
        "failure_threshold": 10, "min_executed": 1, "on_failure": "pause",
    }  # fmt: skip
    assert made["target"] == {"all": True}
    assert [(stage["percent"], stage["size"], stage["status"]) for stage in made["stages"]] == [(100, 2, "pending")]
    assert (made["progress"]["total"], made["rollback_progress"]) == (0, None)
    assert fleet.read(made) == made


def test_targets(api: Any, org: UUID) -> None:
    fleet = Fleet(api, org, 2)
    make.devices(2, org, tags=["pump", "north"])
    make.device(org, tags=["valve"])
    make.device(org, tags=["pump"], disabled_at="2026-01-01T00:00:00Z")

    def size(target: Any) -> int:
        number: int = fleet.deploy(target=target)["progress"]["total"]
        return number

    assert size({"all": True}) == 5
    assert size({"tags": ["pump"]}) == 2
    assert size({"tags": ["pump", "valve"]}) == 3
    assert size({"device_ids": [str(fleet.devices[0].id)] * 2}) == 1


@pytest.mark.parametrize(
    ("target", "field"),
    [
        ({}, "target._schema"),
        ({"all": True, "tags": ["a"]}, "target._schema"),
        ({"all": False}, "target.all"),
        ({"tags": []}, "target.tags"),
        ({"tags": ["nowhere"]}, "target"),
        ({"groups": ["a"]}, "target.groups"),
        ({"device_ids": ["x"]}, "target.device_ids.0"),
    ],
)
def test_impossible_targets(api: Any, org: UUID, target: Any, field: str) -> None:
    details = Fleet(api, org, 1).deploy(target=target, expect=400)["details"]
    assert field in details


def test_unknown_devices_are_named(api: Any, org: UUID) -> None:
    fleet = Fleet(api, org, 1)
    other, _key = make.device(make.organization())
    for unknown in (uuid4(), other.id):
        wanted = [str(fleet.devices[0].id), str(unknown)]
        details = fleet.deploy(target={"device_ids": wanted}, expect=400)["details"]
        assert details == {"target.device_ids": [f"There is no such device: {unknown}."]}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("max_in_flight", 0), ("max_in_flight", 10_001), ("timeout_seconds", 4), ("retries", 11), ("retries", "2"),
        ("failure_threshold", 101), ("min_executed", 0), ("on_failure", "panic"), ("stages", [5, 50]),
        ("stages", [5, 5, 100]), ("success_threshold", 0), ("soak_seconds", -1), ("max_per_minute", 0),
    ],
)  # fmt: skip
def test_impossible_strategies(api: Any, org: UUID, field: str, value: Any) -> None:
    assert list(Fleet(api, org, 1).deploy(strategy={field: value}, expect=400)["details"]) == [f"strategy.{field}"]


def test_flow_and_version_must_be_there(api: Any, org: UUID) -> None:
    fleet = Fleet(api, org, 1)
    body = {"flow_id": fleet.flow_id, "target": {"all": True}}
    assert api.post("/deployments", body, expect=409)["error"] == "the flow has not been published"
    fleet.publish()
    fleet.publish()
    assert api.post("/deployments", {**body, "version": 1}, expect=201)["version"] == 1
    assert api.post("/deployments", body, expect=201)["version"] == 2
    assert "version" in api.post("/deployments", {**body, "version": 3}, expect=400)["details"]
    assert api.post("/deployments", {**body, "flow_id": str(uuid4())}, expect=404)["error"] == "flow not found"


def test_members_freeze_at_start_and_the_version_at_creation(api: Any, org: UUID) -> None:
    fleet = Fleet(api, org, 2)
    made = fleet.deploy(start=False)
    fleet.publish()
    late, _key = make.device(org, name="late")
    started = fleet.act(made, "start")
    make.device(org, name="too late")
    assert (started["progress"]["total"], started["stages"][0]["size"], started["version"]) == (3, 3, 1)
    assert started["stages"][0]["status"] == "running"
    assert started["started_at"]
    assert fleet.act(made, "start")["progress"]["total"] == 3
    items = api.get(f"/deployments/{made['id']}/executions?device_id={late.id}", expect=200)["items"]
    assert [(item["device_name"], item["state"], item["attempt"]) for item in items] == [("late", "queued", 0)]


def test_starting_with_no_device_left(api: Any, org: UUID) -> None:
    fleet = Fleet(api, org, 1)
    made = fleet.deploy(start=False)
    fleet.sql("DELETE FROM devices")
    assert "no device" in fleet.act(made, "start", expect=409)["error"]
    assert fleet.read(made)["status"] == "created"


def test_each_action_in_its_state(api: Any, org: UUID) -> None:
    fleet = Fleet(api, org, 1)
    made = fleet.deploy(start=False)
    for action in ("pause", "rollback"):
        error = fleet.act(made, action, expect=409)
        assert (error["code"], error["current_state"]) == ("INVALID_STATE", "created")
        assert error["allowed_actions"] == ["start", "cancel"]
    assert fleet.act(made, "start")["status"] == "in_progress"
    assert fleet.act(made, "pause")["status"] == "paused"
    paused = fleet.act(made, "pause")
    assert (paused["status"], paused["reason"]) == ("paused", "paused: 0 of 1 finished, 0 still in progress")
    assert fleet.step(made) == []
    assert fleet.act(made, "start")["status"] == "in_progress"
    canceled = fleet.act(made, "cancel")
    assert (canceled["status"], canceled["progress"]["canceled"]) == ("canceled", 1)
    assert canceled["stages"][0]["status"] == "skipped"
    assert canceled["finished_at"]
    assert fleet.act(made, "cancel")["status"] == "canceled"
    for action in ("start", "pause", "rollback"):
        assert fleet.act(made, action, expect=409)["allowed_actions"] == []


def test_a_deployment_that_was_never_started_is_canceled(api: Any, org: UUID) -> None:
    fleet = Fleet(api, org, 1)
    assert fleet.act(fleet.deploy(start=False), "cancel")["reason"] == "canceled: it had not been started"


def test_lists(api: Any, org: UUID) -> None:
    fleet, other = Fleet(api, org, 1), Fleet(api, org)
    first, second = fleet.deploy(name="first"), fleet.deploy(start=False, name="second")
    other.deploy(name="third")

    def names(query: str) -> list[str]:
        return [item["name"] for item in api.get(f"/deployments?{query}", expect=200)["items"]]

    assert names("") == ["third", "second", "first"]
    assert names("status=created") == ["second"]
    assert names(f"flow_id={fleet.flow_id}&sort=name") == ["first", "second"]
    item = api.get("/deployments?sort=created_at&limit=1", expect=200)["items"][0]
    assert (item["id"], item["progress"]["queued"]) == (first["id"], 1)
    api.get("/deployments?status=nonsense", expect=400)
    assert api.get(f"/deployments/{second['id']}/executions", expect=200)["total"] == 0


def test_roles_and_other_tenants(app: Any, api: Any, org: UUID) -> None:
    fleet = Fleet(api, org, 1)
    made = fleet.deploy()
    viewer = make.client(app, org, "viewer")
    viewer.get(f"/deployments/{made['id']}/executions", expect=200)
    viewer.post(f"/deployments/{made['id']}/pause", expect=403)
    stranger = make.client(app, make.organization())
    path = f"/deployments/{made['id']}"
    stranger.get(path, expect=404)
    stranger.get(f"{path}/executions", expect=404)
    for action in ("start", "pause", "rollback", "cancel"):
        assert stranger.post(f"{path}/{action}", expect=404)["error"] == "deployment not found"
    body = {"flow_id": fleet.flow_id, "target": {"all": True}}
    assert stranger.post("/deployments", body, expect=404)["error"] == "flow not found"
    assert stranger.get("/deployments", expect=200)["total"] == 0
