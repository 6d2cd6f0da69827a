"""The jobs themselves, and many of them at once."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID

import pytest

from app import db, jobs
from app.deployments import engine
from tests.deployments.fleet import Fleet


@pytest.fixture
def rollouts() -> Any:
    """The actors (importing them sets this process up as a worker)."""
    from workers import rollouts

    return rollouts


def asked_for(deployment: Any) -> int:
    """How many jobs that advance the deployment wait in the queue."""
    messages = jobs.broker().client.hvals("edgeflow:rollouts.msgs")
    return sum(b'"rollouts.advance"' in one and deployment["id"].encode() in one for one in messages)


def test_starting_asks_for_a_worker(api: Any, org: UUID) -> None:
    fleet = Fleet(api, org, 1)
    assert asked_for(fleet.deploy(start=False)) == 0
    assert asked_for(fleet.deploy()) == 1


def test_jobs_carry_a_rollout_on(api: Any, org: UUID, rollouts: Any) -> None:
    fleet = Fleet(api, org, 2)
    fleet.disconnect(fleet.devices[1])
    made = fleet.deploy()
    rollouts.advance(str(org), made["id"])
    rows = fleet.executions(made)
    assert [(row.state, row.attempt) for row in rows] == [("queued", 0)] * 2, "the gateway is nobody"
    (command,) = fleet.step_at_once(made)
    before = asked_for(made)
    rollouts.settle(str(org), [[str(command.id), "success", None, None, None]])
    assert asked_for(made) == before + 1
    rollouts.settle(str(org), [[str(command.id), "success", None, None, None]])
    assert asked_for(made) == before + 1
    rollouts.device_connected(str(org), str(fleet.devices[1].id))
    assert asked_for(made) == before + 2
    api.delete(f"/devices/{fleet.devices[1].id}", expect=204)
    rollouts.device_removed(str(org), str(fleet.devices[1].id))
    assert asked_for(made) == before + 3
    rollouts.advance(str(org), made["id"])
    assert fleet.read(made)["status"] == "succeeded"


def test_the_reconciler_asks_for_what_is_due(api: Any, org: UUID, rollouts: Any) -> None:
    fleet = Fleet(api, org, 1)
    made = fleet.deploy()
    fleet.sql("UPDATE deployments SET next_check_at = now()")
    before = asked_for(made)
    rollouts.reconcile()
    rollouts.reconcile()
    assert asked_for(made) == before + 1


def test_a_deployment_that_is_gone_is_no_error(org: UUID, rollouts: Any) -> None:
    rollouts.advance(str(org), str(org))
    assert asked_for({"id": str(org)}) == 0


def test_two_deployments_that_want_the_same_device_at_the_same_moment(api: Any, org: UUID) -> None:
    fleet = Fleet(api, org, 3)
    deployments = [fleet.deploy() for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        sent = [command for commands in pool.map(fleet.step, deployments) for command in commands]
    assert len(sent) == len({command.device_id for command in sent}) == 3


def test_the_same_answers_from_everywhere_count_once(api: Any, org: UUID) -> None:
    fleet = Fleet(api, org, 5)
    made = fleet.deploy()
    commands = fleet.step(made)
    with ThreadPoolExecutor(4) as pool:
        touched = list(pool.map(lambda _number: fleet.answer(commands), range(4)))
    assert sorted(map(len, touched)) == [0, 0, 0, 1]
    assert [fleet.installed(device) for device in fleet.devices] == [[1]] * 5


def test_canceling_while_answers_come_leaves_nothing_open(api: Any, org: UUID) -> None:
    fleet = Fleet(api, org, 6)
    for _ in range(3):
        made = fleet.deploy()
        commands = fleet.step(made)
        with ThreadPoolExecutor(2) as pool:
            answering = pool.submit(fleet.answer, commands, "START_FAILED")
            pool.submit(fleet.act, made, "cancel").result()
            answering.result()
        states = fleet.states(made)
        assert len(states) == 6
        assert set(states) <= {"failed", "canceled"}
        with db.transaction(org):
            assert engine.advance(org, UUID(made["id"])) == []
