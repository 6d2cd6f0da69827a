"""Strategies over rows: stages, gates, rates, windows, times, approval; by ticks, with a clock that rows are set to."""

from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from app import db
from app.clock import now
from app.clock import rfc3339 as iso
from app.deployments import engine
from tests import make
from tests.deployments.fleet import Fleet
from tests.statements import counted

NIGHT = {"from": "22:00", "to": "04:00"}
DAY_NAMES = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


def window(begins_in: int, hours: int = 2) -> dict[str, Any]:
    """A daily one, that begins so many hours from now (UTC)."""
    begin = now() + timedelta(hours=begins_in)
    return {"from": f"{begin:%H:%M}", "to": f"{begin + timedelta(hours=hours):%H:%M}"}


def stages(made: Any) -> list[tuple[int, str]]:
    return [(stage["size"], stage["status"]) for stage in made["stages"]]


def test_stages_follow_each_other(api: Any, org: UUID) -> None:
    fleet = Fleet(api, org, 10)
    made = fleet.deploy(strategy={"stages": [10, 50, 100]})
    assert stages(made) == [(1, "running"), (4, "pending"), (5, "pending")]
    assert made["reason"] == "running: 0 of 10 done, 1 next, 9 in later stages"
    sent = []
    while commands := fleet.step(made):
        sent.append(len(commands))
        assert fleet.step(made) == [], "nothing of the next stage goes before this one has succeeded"
        fleet.answer(commands)
    assert sent == [1, 4, 5]
    done = fleet.read(made)
    assert (done["status"], stages(done)) == ("succeeded", [(1, "succeeded"), (4, "succeeded"), (5, "succeeded")])


def test_a_small_fleet_leaves_stages_empty(api: Any, org: UUID) -> None:
    fleet = Fleet(api, org, 2)
    made = fleet.deploy(strategy={"stages": [1, 10, 50, 100], "soak_seconds": 0})
    assert [size for size, _status in stages(made)] == [1, 0, 0, 1]
    assert fleet.finish(made)["status"] == "succeeded"


def test_a_stage_soaks_before_the_next_one_begins(api: Any, org: UUID) -> None:
    fleet = Fleet(api, org, 2)
    made = fleet.deploy(strategy={"stages": [50, 100], "soak_seconds": 600})
    fleet.answer(fleet.step(made))
    assert fleet.step(made) == []
    soaking = fleet.read(made)
    assert stages(soaking) == [(1, "succeeded"), (1, "pending")]
    assert soaking["reason"].startswith("waiting: stage 2 of 2 begins 20")
    fleet.sql("UPDATE deployment_stages SET finished_at = finished_at - interval '601 seconds' WHERE number = 0")
    assert len(fleet.step(made)) == 1
    assert stages(fleet.read(made)) == [(1, "succeeded"), (1, "running")]


def test_a_stage_that_cannot_succeed_waits_for_somebody(api: Any, org: UUID) -> None:
    fleet = Fleet(api, org, 8)
    made = fleet.deploy(strategy={"stages": [50, 100], "failure_threshold": 100, "retries": 0})
    first, *rest = fleet.step(made)
    fleet.answer([first], "START_FAILED")
    assert fleet.step(made) == []
    paused = fleet.read(made)
    assert (paused["status"], paused["reason"]) == (
        "paused", "paused: stage 1 of 2 cannot reach 100 %: 1 of its 4 devices failed",
    )  # fmt: skip
    assert fleet.act(made, "start", expect=409)["code"] == "INVALID_STATE"
    fleet.answer(rest)
    resumed = fleet.act(made, "start", {"acknowledge_failures": True})
    assert (resumed["status"], resumed["stages"][0]["acknowledged_failures"]) == ("in_progress", 1)
    assert len(fleet.step(made)) == 4
    assert stages(fleet.read(made)) == [(4, "succeeded"), (4, "running")]


def test_a_stage_succeeds_at_its_threshold_although_devices_are_offline(api: Any, org: UUID) -> None:
    fleet = Fleet(api, org, 4)
    made = fleet.deploy(strategy={"stages": [50, 100], "success_threshold": 50, "max_in_flight": 1})
    (first,) = fleet.step(made)
    away = next(row for row in fleet.executions(made) if row.stage == 0 and row.device_id != first.device_id)
    fleet.disconnect(*[device for device in fleet.devices if device.id == away.device_id])
    fleet.answer([first])
    (second,) = fleet.step(made)
    assert next(row.stage for row in fleet.executions(made) if row.device_id == second.device_id) == 1


