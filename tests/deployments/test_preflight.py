"""Node types of a version against those of each device, before anything is sent to it."""

from typing import Any
from uuid import UUID

import pytest

from tests.deployments.fleet import Fleet
from tests.deployments.reports import Agent
from tests.devices.helpers import jobs_for

LACKING = ["inject", {"type": "gpio"}]


def publish(fleet: Fleet, *types: str) -> int:
    definition = {"nodes": [{"id": f"n{number}", "type": one} for number, one in enumerate(types)]}
    fleet.api.put(f"/flows/{fleet.flow_id}", {"definition": definition}, expect=200)
    fleet.version += 1
    number: int = fleet.api.post(f"/flows/{fleet.flow_id}/publish", expect=200)["version"]
    return number


def test_a_device_that_lacks_a_type_is_rejected_and_sent_nothing(api: Any, org: UUID) -> None:
    fleet = Fleet(api, org, 3)
    Agent(fleet, 0).report(node_types=LACKING)
    Agent(fleet, 1).report(node_types=["inject", "http", "debug", "mqtt"])
    publish(fleet, "inject", "http", "debug")
    made = fleet.deploy(strategy={"failure_threshold": 100})
    sent = {command.device_id for command in fleet.step(made)}
    assert sent == {fleet.devices[1].id, fleet.devices[2].id}, "the third reports nothing: it is sent to"
    rejected = fleet.executions(made)[0]
    assert (rejected.state, rejected.error_code, rejected.attempt) == ("rejected", "UNSUPPORTED_NODE_TYPE", 0)
    assert rejected.error == "the device lacks node types: debug, http"
    assert (rejected.command_id, rejected.sent_at, rejected.lease_until) == (None, None, None)
    assert rejected.finished_at is not None
    assert jobs_for("rollouts.advance", org, made["id"])


@pytest.mark.parametrize(
    ("reported", "state"),
    [
        (["debug"], "in_progress"), ([{"type": "debug", "category": "common"}], "in_progress"),
        (["odd", {"type": "debug"}], "in_progress"), ([{"name": "debug"}, 7, None, ["debug"]], "rejected"),
        ([], "rejected"), ("debug", "in_progress"), ({"debug": True}, "in_progress"),
    ],
)  # fmt: skip
def test_how_types_are_reported(api: Any, org: UUID, reported: Any, state: str) -> None:
    fleet = Fleet(api, org, 1)
    Agent(fleet).report(node_types=reported)
    made = fleet.deploy()
    fleet.step(made)
    assert fleet.states(made) == [state]


def test_rejected_devices_count_as_failures(api: Any, org: UUID) -> None:
    fleet = Fleet(api, org, 4)
    for number in range(4):
        Agent(fleet, number).report(node_types=LACKING)
    made = fleet.deploy(strategy={"max_in_flight": 2})
    assert fleet.step(made) == []
    assert fleet.step(made) == []
    paused = fleet.read(made)
    assert (paused["status"], paused["progress"]["rejected"], paused["progress"]["queued"]) == ("paused", 2, 2)
    assert paused["reason"] == "paused: 2 of 2 finished devices failed (100 % > 10 %)"


def test_many_missing_types_are_told_in_short(api: Any, org: UUID) -> None:
    fleet = Fleet(api, org, 1)
    Agent(fleet).report(node_types=[])
    publish(fleet, *(f"t{number:02}" for number in range(25)))
    made = fleet.deploy()
    fleet.step(made)
    error = fleet.executions(made)[0].error or ""
    assert error.startswith("the device lacks node types: t00, t01, ")
    assert error.endswith(", t19 and 5 more")


def test_a_rollback_to_what_cannot_run_there_is_rejected_and_a_removal_is_not(api: Any, org: UUID) -> None:
    fleet = Fleet(api, org, 2)
    publish(fleet, "http")
    first = fleet.finish(fleet.deploy(target={"device_ids": [str(fleet.devices[0].id)]}))
    publish(fleet, "inject")
    second = fleet.deploy()
    fleet.finish(second)
    for number in range(2):
        Agent(fleet, number).report(node_types=LACKING)
    fleet.act(second, "rollback")
    (batch,) = fleet.batches(second)
    assert (batch.action, [one.device_id for one in batch.commands]) == ("remove_flow", [fleet.devices[1].id])
    assert fleet.states(second, "rollback") == ["rejected", "in_progress"]
    fleet.answer(batch.commands)
    fleet.step(second)
    done = fleet.read(second)
    assert (first["status"], done["status"]) == ("succeeded", "rollback_failed")
    assert done["reason"].endswith("the device lacks node types: http")
