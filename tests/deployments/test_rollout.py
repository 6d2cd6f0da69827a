"""What a deployment does next, without a database: tables. The property-based machine is beside this."""

from dataclasses import replace
from typing import Any

import pytest

from app.deployments.rollout import State, Strategy, decide, outcome
from app.deployments.strategy import Health

WATCHING = Strategy(health=Health(0, 60))


def running(counts: dict[str, int], **fields: Any) -> State:
    return State("in_progress", counts=counts, **fields)


@pytest.mark.parametrize(
    ("state", "status", "dispatch", "reason"),
    [
        (running({"queued": 10}, online=10, ready=10), "in_progress", 10, "running: 0 of 10 done, 10 next"),
        (running({"queued": 90, "in_progress": 10}, online=90, ready=90, strategy=Strategy(max_in_flight=15)),
         "in_progress", 5, "running: 0 of 100 done, 10 in progress, 90 next"),
        (running({"queued": 90, "in_progress": 20}, online=90, ready=90, strategy=Strategy(max_in_flight=15)),
         "in_progress", 0, "running: 0 of 110 done, 20 in progress, 90 next"),
        (running({"queued": 3, "succeeded": 7}), "in_progress", 0, "waiting: 3 of 10 devices offline"),
        (running({"queued": 3, "succeeded": 7, "failed": 1}, online=2, strategy=Strategy(failure_threshold=20)),
         "in_progress", 0, "waiting: 1 of 11 devices offline, 2 to be tried again"),
        (running({"queued": 3, "succeeded": 4, "in_progress": 3}), "in_progress", 0,
         "running: 4 of 10 done, 3 in progress, 3 offline"),
        # the threshold counts finished executions, and pauses only what still has something to send
        (running({"queued": 5, "succeeded": 3, "failed": 2}, online=5, ready=5), "paused", 0,
         "paused: 2 of 5 finished devices failed (40 % > 10 %)"),
        (running({"queued": 5, "succeeded": 9, "timed_out": 1}, online=5, ready=5), "in_progress", 5,
         "running: 9 of 15 done, 1 failed, 5 next"),
        (running({"queued": 5, "failed": 1}, online=5, ready=5, strategy=Strategy(min_executed=2)), "in_progress", 5,
         "running: 0 of 6 done, 1 failed, 5 next"),
        (running({"queued": 5, "failed": 2}, online=5, ready=5, acknowledged=2), "in_progress", 5,
         "running: 0 of 7 done, 2 failed, 5 next"),
        (running({"queued": 5, "failed": 3, "succeeded": 2}, online=5, acknowledged=2), "paused", 0,
         "paused: 1 of 3 finished devices failed (33.3 % > 10 %)"),
        (running({"in_progress": 5, "failed": 5}), "in_progress", 0, "running: 0 of 10 done, 5 in progress, 5 failed"),
        # the end
        (running({"succeeded": 8, "already_installed": 2}), "succeeded", 0, "succeeded: 10 of 10 devices"),
        (running({"succeeded": 19, "failed": 1}), "succeeded", 0, "succeeded: 19 of 20 devices, 1 failed"),
        (running({"failed": 1}, failure="device-1: create flow not yet implemented"), "failed", 0,
         "failed: device-1: create flow not yet implemented"),
        (running({"failed": 1}, strategy=Strategy(min_executed=5)), "failed", 0, "failed: 1 of 1 devices"),
        (running({"rejected": 2, "succeeded": 1}, failure="a: no such node"), "failed", 0,
         "failed: 2 of 3 devices; a: no such node"),
        (running({"succeeded": 2, "removed": 1}), "succeeded", 0, "succeeded: 2 of 2 devices"),
        (running({"removed": 2}), "canceled", 0, "canceled: none of its devices is left"),
        # paused ones finish what is under way
        (State("paused", counts={"queued": 5, "in_progress": 2}, online=5, ready=5), "paused", 0,
         "paused: 0 of 7 finished, 2 still in progress"),
        (State("paused", counts={"succeeded": 5}), "succeeded", 0, "succeeded: 5 of 5 devices"),
        (State("canceled", counts={"canceled": 5, "in_progress": 2, "succeeded": 3}), "canceled", 0,
         "canceled: 3 of 10 finished, 2 still in progress"),
        (State("created"), "created", 0, "created: not started"),
        (State("succeeded", counts={"succeeded": 1}), "succeeded", 0, "succeeded: 1 of 1 devices"),
        # what is watched for its health is not over, and what reports none is told of
        (running({"succeeded": 3}, watched=2, strategy=WATCHING), "in_progress", 0,
         "watching the health of 2 devices: 3 of 3 done"),
        (running({"succeeded": 3, "failed": 1}, watched=2, strategy=WATCHING), "in_progress", 0,
         "watching the health of 2 devices: 3 of 4 done, 1 failed"),
        (running({"succeeded": 3}, unreported=1, strategy=WATCHING), "succeeded", 0,
         "succeeded: 3 of 3 devices, 1 without a report of their health"),
        (running({"succeeded": 3, "failed": 1}, watched=2, strategy=replace(WATCHING, on_failure="rollback")),
         "rolling_back", 0, "rolling back because 1 of 4 finished devices failed (25 % > 10 %)"),
        # rolling back knows no threshold
        (State("rolling_back", counts={"queued": 3, "failed": 3}, online=3, ready=3), "rolling_back", 3,
         "rolling back: 0 of 6 done, 3 failed, 3 next"),
        (State("rolling_back", counts={"succeeded": 3, "superseded": 1}), "rolled_back", 0, "rolled back: 3 devices"),
        (State("rolling_back", counts={"succeeded": 3, "timed_out": 1}, failure="a: silent"), "rollback_failed", 0,
         "rollback failed: a: silent"),
        (State("rolling_back"), "rolled_back", 0, "rolled back: there was nothing to undo"),
    ],
)  # fmt: skip
def test_next_step(state: State, status: str, dispatch: int, reason: str) -> None:
    decision = decide(state)
    assert (decision.status, decision.dispatch, decision.reason) == (status, dispatch, reason)


