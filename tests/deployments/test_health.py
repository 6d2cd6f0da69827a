"""The health of what was installed, as devices report it, before a stage counts as succeeded."""

from typing import Any
from uuid import UUID

import pytest

from tests.deployments.fleet import Fleet, ids
from tests.deployments.reports import Agent, hash_of

WATCH = {"max_errors": 2, "for_seconds": 60}


def watched(api: Any, org: UUID, size: int = 1, **strategy: Any) -> tuple[Fleet, Any, list[Agent]]:
    """A deployment that has been installed on all devices of its first stage, whose health is watched now."""
    fleet = Fleet(api, org, size)
    agents = [Agent(fleet, number) for number in range(size)]
    target = {"device_ids": [str(one) for one in ids(fleet.devices)]}
    made = fleet.deploy(target=target, strategy={"health": WATCH, **strategy})
    fleet.answer(fleet.step(made))
    assert fleet.step(made) == []
    return fleet, made, agents


def later(fleet: Fleet, made: Any, seconds: int = 61) -> None:
    fleet.sql(
        "UPDATE executions SET finished_at = finished_at - make_interval(secs => :s) WHERE deployment_id = :id",
        s=seconds, id=UUID(made["id"]),
    )  # fmt: skip


def test_it_succeeds_only_once_it_has_been_healthy_for_so_long(api: Any, org: UUID) -> None:
    fleet, made, (agent,) = watched(api, org)
    agent.runs(1, errors=2)
    fleet.step(made)
    running = fleet.read(made)
    assert running["status"] == "in_progress"
    assert running["reason"].startswith("watching the health of 1 device until 20")
    later(fleet, made)
    fleet.step(made)
    done = fleet.read(made)
    assert (done["status"], done["reason"]) == ("succeeded", "succeeded: 1 of 1 devices")
    assert [row.health for row in fleet.executions(made)] == ["healthy"]


@pytest.mark.parametrize(
    ("report", "words"),
    [
        ({"errors": 3}, "unhealthy: 3 errors since it was installed, more than 2"),
        ({"status": "stopped"}, "unhealthy: the flow does not run, it is stopped"),
        ({"status": "error"}, "unhealthy: the flow does not run, it is error"),
    ],
)
def test_an_unhealthy_device_has_failed_at_once(api: Any, org: UUID, report: Any, words: str) -> None:
    fleet, made, (agent,) = watched(api, org)
    agent.runs(1, **report)
    fleet.step(made)
    (row,) = fleet.executions(made)
    assert (row.state, row.error_code, row.error, row.health) == ("failed", "UNHEALTHY", words, "unhealthy")
    done = fleet.read(made)
    assert (done["status"], done["reason"]) == ("failed", f"failed: device-0: {words}")
    assert fleet.installed(fleet.devices[0]) == [1], "it runs there nevertheless"


def test_what_is_reported_of_something_else_says_nothing(api: Any, org: UUID) -> None:
    fleet = Fleet(api, org, 1)
    agent = Agent(fleet)
    fleet.finish(fleet.deploy())
    agent.runs(1, errors=50, status="error")
    fleet.publish()
    made = fleet.deploy(strategy={"health": WATCH})
    fleet.answer(fleet.step(made))
    fleet.step(made)
    assert fleet.states(made) == ["succeeded"], "these are the errors of the version before"
    agent.runs(2)
    later(fleet, made)
    fleet.step(made)
    assert [row.health for row in fleet.executions(made)] == ["healthy"]


def test_a_report_from_before_says_nothing_of_the_same_content(api: Any, org: UUID) -> None:
    fleet = Fleet(api, org, 1)
    agent = Agent(fleet)
    fleet.finish(fleet.deploy())
    agent.runs(1, errors=50, status="stopped")
    made = fleet.deploy(strategy={"health": WATCH})
    fleet.answer(fleet.step(made))
    fleet.step(made)
    assert fleet.states(made) == ["succeeded"]


@pytest.mark.parametrize("reported", [{"status": 7, "errors": "many"}, {"errors": None}, {"errors": -1e300}])
def test_strange_reports_do_no_harm(api: Any, org: UUID, reported: Any) -> None:
    fleet, made, (agent,) = watched(api, org)
    agent.report(flows={fleet.flow_id: {"hash": hash_of(fleet, 1), **reported}})
    fleet.step(made)
    assert fleet.states(made) in (["succeeded"], ["failed"])
    agent.report(flows={fleet.flow_id: "odd"})
    fleet.step(made)
    agent.report(flows="odd")
    later(fleet, made)
    fleet.step(made)
    assert fleet.read(made)["status"] in ("succeeded", "failed")


