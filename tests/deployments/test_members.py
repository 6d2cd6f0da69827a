"""Which devices a rollout is about: newer deployments, dynamic targets, and what becomes of devices meanwhile."""

from typing import Any
from uuid import UUID

from app import db
from app.deployments import engine
from app.devices.models import Device
from tests import make
from tests.deployments.fleet import Fleet, ids


def only(*devices: Any) -> dict[str, Any]:
    return {"device_ids": [str(device.id) for device in devices]}


def test_the_newest_deployment_of_a_flow_has_the_device(api: Any, org: UUID) -> None:
    fleet = Fleet(api, org, 3)
    one, two, three = fleet.devices
    old = fleet.deploy(target=only(one, two, three), strategy={"max_in_flight": 1})
    (running,) = fleet.step(old)
    fleet.publish()
    new = fleet.deploy(target=only(one, two))
    fleet.step(old)
    by_device = {row.device_id: row for row in fleet.executions(old)}
    assert {by_device[device.id].state for device in (one, two)} == {"superseded"}
    assert by_device[one.id].error == "a newer deployment of this flow has taken the device over"
    assert by_device[three.id].state in ("queued", "in_progress")
    sent = {command.device_id for command in fleet.step(new)}
    assert running.device_id not in sent, "the device may still be carrying the older one out"
    assert sent | {running.device_id, three.id} == set(ids(fleet.devices))


def test_an_answer_for_the_older_one_frees_the_device_for_the_newer_one(api: Any, org: UUID) -> None:
    fleet = Fleet(api, org, 1)
    old = fleet.deploy()
    commands = fleet.step(old)
    fleet.publish()
    new = fleet.deploy()
    assert fleet.step(old) == []
    assert fleet.step(new) == []
    assert fleet.answer(commands) == {UUID(old["id"]), UUID(new["id"])}
    assert (fleet.states(old), fleet.installed(fleet.devices[0])) == (["superseded"], [])
    assert fleet.finish(new)["status"] == "succeeded"
    done = fleet.read(old)
    assert (done["status"], done["reason"]) == (
        "canceled", "canceled: newer deployments have taken over all of its devices",
    )  # fmt: skip


def test_a_partly_superseded_one_ends_with_the_rest(api: Any, org: UUID) -> None:
    fleet = Fleet(api, org, 2)
    fleet.disconnect(fleet.devices[1])
    old = fleet.deploy()
    fleet.answer(fleet.step(old))
    fleet.publish()
    fleet.deploy(target=only(fleet.devices[1]))
    fleet.step(old)
    done = fleet.read(old)
    assert (done["status"], done["reason"]) == ("succeeded", "succeeded: 1 of 2 devices, 1 left to newer deployments")


def test_a_paused_one_loses_its_devices_too(api: Any, org: UUID) -> None:
    fleet = Fleet(api, org, 1)
    old = fleet.deploy()
    fleet.act(old, "pause")
    fleet.deploy()
    with db.transaction(system=True):
        assert (org, UUID(old["id"])) in engine.take_due(), "the newer one has it looked at"
    fleet.step(old)
    assert (fleet.read(old)["status"], fleet.states(old)) == ("canceled", ["superseded"])


def test_a_newer_one_that_was_canceled_takes_nothing(api: Any, org: UUID) -> None:
    fleet = Fleet(api, org, 1)
    old = fleet.deploy()
    fleet.act(fleet.deploy(), "cancel")
    assert len(fleet.step(old)) == 1


def test_a_newer_one_that_has_not_started_takes_nothing(api: Any, org: UUID) -> None:
    fleet = Fleet(api, org, 1)
    old = fleet.deploy()
    newer = fleet.deploy(start=False)
    assert len(fleet.step(old)) == 1
    fleet.act(newer, "start")
    fleet.step(old)
    assert fleet.states(old) == ["superseded"]


def test_deployments_of_different_flows_take_turns(api: Any, org: UUID) -> None:
    fleet, other = Fleet(api, org, 1), Fleet(api, org)
    first, second = fleet.deploy(), other.deploy()
    commands = fleet.step(first)
    assert other.step(second) == []
    assert (fleet.states(first), other.states(second)) == (["in_progress"], ["queued"])
    fleet.answer(commands)
    assert other.finish(second)["status"] == "succeeded"