def test_abort_leaves_the_queued_alone_and_counts_what_is_under_way(api: Any, org: UUID) -> None:
    fleet = Fleet(api, org, 6)
    made = fleet.deploy(strategy={"max_in_flight": 2, "retries": 0, "on_failure": "abort"})
    first, second = fleet.step(made)
    fleet.answer([first], "START_FAILED")
    assert fleet.step(made) == []
    aborted = fleet.read(made)
    assert (aborted["status"], aborted["reason"]) == (
        "failed", "failed: aborted because 1 of 1 finished devices failed (100 % > 10 %), 1 still in progress",
    )  # fmt: skip
    assert (aborted["progress"]["canceled"], stages(aborted)) == (4, [(6, "failed")])
    fleet.answer([second])
    assert fleet.step(made) == []
    done = fleet.read(made)
    assert done["reason"] == "failed: aborted because 1 of 1 finished devices failed (100 % > 10 %)"
    assert (done["progress"]["succeeded"], done["allowed_actions"]) == (1, ["rollback"])


def test_what_was_not_sent_when_it_was_aborted_is_canceled(api: Any, org: UUID) -> None:
    fleet = Fleet(api, org, 3)
    made = fleet.deploy(strategy={"max_in_flight": 2, "retries": 0, "on_failure": "abort"})
    first, second = fleet.step(made)
    fleet.answer([first], "START_FAILED")
    fleet.step(made)
    fleet.answer([second], "DEVICE_OFFLINE")
    assert sorted(fleet.states(made)) == ["canceled", "canceled", "failed"]


def test_it_goes_back_by_itself(api: Any, org: UUID) -> None:
    fleet = Fleet(api, org, 4)
    fleet.finish(fleet.deploy())
    fleet.publish()
    made = fleet.deploy(strategy={"max_in_flight": 2, "retries": 0, "on_failure": "rollback"})
    first, second = fleet.step(made)
    fleet.answer([second])
    fleet.answer([first], "START_FAILED")
    undo = fleet.step(made)
    rolling = fleet.read(made)
    assert {command.device_id for command in undo} == {first.device_id, second.device_id}
    assert (rolling["status"], rolling["progress"]["canceled"]) == ("rolling_back", 2)
    assert rolling["reason"] == (
        "rolling back because 1 of 2 finished devices failed (50 % > 10 %): 0 of 2 done, 2 in progress"
    )
    fleet.answer(undo)
    fleet.step(made)
    done = fleet.read(made)
    assert done["reason"] == "rolled back because 1 of 2 finished devices failed (50 % > 10 %): 2 devices"
    assert {tuple(fleet.installed(device)) for device in fleet.devices} == {(1,), (1, 2, 1), (1, 1)}


def test_it_goes_back_when_the_last_devices_fail(api: Any, org: UUID) -> None:
    fleet = Fleet(api, org, 1)
    made = fleet.deploy(strategy={"retries": 0, "on_failure": "rollback"})
    fleet.answer(fleet.step(made), "START_FAILED")
    (batch,) = fleet.batches(made)
    assert (batch.action, fleet.read(made)["status"]) == ("remove_flow", "rolling_back")


def test_never_more_in_a_minute_than_its_rate(api: Any, org: UUID) -> None:
    fleet = Fleet(api, org, 5)
    made = fleet.deploy(strategy={"max_per_minute": 2})
    fleet.answer(fleet.step(made))
    assert fleet.step(made) == []
    assert fleet.read(made)["reason"] == "waiting: 2 devices sent to within a minute, which is the limit; 3 next"
    fleet.sql("UPDATE executions SET sent_at = sent_at - interval '61 seconds'")
    assert len(fleet.step(made)) == 2


def test_a_command_that_no_gateway_took_counts_for_no_rate(api: Any, org: UUID) -> None:
    fleet = Fleet(api, org, 2)
    made = fleet.deploy(strategy={"max_per_minute": 1})
    fleet.answer(fleet.step(made), "DEVICE_OFFLINE")
    assert len(fleet.step_at_once(made)) == 1


def test_a_rate_grows_with_success(api: Any, org: UUID) -> None:
    fleet = Fleet(api, org, 12)
    rate = {"base_per_minute": 2, "increment_factor": 2, "increase_after_succeeded": 2}
    made = fleet.deploy(strategy={"exponential_rate": rate, "max_per_minute": 5})
    sizes = []
    while commands := fleet.step(made):
        sizes.append(len(commands))
        fleet.answer(commands)
        fleet.sql("UPDATE executions SET sent_at = sent_at - interval '61 seconds'")
    assert sizes == [2, 4, 5, 1]