def test_a_flow_that_vanishes_has_failed(api: Any, org: UUID) -> None:
    fleet, made, (agent,) = watched(api, org)
    agent.runs(1)
    agent.lost()
    fleet.step(made)
    assert fleet.executions(made)[0].error == "unhealthy: the flow is not there any more"


def test_devices_that_report_nothing_count_as_healthy_and_are_told_of(api: Any, org: UUID) -> None:
    fleet, made, agents = watched(api, org, 3)
    agents[0].runs(1)
    body = {"flow_id": fleet.flow_id, "target": {"all": True}}
    assert api.post("/deployments?dry_run=true", body, expect=200)["totals"]["health_unknown"] == 2
    later(fleet, made)
    fleet.step(made)
    done = fleet.read(made)
    assert done["reason"] == "succeeded: 3 of 3 devices, 2 without a report of their health"
    items = api.get(f"/deployments/{made['id']}/executions", expect=200)["items"]
    assert [item["health"] for item in items] == ["healthy", "unknown", "unknown"]


def test_the_next_stage_waits_for_health_and_then_soaks(api: Any, org: UUID) -> None:
    fleet, made, _agents = watched(api, org, 2, stages=[50, 100], soak_seconds=600)
    assert [stage["status"] for stage in fleet.read(made)["stages"]] == ["running", "pending"]
    later(fleet, made)
    fleet.step(made)
    assert [stage["status"] for stage in fleet.read(made)["stages"]] == ["succeeded", "pending"]
    fleet.sql("UPDATE deployment_stages SET finished_at = finished_at - interval '601 seconds' WHERE number = 0")
    assert len(fleet.step(made)) == 1


@pytest.mark.parametrize(
    ("on_failure", "status"), [("pause", "paused"), ("abort", "failed"), ("rollback", "rolling_back")]
)
def test_unhealthy_devices_stop_it_as_failures_do(api: Any, org: UUID, on_failure: str, status: str) -> None:
    fleet, made, agents = watched(api, org, 4, stages=[50, 100], on_failure=on_failure)
    installed = {row.device_id for row in fleet.executions(made) if row.state == "succeeded"}
    sick = next(agent for agent in agents if agent.device.id in installed)
    sick.runs(1, errors=3)
    commands = fleet.step(made)
    stopped = fleet.read(made)
    assert stopped["status"] == status
    assert "1 of 2 finished devices failed (50 % > 10 %)" in stopped["reason"]
    assert {command.device_id for command in commands} == (installed if status == "rolling_back" else set())


def test_a_rollback_does_not_wait_for_the_rest_to_be_judged(api: Any, org: UUID) -> None:
    fleet, made, agents = watched(api, org, 2, on_failure="rollback")
    agents[0].runs(1, errors=3)
    assert len(fleet.step(made)) == 2
    assert fleet.read(made)["status"] == "rolling_back"


def test_a_paused_one_is_judged_too_and_a_canceled_one_is_not(api: Any, org: UUID) -> None:
    fleet, made, _agents = watched(api, org, 2, stages=[50, 100])
    fleet.act(made, "pause")
    later(fleet, made)
    fleet.step(made)
    assert sorted(str(row.health) for row in fleet.executions(made)) == ["None", "unknown"]
    other, canceled, (agent,) = watched(api, org)
    other.act(canceled, "cancel")
    agent.runs(1, errors=3)
    other.step(canceled)
    assert other.states(canceled) == ["succeeded"]


@pytest.mark.parametrize(
    ("health", "field"),
    [
        ({"max_errors": -1, "for_seconds": 5}, "max_errors"), ({"max_errors": 0, "for_seconds": 0}, "for_seconds"),
        ({"max_errors": 0, "for_seconds": 3601}, "for_seconds"), ({"max_errors": 0}, "for_seconds"),
        ({"for_seconds": 5}, "max_errors"), ({**WATCH, "errors": 1}, "errors"),
    ],
)  # fmt: skip
def test_impossible_watches(api: Any, org: UUID, health: Any, field: str) -> None:
    details = Fleet(api, org, 1).deploy(strategy={"health": health}, expect=400)["details"]
    assert list(details) == [f"strategy.health.{field}"]