def test_rolling_back_one_that_was_partly_superseded(api: Any, org: UUID) -> None:
    fleet = Fleet(api, org, 3)
    done, taken, left = fleet.devices
    fleet.finish(fleet.deploy())
    fleet.publish()
    fleet.disconnect(left)
    old = fleet.deploy()
    commands = {command.device_id: command for command in fleet.step(old)}
    fleet.answer([commands[done.id]])
    fleet.publish()
    new = fleet.deploy(target=only(taken, left))
    fleet.step(old)
    fleet.answer([commands[taken.id]])
    fleet.connect([left])
    assert fleet.finish(new)["status"] == "succeeded"
    fleet.act(old, "rollback")
    assert fleet.finish(old)["status"] == "rolled_back"
    assert [fleet.installed(device) for device in fleet.devices] == [[1, 2, 1], [1, 3], [1, 3]]


def test_what_a_canceled_newer_one_left_behind_is_rolled_back(api: Any, org: UUID) -> None:
    fleet = Fleet(api, org, 1)
    fleet.finish(fleet.deploy())
    fleet.publish()
    old = fleet.deploy()
    commands = fleet.step(old)
    fleet.publish()
    new = fleet.deploy()
    assert fleet.act(old, "rollback")["rollback_progress"]["total"] == 1
    fleet.act(new, "cancel")
    fleet.answer(commands)
    assert fleet.finish(old)["status"] == "rolled_back"


def test_a_newer_one_overtakes_a_rollback(api: Any, org: UUID) -> None:
    fleet = Fleet(api, org, 1)
    old = fleet.deploy()
    fleet.finish(old)
    fleet.disconnect(fleet.devices[0])
    fleet.act(old, "rollback")
    fleet.publish()
    new = fleet.deploy()
    fleet.step(old)
    assert (fleet.read(old)["status"], fleet.states(old, "rollback")) == ("rolled_back", ["superseded"])
    fleet.connect()
    fleet.finish(new)
    assert fleet.installed(fleet.devices[0]) == [1, 2]


def test_devices_that_come_to_match_join_a_dynamic_one(api: Any, org: UUID) -> None:
    fleet = Fleet(api, org, 2)
    fleet.sql("UPDATE devices SET tags = '{pump}' WHERE id = :id", id=fleet.devices[0].id)
    made = fleet.deploy(target={"tags": ["pump"], "dynamic": True}, strategy={"stages": [50, 100]})
    running = fleet.finish(made)
    assert (running["status"], running["reason"]) == (
        "in_progress", "running: 1 of 1 done, devices that come to match will join",
    )  # fmt: skip
    fleet.sql("UPDATE devices SET tags = '{pump}' WHERE id = :id", id=fleet.devices[1].id)
    (command,) = fleet.step(made)
    assert command.device_id == fleet.devices[1].id
    fleet.answer([command])
    joined = fleet.read(made)
    assert (joined["progress"]["succeeded"], joined["stages"][1]["size"]) == (2, 1)
    canceled = fleet.act(made, "cancel")
    assert canceled["reason"] == "canceled: 2 of 2 finished"


def test_a_dynamic_one_may_begin_with_no_device(api: Any, org: UUID) -> None:
    fleet = Fleet(api, org)
    made = fleet.deploy(target={"all": True, "dynamic": True})
    assert (made["status"], made["reason"]) == (
        "in_progress", "running: 0 of 0 done, devices that come to match will join",
    )  # fmt: skip
    fleet.devices = [device for device, _key in make.devices(2, org)]
    fleet.connect()
    assert len(fleet.step(made)) == 2


def test_nobody_joins_a_paused_one_nor_one_that_is_not_dynamic(api: Any, org: UUID) -> None:
    fleet = Fleet(api, org, 1)
    plain, dynamic = fleet.deploy(), Fleet(api, org).deploy(target={"all": True, "dynamic": True})
    fleet.act(dynamic, "pause")
    make.device(org)
    fleet.step(plain)
    fleet.step(dynamic)
    assert (len(fleet.states(plain)), len(fleet.states(dynamic))) == (1, 1)
    fleet.act(dynamic, "start")
    assert len(fleet.states(dynamic)) == 2


def test_a_dynamic_one_leaves_alone_what_a_newer_one_has(api: Any, org: UUID) -> None:
    fleet = Fleet(api, org, 1)
    old = fleet.deploy(target={"all": True, "dynamic": True})
    fleet.finish(old)
    fleet.publish()
    late, _key = make.device(org)
    fleet.connect([late])
    fleet.finish(fleet.deploy(target=only(late)))
    assert fleet.step(old) == []
    assert len(fleet.states(old)) == 1


