"""Rolling back: each device to its own previous version, and nothing that a newer deployment has since changed."""

from typing import Any
from uuid import UUID

from app import db
from app.deployments import engine
from tests.deployments.fleet import Fleet


def only(*devices: Any) -> dict[str, Any]:
    return {"device_ids": [str(device.id) for device in devices]}


def test_each_device_returns_to_its_own_previous_version(api: Any, org: UUID) -> None:
    fleet = Fleet(api, org, 3)
    one, two, three = fleet.devices
    fleet.finish(fleet.deploy(target=only(one)))
    fleet.publish()
    fleet.finish(fleet.deploy(target=only(two)))
    fleet.publish()
    made = fleet.deploy()
    assert fleet.finish(made)["status"] == "succeeded"
    assert [row.previous_version for row in fleet.executions(made)] == [1, 2, None]
    started = fleet.act(made, "rollback")
    assert (started["status"], started["rollback_progress"]["queued"]) == ("rolling_back", 3)
    batches = fleet.batches(made)
    sent = {batch.commands[0].device_id: (batch.action, batch.common.get("version")) for batch in batches}
    assert sent == {one.id: ("deploy_flow", 1), two.id: ("deploy_flow", 2), three.id: ("remove_flow", None)}
    for batch in batches:
        fleet.answer(batch.commands)
    fleet.step(made)
    done = fleet.read(made)
    assert (done["status"], done["reason"]) == ("rolled_back", "rolled back: 3 devices")
    assert done["progress"]["succeeded"] == 3
    assert [fleet.installed(device) for device in fleet.devices] == [[1, 3, 1], [2, 3, 2], [3, None]]
    assert fleet.act(made, "rollback")["status"] == "rolled_back"


def test_the_previous_version_is_that_of_the_moment_of_installing(api: Any, org: UUID) -> None:
    fleet = Fleet(api, org, 1)
    commands = fleet.step(fleet.deploy())
    fleet.publish()
    waiting = fleet.deploy()
    assert fleet.executions(waiting)[0].previous_version is None
    fleet.answer(commands)
    fleet.finish(waiting)
    assert fleet.executions(waiting)[0].previous_version == 1


def test_in_the_middle_queued_ones_are_canceled_and_running_ones_superseded(api: Any, org: UUID) -> None:
    fleet = Fleet(api, org, 4)
    made = fleet.deploy(strategy={"max_in_flight": 2})
    first, second = fleet.step(made)
    fleet.answer([first])
    (third,) = fleet.step(made)
    rolling = fleet.act(made, "rollback")
    assert sorted(fleet.states(made)) == ["canceled", "succeeded", "superseded", "superseded"]
    assert (rolling["rollback_progress"]["total"], rolling["stages"][0]["status"]) == (3, "skipped")
    undo = fleet.step(made)
    assert [command.device_id for command in undo] == [first.device_id], "the others have a command in flight"
    assert fleet.answer([second]) == {UUID(made["id"])}
    assert sorted(fleet.states(made)) == ["canceled", "succeeded", "superseded", "superseded"]
    assert fleet.installed(next(one for one in fleet.devices if one.id == second.device_id)) == []
    undo += fleet.step(made)
    assert {command.device_id for command in undo} == {first.device_id, second.device_id}
    fleet.answer(undo)
    assert fleet.step(made) == []
    fleet.sql("UPDATE executions SET redeliver_at = now() WHERE state = 'superseded'")
    (last,) = fleet.step(made)
    assert last.device_id == third.device_id
    fleet.answer([last])
    fleet.step(made)
    assert fleet.read(made)["status"] == "rolled_back"


