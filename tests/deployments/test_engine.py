"""What workers do: claim, settle, retry, wait, resend; by rows, with a gateway that nobody listens on."""

from typing import Any
from uuid import UUID, uuid4

import psycopg.errors
import pytest
from sqlalchemy.exc import IntegrityError

from app import db
from app.deployments import engine
from tests.deployments.fleet import Fleet, ids

FAST = {"retries": 1, "retry_backoff_seconds": 1}
PAST = "2020-01-01T00:00:00Z"


def test_a_rollout_runs_to_its_end(api: Any, org: UUID) -> None:
    fleet = Fleet(api, org, 5)
    made = fleet.deploy(strategy={"max_in_flight": 2})
    sizes = []
    while commands := fleet.step(made):
        sizes.append(len(commands))
        fleet.answer(commands)
    done = fleet.read(made)
    assert sizes == [2, 2, 1]
    assert (done["status"], done["reason"], done["progress"]["succeeded"]) == (
        "succeeded", "succeeded: 5 of 5 devices", 5,
    )  # fmt: skip
    assert (done["stages"][0]["status"], done["allowed_actions"]) == ("succeeded", ["rollback"])
    assert done["finished_at"]
    assert [fleet.installed(device) for device in fleet.devices] == [[1]] * 5


def test_what_a_device_is_sent(api: Any, org: UUID) -> None:
    fleet = Fleet(api, org, 1)
    first = fleet.deploy()
    (batch,) = fleet.batches(first)
    version = api.get(f"/flows/{fleet.flow_id}/versions/1", expect=200)
    assert (batch.action, batch.timeout, batch.commands[0].gateway) == ("deploy_flow", 300, "nobody")
    assert batch.common == {
        "flow_id": fleet.flow_id, "version": 1, "content_hash": version["content_hash"], "start": True,
        "flow": {"id": fleet.flow_id, "name": "Watch", **version["definition"]},
    }  # fmt: skip
    assert batch.commands[0].payload == {"previous": None}
    fleet.answer(batch.commands)
    fleet.step(first)
    fleet.publish()
    (command,) = fleet.step(fleet.deploy())
    assert command.payload == {"previous": {"version": 1, "content_hash": version["content_hash"]}}


def test_offline_devices_hold_no_slot_and_go_when_they_connect(api: Any, org: UUID) -> None:
    fleet = Fleet(api, org, 4)
    away = fleet.devices[:2]
    fleet.disconnect(*away)
    made = fleet.deploy(strategy={"max_in_flight": 2})
    commands = fleet.step(made)
    assert {command.device_id for command in commands} == set(ids(fleet.devices[2:]))
    fleet.answer(commands)
    assert fleet.step(made) == []
    assert fleet.read(made)["reason"] == "waiting: 2 of 4 devices offline"
    fleet.connect(away[:1])
    with db.transaction(org):
        assert engine.device_connected(org, away[0].id) == {UUID(made["id"])}
    assert [command.device_id for command in fleet.step(made)] == [away[0].id]


def test_a_silent_connection_is_not_reachable(api: Any, org: UUID) -> None:
    fleet = Fleet(api, org, 1)
    fleet.sql("UPDATE connections SET last_seen_at = now() - interval '76 seconds'")
    assert fleet.step(fleet.deploy()) == []


def test_late_repeated_and_unknown_answers_change_nothing(api: Any, org: UUID) -> None:
    fleet = Fleet(api, org, 2)
    made = fleet.deploy()
    commands = fleet.step(made)
    fleet.answer(commands[:1])
    before = fleet.executions(made)
    assert fleet.answer(commands[:1], "START_FAILED") == set()
    assert fleet.answer(commands[:1]) == set()
    with db.transaction(org):
        assert engine.settle(org, [[str(uuid4()), "success", None, None, None]]) == set()
        assert engine.settle(org, []) == set()
    assert [row.state for row in fleet.executions(made)] == [row.state for row in before]
    assert sorted(len(fleet.installed(device)) for device in fleet.devices) == [0, 1]