def test_outside_its_window_it_waits(api: Any, org: UUID) -> None:
    fleet = Fleet(api, org, 2)
    made = fleet.deploy(strategy={"maintenance_windows": [window(3)]})
    assert (made["status"], made["allowed_actions"]) == ("scheduled", ["pause", "rollback", "cancel"])
    assert made["reason"].startswith("scheduled: waiting for the maintenance window, which opens 20")
    assert made["reason"].endswith("UTC, 0 of 2 finished")
    assert fleet.step(made) == []
    assert fleet.act(made, "start")["status"] == "scheduled", "it goes on already; nobody opens the window"
    change_windows(fleet, [window(-1)])
    assert len(fleet.step(made)) == 2
    assert fleet.read(made)["status"] == "in_progress"


def test_a_window_that_closes_lets_what_is_under_way_finish(api: Any, org: UUID) -> None:
    fleet = Fleet(api, org, 3)
    made = fleet.deploy(strategy={"max_in_flight": 2, "maintenance_windows": [window(-1)]})
    commands = fleet.step(made)
    change_windows(fleet, [window(3)])
    fleet.answer(commands[:1])
    assert fleet.step(made) == []
    waiting = fleet.read(made)
    assert waiting["status"] == "scheduled"
    assert waiting["reason"].endswith(", 1 of 3 finished, 1 still in progress")
    assert fleet.act(made, "pause")["status"] == "paused"
    assert fleet.act(made, "start")["status"] == "scheduled"
    fleet.act(made, "rollback")
    assert len(fleet.step(made)) == 1, "a rollback waits for no window, but for the device's answer"


def test_what_fails_while_the_window_is_closed_is_tried_again_in_the_next(api: Any, org: UUID) -> None:
    fleet = Fleet(api, org, 1)
    made = fleet.deploy(strategy={"maintenance_windows": [window(-1)]})
    commands = fleet.step(made)
    change_windows(fleet, [window(3)])
    fleet.step(made)
    fleet.answer(commands, "START_FAILED")
    assert fleet.step_at_once(made) == []
    assert (fleet.read(made)["status"], fleet.states(made)) == ("scheduled", ["queued"])
    change_windows(fleet, [window(-1)])
    assert len(fleet.step(made)) == 1


def change_windows(fleet: Fleet, windows: list[dict[str, Any]]) -> None:
    stored = [{"days": list(DAY_NAMES), "time_zone": "UTC", **one} for one in windows]
    change = "UPDATE deployments SET strategy = jsonb_set(strategy, '{maintenance_windows}', CAST(:w AS jsonb))"
    fleet.sql(change, w=db.as_json(stored))


@pytest.mark.parametrize(
    ("strategy", "field"),
    [
        ({"maintenance_windows": [{**NIGHT, "to": "25:00"}]}, "maintenance_windows.0.to"),
        ({"maintenance_windows": [{"from": "22:00"}]}, "maintenance_windows.0.to"),
        ({"maintenance_windows": [{**NIGHT, "days": ["monday"]}]}, "maintenance_windows.0.days.0"),
        ({"maintenance_windows": [{**NIGHT, "time_zone": "Mars"}]}, "maintenance_windows.0.time_zone"),
        ({"exponential_rate": {"base_per_minute": 1}}, "exponential_rate._schema"),
        ({"exponential_rate": {"base_per_minute": 0}}, "exponential_rate.base_per_minute"),
        ({"stages": [100, 100]}, "stages"),
        ({"stages": []}, "stages"),
    ],
)  # fmt: skip
def test_impossible_details(api: Any, org: UUID, strategy: Any, field: str) -> None:
    assert f"strategy.{field}" in Fleet(api, org, 1).deploy(strategy=strategy, expect=400)["details"]


def test_it_starts_at_its_time(api: Any, org: UUID) -> None:
    fleet = Fleet(api, org, 1)
    made = fleet.deploy(start=False, schedule_at=iso(now() + timedelta(hours=1)))
    assert (made["status"], made["allowed_actions"], made["progress"]["total"]) == ("scheduled", ["start", "cancel"], 0)
    assert made["reason"].startswith("scheduled: starts 20")
    assert fleet.step(made) == []
    make.device(org)
    fleet.sql("UPDATE deployments SET schedule_at = now(), next_check_at = now()")
    with db.transaction(system=True):
        assert (org, UUID(made["id"])) in engine.take_due()
    assert len(fleet.step(made)) == 1
    started = fleet.read(made)
    assert (started["status"], started["progress"]["total"]) == ("in_progress", 2)
    assert started["started_at"]