def test_devices_that_never_got_anything_are_left_alone(api: Any, org: UUID) -> None:
    fleet = Fleet(api, org, 3)
    fleet.disconnect(fleet.devices[0])
    made = fleet.deploy(strategy={"failure_threshold": 100})
    sent = {command.device_id: command for command in fleet.step(made)}
    fleet.answer([sent[fleet.devices[1].id]], "NOT_SUPPORTED_BY_DEVICE")
    fleet.answer([sent[fleet.devices[2].id]], "UNSUPPORTED_NODE_TYPE")
    fleet.act(made, "pause")
    rolled = fleet.act(made, "rollback")
    assert (rolled["status"], rolled["reason"]) == ("rolled_back", "rolled back: there was nothing to undo")
    assert fleet.states(made) == ["canceled", "failed", "rejected"]
    assert fleet.states(made, "rollback") == []


def test_a_newer_deployments_devices_are_skipped(api: Any, org: UUID) -> None:
    fleet = Fleet(api, org, 2)
    one, two = fleet.devices
    old = fleet.deploy()
    fleet.finish(old)
    fleet.publish()
    fleet.finish(fleet.deploy(target=only(one)))
    fleet.act(old, "rollback")
    assert fleet.states(old, "rollback") == ["superseded", "queued"]
    assert fleet.finish(old)["status"] == "rolled_back"
    assert [fleet.installed(device) for device in (one, two)] == [[1, 2], [1, None]]


def test_a_newer_deployment_that_is_just_installing_wins_too(api: Any, org: UUID) -> None:
    fleet = Fleet(api, org, 1)
    old = fleet.deploy()
    fleet.finish(old)
    fleet.publish()
    newer = fleet.deploy()
    commands = fleet.step(newer)
    fleet.act(old, "rollback")
    assert fleet.step(old) == []
    fleet.answer(commands)
    assert fleet.step(old) == []
    assert (fleet.read(old)["status"], fleet.states(old, "rollback")) == ("rolled_back", ["superseded"])
    assert fleet.installed(fleet.devices[0]) == [1, 2]


def test_one_after_the_other_can_be_rolled_back(api: Any, org: UUID) -> None:
    fleet = Fleet(api, org, 1)
    first = fleet.deploy()
    fleet.finish(first)
    fleet.publish()
    second = fleet.deploy()
    fleet.finish(second)
    for made in (second, first):
        fleet.act(made, "rollback")
        assert fleet.finish(made)["status"] == "rolled_back"
    assert fleet.installed(fleet.devices[0]) == [1, 2, 1, None]


def test_a_device_that_fails_to_return_fails_the_rollback(api: Any, org: UUID) -> None:
    fleet = Fleet(api, org, 2)
    made = fleet.deploy(strategy={"retries": 0})
    fleet.finish(made)
    fleet.act(made, "rollback")
    first, second = fleet.step(made)
    fleet.answer([first], "START_FAILED", error="disk full")
    fleet.answer([second])
    fleet.step(made)
    done = fleet.read(made)
    assert done["status"] == "rollback_failed"
    assert done["reason"].endswith(": disk full")
    assert fleet.act(made, "rollback", expect=409)["current_state"] == "rollback_failed"


def test_a_failed_deployment_is_rolled_back_where_it_was_started(api: Any, org: UUID) -> None:
    fleet = Fleet(api, org, 1)
    made = fleet.deploy(strategy={"retries": 0})
    fleet.answer(fleet.step(made), "START_FAILED")
    fleet.step(made)
    assert fleet.read(made)["status"] == "failed"
    fleet.act(made, "rollback")
    (batch,) = fleet.batches(made)
    assert (batch.action, batch.common) == ("remove_flow", {"flow_id": fleet.flow_id})


def test_a_device_deleted_while_rolling_back(api: Any, org: UUID) -> None:
    fleet = Fleet(api, org, 2)
    made = fleet.deploy()
    fleet.finish(made)
    fleet.act(made, "rollback")
    api.delete(f"/devices/{fleet.devices[0].id}", expect=204)
    with db.transaction(org):
        assert engine.device_removed(org) == {UUID(made["id"])}
    assert fleet.finish(made)["reason"] == "rolled back: 1 device"