@pytest.mark.parametrize(
    ("state", "check_in"),
    [
        (running({"queued": 5}, online=5, ready=5), 2.0),
        (running({"in_progress": 5}, due_in=300), 5.0),
        (running({"in_progress": 5}, due_in=1.5), 1.5),
        (running({"in_progress": 5}, due_in=-3), 0.5),
        (running({"queued": 5}), 10.0),
        (State("paused", counts={"queued": 5, "in_progress": 1}), 5.0),
        (State("paused", counts={"queued": 5}), None),
        (State("canceled", counts={"in_progress": 1}), 5.0),
        (State("canceled", counts={"canceled": 1}), None),
        (running({"succeeded": 1}), None),
        (running({"succeeded": 1}, watched=1, due_in=60), 5.0),
        (State("paused", counts={"queued": 1, "succeeded": 1}, watched=1, due_in=3), 3.0),
    ],
)
def test_next_look(state: State, check_in: float | None) -> None:
    assert decide(state).check_in == check_in


@pytest.mark.parametrize(
    ("answer", "meaning"),
    [
        (("success", None, {"status": "installed"}), "succeeded"),
        (("success", None, None), "succeeded"),
        (("success", None, {"status": "already_installed"}), "already_installed"),
        (("error", "DEVICE_OFFLINE", None), "not_sent"),
        (("error", "DEVICE_DISCONNECTED", None), "unknown"),
        (("error", "DEVICE_TIMEOUT", None), "timeout"),
        (("error", "UNSUPPORTED_NODE_TYPE", None), "rejected"),
        (("error", "NOT_SUPPORTED_BY_DEVICE", None), "failed"),
        (("error", "START_FAILED", None), "error"),
        (("error", None, None), "error"),
    ],
)
def test_what_an_answer_means(answer: tuple[str, str | None, Any], meaning: str) -> None:
    assert outcome(*answer) == meaning