def test_an_answer_to_an_earlier_attempt_is_late(api: Any, org: UUID) -> None:
    fleet = Fleet(api, org, 1)
    made = fleet.deploy(strategy=FAST)
    first = fleet.step(made)
    fleet.change(made, lease_until=PAST)
    assert fleet.step(made) == []
    fleet.change(made, next_attempt_at=PAST)
    second = fleet.step(made)
    assert fleet.answer(first) == set()
    assert fleet.states(made) == ["in_progress"]
    assert second[0].id != first[0].id
    assert fleet.answer(second) == {UUID(made["id"])}
    assert fleet.executions(made)[0].attempt == 2


def test_another_tenants_answer_changes_nothing(api: Any, org: UUID, app: Any) -> None:
    fleet = Fleet(api, org, 1)
    made = fleet.deploy()
    commands = fleet.step(made)
    other = uuid4()
    with db.transaction(other):
        assert engine.settle(other, [[str(commands[0].id), "success", None, None, None]]) == set()
        assert engine.advance(other, UUID(made["id"])) == []
    assert fleet.states(made) == ["in_progress"]


def test_errors_are_retried_with_a_growing_pause(api: Any, org: UUID) -> None:
    fleet = Fleet(api, org, 1)
    made = fleet.deploy(strategy={"retries": 2, "retry_backoff_seconds": 60})
    pauses = []
    for _ in range(2):
        fleet.answer(fleet.step(made), "START_FAILED", error="port is taken")
        (row,) = fleet.executions(made)
        pauses.append(round((row.next_attempt_at - row.started_at).total_seconds(), -1))
        assert (row.state, row.error, row.error_code) == ("queued", "port is taken", "START_FAILED")
        assert fleet.step(made) == []
        assert fleet.read(made)["reason"] == "waiting: 1 to be tried again"
        fleet.change(made, next_attempt_at=PAST)
    assert pauses == [60, 120]
    fleet.answer(fleet.step(made), "START_FAILED", error="port is taken")
    assert fleet.step(made) == []
    done = fleet.read(made)
    assert (done["status"], done["reason"]) == ("failed", "failed: device-0: port is taken")
    assert fleet.executions(made)[0].attempt == 3


@pytest.mark.parametrize(
    ("code", "state"),
    [("NOT_SUPPORTED_BY_DEVICE", "failed"), ("UNSUPPORTED_NODE_TYPE", "rejected"), ("INVALID_FLOW", "rejected")],
)
def test_permanent_errors_are_not_retried(api: Any, org: UUID, code: str, state: str) -> None:
    fleet = Fleet(api, org, 1)
    made = fleet.deploy()
    fleet.answer(fleet.step(made), code, error="create flow not yet implemented")
    assert fleet.step(made) == []
    done = fleet.read(made)
    assert (done["status"], done["reason"]) == ("failed", "failed: device-0: create flow not yet implemented")
    assert (fleet.states(made), done["progress"][state]) == ([state], 1)
    assert fleet.installed(fleet.devices[0]) == []


def test_silence_ends_as_timed_out(api: Any, org: UUID) -> None:
    fleet = Fleet(api, org, 1)
    made = fleet.deploy(strategy={"retries": 0, "timeout_seconds": 30})
    fleet.step(made)
    fleet.change(made, lease_until=PAST)
    fleet.step(made)
    assert fleet.states(made) == ["timed_out"]
    assert fleet.read(made)["reason"] == "failed: device-0: no answer within 30 s"


def test_the_gateways_timeout_counts_like_the_lease(api: Any, org: UUID) -> None:
    fleet = Fleet(api, org, 1)
    made = fleet.deploy(strategy=FAST)
    fleet.answer(fleet.step(made), "DEVICE_TIMEOUT")
    assert fleet.states(made) == ["queued"]
    fleet.change(made, next_attempt_at=PAST)
    fleet.answer(fleet.step(made), "DEVICE_TIMEOUT")
    assert fleet.states(made) == ["timed_out"]