def test_a_dynamic_one_stops_for_failures_although_nothing_is_queued(api: Any, org: UUID) -> None:
    fleet = Fleet(api, org, 1)
    made = fleet.deploy(target={"all": True, "dynamic": True}, strategy={"retries": 0})
    fleet.answer(fleet.step(made), "START_FAILED")
    fleet.step(made)
    assert fleet.read(made)["reason"] == "paused: 1 of 1 finished devices failed (100 % > 10 %)"


def test_named_devices_cannot_be_dynamic(api: Any, org: UUID) -> None:
    fleet = Fleet(api, org, 1)
    target = {**only(fleet.devices[0]), "dynamic": True}
    assert "target.dynamic" in fleet.deploy(target=target, expect=400)["details"]


def test_a_device_that_leaves_the_tag_stays_in_the_rollout(api: Any, org: UUID) -> None:
    fleet = Fleet(api, org, 1)
    fleet.sql("UPDATE devices SET tags = '{pump}'")
    for dynamic in (False, True):
        made = Fleet(api, org).deploy(target={"tags": ["pump"], "dynamic": dynamic})
        api.put(f"/devices/{fleet.devices[0].id}", {"tags": ["valve"]}, expect=200)
        (command,) = fleet.step(made)
        fleet.answer([command])
        fleet.sql("UPDATE devices SET tags = '{pump}'")


def test_a_disabled_device_waits_until_it_is_enabled(api: Any, org: UUID) -> None:
    fleet = Fleet(api, org, 1)
    made = fleet.deploy()
    path = f"/devices/{fleet.devices[0].id}"
    api.put(path, {"disabled": True}, expect=200)
    assert fleet.step(made) == [], "also while its tunnel is still open"
    fleet.disconnect(fleet.devices[0])
    assert fleet.step(made) == []
    assert fleet.read(made)["reason"] == "waiting: 1 of 1 devices offline"
    api.put(path, {"disabled": False}, expect=200)
    fleet.connect()
    assert fleet.finish(made)["status"] == "succeeded"


def test_a_device_that_is_disabled_under_way_ends_its_try_by_time(api: Any, org: UUID) -> None:
    fleet = Fleet(api, org, 1)
    made = fleet.deploy(strategy={"retries": 0})
    fleet.step(made)
    api.put(f"/devices/{fleet.devices[0].id}", {"disabled": True}, expect=200)
    fleet.change(made, lease_until="2020-01-01T00:00:00Z")
    fleet.step(made)
    assert fleet.states(made) == ["timed_out"]


def test_a_device_that_is_provisioned_again_goes_on(app: Any, api: Any, org: UUID) -> None:
    fleet = Fleet(api, org)
    device = api.post("/devices", {"name": "pump"}, expect=201)
    body = {"provisioning_code": device["provisioning_code"], "hardware_info": {"serial": "7"}, "network_info": {}}
    anybody = make.Client(app, {})
    anybody.post("/devices/provision", body, expect=201)
    fleet.devices = [make_row(org, device["id"])]
    fleet.connect()
    made = fleet.deploy()
    (first,) = fleet.step(made)
    fleet.disconnect(*fleet.devices)
    assert anybody.post("/devices/provision", body, expect=201)["device_id"] == device["id"]
    fleet.connect()
    with db.transaction(org):
        assert engine.device_connected(org, UUID(device["id"])) == {UUID(made["id"])}
    (again,) = fleet.step(made)
    assert again.id == first.id, "the same command, which the device knows if it has carried it out"
    fleet.answer([again])
    assert fleet.finish(made)["status"] == "succeeded"


def make_row(org: UUID, device_id: str) -> Any:
    with db.transaction(org) as session:
        return session.get_one(Device, UUID(device_id))


def test_a_device_that_is_deleted_in_a_later_stage_is_counted_no_more(api: Any, org: UUID) -> None:
    fleet = Fleet(api, org, 2)
    made = fleet.deploy(strategy={"stages": [50, 100]})
    first, second = sorted(fleet.executions(made), key=lambda row: row.stage)
    api.delete(f"/devices/{first.device_id}", expect=204)
    (command,) = fleet.step(made)
    assert command.device_id == second.device_id, "a stage that lost all of its devices holds nothing up"
    fleet.answer([command])
    assert fleet.finish(made)["reason"] == "succeeded: 1 of 1 devices"