def test_a_scheduled_one_can_be_started_or_canceled_before(api: Any, org: UUID) -> None:
    fleet = Fleet(api, org, 1)
    later = iso(now() + timedelta(hours=1))
    assert fleet.act(fleet.deploy(start=False, schedule_at=later), "start")["status"] == "in_progress"
    canceled = fleet.act(fleet.deploy(start=False, schedule_at=later), "cancel")
    assert canceled["reason"] == "canceled: it had not been started"
    assert "schedule_at" in fleet.deploy(start=True, schedule_at=later, expect=400)["details"]


def test_at_its_time_no_device_is_left(api: Any, org: UUID) -> None:
    fleet = Fleet(api, org, 1)
    made = fleet.deploy(start=False, schedule_at=iso(now() + timedelta(hours=1)))
    fleet.sql("DELETE FROM devices")
    fleet.sql("UPDATE deployments SET schedule_at = now()")
    assert fleet.step(made) == []
    done = fleet.read(made)
    assert (done["status"], done["reason"]) == ("canceled", "canceled: no device matched when it was to start")
    assert done["stages"][0]["status"] == "skipped"


def test_its_time_comes_outside_its_window(api: Any, org: UUID) -> None:
    fleet = Fleet(api, org, 1)
    made = fleet.deploy(
        start=False,
        schedule_at=iso(now() - timedelta(minutes=1)),
        strategy={"maintenance_windows": [window(3)]},
    )
    assert (made["status"], made["progress"]["total"]) == ("scheduled", 0)
    assert made["reason"].startswith("scheduled: waiting for the maintenance window, which opens 20")
    change_windows(fleet, [window(-1)])
    assert len(fleet.step(made)) == 1


def test_somebody_else_approves(app: Any, api: Any, org: UUID) -> None:
    fleet = Fleet(make.client(app, org, "operator"), org, 1)
    made = fleet.deploy(approval={"required": True, "role": "admin"})
    assert (made["status"], made["allowed_actions"]) == ("waiting_for_approval", ["approve", "cancel"])
    assert made["approval"] == {"required": True, "role": "admin", "approved_by": None, "approved_at": None}
    assert fleet.step(made) == []
    assert fleet.act(made, "start", expect=409)["current_state"] == "waiting_for_approval"
    assert "needs the role admin" in fleet.act(made, "approve", expect=403)["error"]
    path = f"/deployments/{made['id']}/approve"
    make.client(app, org, "viewer").post(path, expect=403)
    admin = make.client(app, org, "admin")
    approved = admin.post(path, expect=200)
    assert (approved["status"], approved["approval"]["approved_by"]) == ("in_progress", "api_key:test-admin")
    assert admin.post(path, expect=200)["approval"]["approved_at"] == approved["approval"]["approved_at"]
    assert len(fleet.step(made)) == 1


def test_nobody_but_an_owner_approves_his_own(app: Any, api: Any, org: UUID) -> None:
    fleet = Fleet(make.client(app, org, "admin"), org, 1)
    made = fleet.deploy(start=False, approval={"required": True})
    assert fleet.act(made, "approve", expect=403)["error"] == "somebody else must approve what you have created"
    other = Fleet(api, org)
    own = other.deploy(start=False, approval={"required": True, "role": "owner"})
    assert other.act(own, "approve")["status"] == "created"
    assert other.act(other.deploy(start=False), "approve", expect=409)["current_state"] == "created"
    assert fleet.act(made, "cancel")["status"] == "canceled"


def test_an_approved_one_waits_for_its_time(api: Any, org: UUID) -> None:
    fleet = Fleet(api, org, 1)
    later = iso(now() + timedelta(hours=1))
    made = fleet.deploy(start=False, schedule_at=later, approval={"required": True})
    fleet.sql("UPDATE deployments SET schedule_at = now()")
    assert fleet.step(made) == []
    assert fleet.read(made)["status"] == "waiting_for_approval"
    fleet.sql("UPDATE deployments SET schedule_at = now() + interval '1 hour'")
    assert fleet.act(made, "approve")["status"] == "scheduled"


def test_statements_do_not_grow_with_the_fleet(api: Any, org: UUID) -> None:
    fleet = Fleet(api, org, 200)
    made = fleet.deploy(strategy={"stages": [10, 100], "max_in_flight": 100})
    with counted() as seen:
        while commands := fleet.step(made):
            fleet.answer(commands)
    assert fleet.read(made)["status"] == "succeeded"
    rounds = 3
    assert len(seen) <= 24 * (rounds + 1), "a fixed number in each round, whatever the number of devices"