def test_not_sent_is_no_attempt(api: Any, org: UUID) -> None:
    fleet = Fleet(api, org, 1)
    made = fleet.deploy(strategy={"retries": 0})
    for _ in range(3):
        fleet.answer(fleet.step(made), "DEVICE_OFFLINE")
        (row,) = fleet.executions(made)
        assert (row.state, row.attempt, row.command_id, row.started_at) == ("queued", 0, None, None)
        with db.transaction(org):
            engine.device_connected(org, fleet.devices[0].id)
    assert fleet.finish(made)["status"] == "succeeded"


def test_what_no_gateway_takes_goes_back(api: Any, org: UUID) -> None:
    fleet = Fleet(api, org, 2)
    made = fleet.deploy()
    engine.send(org, fleet.batches(made))
    rows = fleet.executions(made)
    assert [(row.state, row.attempt) for row in rows] == [("queued", 0)] * 2
    assert all(row.next_attempt_at for row in rows)


def test_a_command_that_may_be_under_way_is_sent_again_under_its_id(api: Any, org: UUID) -> None:
    fleet = Fleet(api, org, 1)
    made = fleet.deploy()
    (first,) = fleet.step(made)
    assert fleet.step(made) == []
    fleet.answer([first], "DEVICE_DISCONNECTED")
    assert fleet.states(made) == ["in_progress"]
    with db.transaction(org):
        engine.device_connected(org, fleet.devices[0].id)
    (batch,) = fleet.batches(made)
    assert (batch.fresh, batch.commands[0].id) == (False, first.id)
    engine.send(org, [batch])
    (row,) = fleet.executions(made)
    assert (row.state, row.attempt) == ("in_progress", 1)
    assert fleet.step(made) == []
    fleet.answer([first])
    assert fleet.finish(made)["status"] == "succeeded"


def test_a_worker_that_was_stopped_sends_nothing_stale(api: Any, org: UUID, monkeypatch: pytest.MonkeyPatch) -> None:
    fleet = Fleet(api, org, 1)
    made = fleet.deploy()
    batches = fleet.batches(made)
    monkeypatch.setattr(engine.time, "monotonic", lambda: batches[0].send_before + 1)
    engine.send(org, batches)
    assert fleet.states(made) == ["in_progress"], "sending would have found no gateway and put it back"


def test_too_many_failures_pause_until_they_are_acknowledged(api: Any, org: UUID) -> None:
    fleet = Fleet(api, org, 6)
    made = fleet.deploy(strategy={"max_in_flight": 2, "retries": 0})
    first, second = fleet.step(made)
    fleet.answer([first])
    fleet.answer([second], "START_FAILED")
    assert fleet.step(made) == []
    paused = fleet.read(made)
    assert (paused["status"], paused["reason"]) == ("paused", "paused: 1 of 2 finished devices failed (50 % > 10 %)")
    error = fleet.act(made, "start", expect=409)
    assert (error["code"], error["current_state"]) == ("INVALID_STATE", "paused")
    assert "acknowledge_failures" in error["error"]
    resumed = fleet.act(made, "start", {"acknowledge_failures": True})
    assert (resumed["status"], resumed["acknowledged_failures"]) == ("in_progress", 1)
    first, second = fleet.step(made)
    fleet.answer([first])
    assert fleet.step(made) != []
    fleet.answer([second], "START_FAILED")
    assert fleet.step(made) == []
    assert fleet.read(made)["reason"] == "paused: 1 of 3 finished devices failed (33.3 % > 10 %)"


def test_a_paused_one_finishes_what_is_under_way(api: Any, org: UUID) -> None:
    fleet = Fleet(api, org, 2)
    made = fleet.deploy(strategy={"max_in_flight": 1})
    commands = fleet.step(made)
    fleet.act(made, "pause")
    fleet.answer(commands)
    assert fleet.step(made) == []
    assert sorted(fleet.states(made)) == ["queued", "succeeded"]
    fleet.act(made, "start")
    assert fleet.finish(made)["status"] == "succeeded"


