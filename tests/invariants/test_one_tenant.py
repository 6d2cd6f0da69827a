"""A device speaks for itself alone (S7), and a job cannot cross tenants, whatever its message says."""

from collections.abc import Callable
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text

from app import db, jobs
from scheduler.schedule import SCHEDULE
from tests import make
from tests.guards import population
from tests.guards.population import Population
from tests.guards.test_tenants import state
from workers import rollouts, tunnel


@pytest.fixture
def two() -> tuple[Population, Population]:
    return population.populate("A"), population.populate("B")


def under_way(who: Population) -> UUID:
    """The population's deployment, in progress; the id of the command that its device has not answered."""
    command = uuid4()
    with db.transaction(who.org_id) as session:
        strategy = '{"timeout_seconds": 300, "retries": 2, "retry_backoff_seconds": 60}'
        session.execute(
            text("UPDATE deployments SET status = 'in_progress', finished_at = NULL, strategy = CAST(:s AS jsonb)"),
            {"s": strategy},
        )
        session.execute(
            text(
                "UPDATE executions SET state = 'in_progress', attempt = 1, command_id = :command, started_at = now(), "
                "lease_until = now() + interval '5 min', redeliver_at = now() + interval '1 min'"
            ),
            {"command": command},
        )
    return command


def test_a_device_key_opens_its_own_shadow_only(app: Any, two: tuple[Population, Population]) -> None:
    mine, theirs = two
    sibling, _ = make.device(mine.org_id)
    caller = make.Client(app, {"X-API-Key": mine.device_key})
    caller.get(f"/devices/{mine.device_id}/shadow", expect=200)
    before = state(mine), state(theirs)
    for device_id in (sibling.id, theirs.device_id, uuid4()):
        for attempt in (
            caller.get(f"/devices/{device_id}/shadow"),
            caller.put(f"/devices/{device_id}/shadow", {"reported": {"a": 1}}),
            caller.put(f"/devices/{device_id}/shadow", {"desired": {"interval": None}}),
        ):
            assert (attempt.status_code, attempt.json["code"]) == (404, "NOT_FOUND")
    assert (state(mine), state(theirs)) == before


def test_a_provisioning_code_gives_its_own_device_only(app: Any) -> None:
    owners = [make.client(app, make.organization()) for _ in range(2)]
    devices = [owner.post("/devices", {"name": "pump"}, expect=201) for owner in owners]
    anybody = make.Client(app, {})
    hardware = {"serial": uuid4().hex, "device_id": devices[1]["id"]}

    def provision(number: int, **more: Any) -> Any:
        body = {"provisioning_code": devices[number]["provisioning_code"], "hardware_info": {**hardware, **more}}
        return anybody.post("/devices/provision", body)

    given = provision(0)
    assert (given.status_code, given.json["device_id"]) == (201, devices[0]["id"])
    shadow = f"/devices/{devices[1]['id']}/shadow"
    make.Client(app, {"X-API-Key": given.json["api_key"]}).get(shadow, expect=404)
    # The same hardware with another's code is that other device; other hardware with a used code is nobody.
    assert provision(1).json["device_id"] == devices[1]["id"]
    assert provision(0, serial=uuid4().hex).status_code == 401


Job = Callable[[str, Population, UUID], None]
JOBS: dict[str, Job] = {
    "advance": lambda org, them, _command: rollouts.advance.fn(org, str(them.deployment_id)),
    "settle": lambda org, _them, command: rollouts.settle.fn(org, [[str(command), "success", None, None, None]]),
    "device_connected": lambda org, them, _command: rollouts.device_connected.fn(org, str(them.device_id)),
    "device_removed": lambda org, them, _command: rollouts.device_removed.fn(org, str(them.device_id)),
    "push_shadow": lambda org, them, _command: tunnel.push_shadow.fn(org, str(them.device_id)),
}


@pytest.mark.parametrize("job", JOBS)
def test_a_message_that_pairs_one_tenant_with_anothers_rows_changes_nothing(
    two: tuple[Population, Population], job: str
) -> None:
    mine, theirs = two
    command = under_way(theirs)
    before = state(theirs)
    for org_id in (mine.org_id, uuid4()):
        JOBS[job](str(org_id), theirs, command)
    assert state(theirs) == before
    JOBS["settle"](str(theirs.org_id), theirs, command)  # the right tenant's message does change it
    assert state(theirs) != before


@pytest.mark.parametrize("garbage", ["", "x", "' OR true --", None, {"a": 1}, ["x"], 7])
def test_a_garbled_message_fails_before_it_touches_a_row(two: tuple[Population, Population], garbage: Any) -> None:
    _, theirs = two
    before = state(theirs)
    for call in (
        lambda: rollouts.advance.fn(garbage, str(theirs.deployment_id)),
        lambda: rollouts.settle.fn(garbage, []),
        lambda: rollouts.settle.fn(str(theirs.org_id), [[garbage, "success", None, None, None]]),
        lambda: tunnel.push_shadow.fn(garbage, str(theirs.device_id)),
    ):
        with pytest.raises((ValueError, TypeError, AttributeError)):
            call()
    assert state(theirs) == before


def test_every_job_about_a_tenant_names_it_first() -> None:
    sweeps, actors = {entry.job for entry in SCHEDULE}, jobs.broker().actors
    assert actors.keys() > sweeps
    for name, actor in actors.items():
        parameters = list(actor.fn.__annotations__)
        assert parameters[0] == ("due_at" if name in sweeps else "org_id"), name