def test_a_canceled_one_counts_what_was_under_way(api: Any, org: UUID) -> None:
    fleet = Fleet(api, org, 3)
    made = fleet.deploy(strategy={"max_in_flight": 2})
    first, second = fleet.step(made)
    canceled = fleet.act(made, "cancel")
    assert (canceled["status"], canceled["reason"]) == (
        "canceled", "canceled: 0 of 3 finished, 2 still in progress",
    )  # fmt: skip
    fleet.answer([first])
    fleet.answer([second], "START_FAILED")
    assert fleet.step(made) == []
    done = fleet.read(made)
    assert (done["status"], done["reason"]) == ("canceled", "canceled: 2 of 3 finished")
    assert sorted(fleet.states(made)) == ["canceled", "failed", "succeeded"]
    assert sorted(map(len, map(fleet.installed, fleet.devices))) == [0, 0, 1]


def test_not_sent_in_a_canceled_one_is_canceled(api: Any, org: UUID) -> None:
    fleet = Fleet(api, org, 1)
    made = fleet.deploy()
    batches = fleet.batches(made)
    fleet.act(made, "cancel")
    engine.send(org, batches)
    assert fleet.states(made) == ["canceled"]


def test_a_deleted_device_leaves_the_rollout(api: Any, org: UUID) -> None:
    fleet = Fleet(api, org, 3)
    fleet.disconnect(fleet.devices[0])
    made = fleet.deploy()
    commands = fleet.step(made)
    for device in (fleet.devices[0], fleet.devices[1]):
        api.delete(f"/devices/{device.id}", expect=204)
    with db.transaction(org):
        assert engine.device_removed(org) == {UUID(made["id"])}
    fleet.answer(commands)
    assert fleet.step(made) == []
    done = fleet.read(made)
    assert (done["status"], done["reason"]) == ("succeeded", "succeeded: 1 of 1 devices")
    assert fleet.states(made) == ["removed", "removed", "succeeded"]


def test_already_installed_counts_as_success(api: Any, org: UUID) -> None:
    fleet = Fleet(api, org, 1)
    made = fleet.deploy()
    fleet.answer(fleet.step(made), data={"status": "already_installed"})
    fleet.step(made)
    assert (fleet.read(made)["status"], fleet.states(made)) == ("succeeded", ["already_installed"])
    assert fleet.installed(fleet.devices[0]) == [1]


def test_one_changing_command_per_device_over_all_deployments(api: Any, org: UUID) -> None:
    fleet = Fleet(api, org, 1)
    first, second = fleet.deploy(), Fleet(api, org).deploy()
    commands = fleet.step(first)
    assert fleet.step(second) == []
    with pytest.raises(IntegrityError) as refused:
        fleet.change(second, state="in_progress")
    assert isinstance(refused.value.orig, psycopg.errors.UniqueViolation)
    fleet.answer(commands)
    assert len(fleet.step(second)) == 1


def test_the_reconciler_finds_what_no_job_drives(api: Any, org: UUID) -> None:
    fleet = Fleet(api, org, 1)
    made, created = fleet.deploy(), fleet.deploy(start=False)
    fleet.sql("UPDATE deployments SET next_check_at = now() WHERE next_check_at IS NOT NULL")
    with db.transaction(system=True):
        due = engine.take_due()
    assert (org, UUID(made["id"])) in due
    assert (org, UUID(created["id"])) not in due
    with db.transaction(system=True):
        assert (org, UUID(made["id"])) not in engine.take_due()


def test_a_finished_deployment_is_not_looked_at_again(api: Any, org: UUID) -> None:
    fleet = Fleet(api, org, 1)
    made = fleet.deploy()
    done = fleet.finish(made)
    assert fleet.step(made) == []
    assert fleet.read(made)["updated_at"] == done["updated_at"]
    with db.transaction(system=True) as session:
        query = "SELECT next_check_at, finished_at FROM deployments WHERE id = :id"
        row = session.execute(db.text(query), {"id": UUID(made["id"])}).one()
    assert row.next_check_at is None
    assert row.finished_at is not None
