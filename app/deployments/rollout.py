"""What a deployment does next, and how it says so. Pure: plain data in, a decision out.

Timeouts, retries and the health of what was installed have been written down before (``executions.expire``,
``health.judge``); the rules here follow in the order failure threshold, all done, paused, maintenance window, stage
complete and next stage, dispatch.
A rollback is not held back by stages, rates or windows: it restores what ran before, as fast as slots allow.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from app.deployments.reasons import describe
from app.deployments.state import (
    EXECUTION_STATES,
    FAILED,
    SUCCEEDED,
    State,
    too_many_failed,
    tripped,
    why_stopped,
)
from app.deployments.strategy import Strategy

__all__ = [
    "ACTIVE", "ALLOWED", "EXECUTION_STATES", "FAILED", "FINAL", "STATUSES", "SUCCEEDED", "Decision", "State",
    "Strategy", "allowed", "decide", "describe", "outcome", "tripped", "why_stopped",
]  # fmt: skip

ALLOWED: Mapping[str, tuple[str, ...]] = {
    "waiting_for_approval": ("approve", "cancel"),
    "created": ("start", "cancel"),
    "scheduled": ("start", "cancel"),
    "in_progress": ("pause", "rollback", "cancel"),
    "paused": ("start", "rollback", "cancel"),
    "succeeded": ("rollback",),
    "failed": ("rollback",),
    "canceled": (),
    "rolling_back": (),
    "rolled_back": (),
    "rollback_failed": (),
}
ALL_STAGES = 2**31 - 1
STATUSES = tuple(ALLOWED)
ACTIVE = ("waiting_for_approval", "created", "scheduled", "in_progress", "paused", "rolling_back")
FINAL = tuple(status for status in STATUSES if status not in ACTIVE)

# Seconds until the next look, so that a lost job costs no more; answers and connects come as jobs long before.
CHECK_READY, CHECK_RUNNING, CHECK_OFFLINE, CHECK_SOONEST = 2.0, 5.0, 10.0, 0.5


def allowed(status: str, *, started: bool) -> tuple[str, ...]:
    """What users may do. One that waits for its maintenance window is under way, although it is called scheduled."""
    return ALLOWED["in_progress" if status == "scheduled" and started else status]


@dataclass(frozen=True)
class Decision:
    """``status`` from now on, its ``reason``, how many executions to send (of stages up to ``stage``), seconds until
    the next look (None: never).

    ``redeliver``: commands that stayed unanswered are due to be sent again. ``begin``: its time has come, its members
    freeze. ``stage_succeeded``: the current stage has come up to its threshold; ``next_stage``: the next one begins.
    ``cause``: why it stops by itself.
    """

    status: str
    reason: str
    dispatch: int = 0
    stage: int = 0
    check_in: float | None = None
    redeliver: bool = False
    begin: bool = False
    stage_succeeded: bool = False
    next_stage: bool = False
    cause: str | None = None


def decide(state: State) -> Decision:
    """The next step of a deployment."""
    for rule in (_not_begun, _nothing_to_drive, _failure, _complete, _hold, _window, _next_stage):
        decision = rule(state)
        if decision:
            return decision
    return _dispatch(state)


def _not_begun(state: State) -> Decision | None:
    if state.status != "scheduled" or state.started:
        return None
    if state.starts_at and state.starts_at > state.now:
        return _become(state, "scheduled", check_in=_soonest(state.seconds_until(state.starts_at)))
    if not state.window.open:
        return _become(state, "scheduled", check_in=_window_changes_in(state))
    return replace(_become(state, "scheduled"), begin=True)


def _nothing_to_drive(state: State) -> Decision | None:
    """What is under way when a deployment is canceled or aborted still finishes and counts."""
    if state.status in ("canceled", "failed"):
        return _become(state, state.status, check_in=_check_while_running(state))
    if state.running or state.status in ("paused", "rolling_back"):
        return None
    return _become(state, state.status)


def _failure(state: State) -> Decision | None:
    """Stop sending while it would matter; with nothing left to send, the end decides (a dynamic one has no end)."""
    if not state.running or not (state.queued or state.dynamic or _would_undo(state)):
        return None
    cause = why_stopped(state)
    if cause is None:
        return None
    status = {"pause": "paused", "abort": "failed", "rollback": "rolling_back"}[state.strategy.on_failure]
    if status == "paused":
        return _become(state, "paused", check_in=_check_while_running(state))
    return _stop(state, status, cause)


def _would_undo(state: State) -> bool:
    """Whether it need not be awaited how the rest fares: what is watched would be left or taken back anyhow."""
    return state.watched > 0 and state.strategy.on_failure != "pause"


def _stop(state: State, status: str, cause: str) -> Decision:
    """End by itself. What is queued is left alone, so the sentence is about what remains."""
    counts = {**state.counts, "queued": 0, "canceled": state.count("canceled") + state.queued}
    stopped = replace(
        state, counts=counts if status == "failed" else {}, cause=cause, online=0, ready=0, reserved=0, watched=0
    )
    check_in = CHECK_SOONEST if status == "rolling_back" else _check_while_running(stopped)
    return replace(_become(stopped, status, check_in=check_in), cause=cause)


def _complete(state: State) -> Decision | None:
    if state.open or state.watched or (state.dynamic and state.status != "rolling_back"):
        return None
    if state.status == "rolling_back":
        return _become(state, "rollback_failed" if state.failed else "rolled_back")
    if not state.finished:
        return _become(state, "canceled")
    if not too_many_failed(state):
        return _become(state, "succeeded")
    if state.strategy.on_failure == "rollback" and state.running:
        return _stop(state, "rolling_back", why_stopped(state) or f"{state.failed} of {state.total} devices failed")
    return _become(state, "failed")


def _hold(state: State) -> Decision | None:
    if state.status != "paused":
        return None
    return _become(state, "paused", check_in=_check_while_running(state))


def _window(state: State) -> Decision | None:
    """Outside the maintenance windows nothing is sent; what is under way finishes."""
    if state.window.open or not state.running:
        return None
    checks = [_window_changes_in(state), _check_while_running(state)]
    return _become(state, "scheduled", check_in=min(check for check in checks if check is not None))


def _next_stage(state: State) -> Decision | None:
    if state.running and state.soaked_at and state.soaked_at <= state.now:
        return replace(_become(state, "in_progress", check_in=CHECK_SOONEST), next_stage=True)
    return None


def _dispatch(state: State) -> Decision:
    """Offline devices hold no slot: only what is under way counts against ``max_in_flight``."""
    room = max(0, state.strategy.max_in_flight - state.in_progress)
    number = min(room, state.ready)
    if state.budget is not None:
        number = min(number, state.budget)
    status = "in_progress" if state.running else state.status
    return _become(state, status, dispatch=number, check_in=_check(state))


def _become(state: State, status: str, *, dispatch: int = 0, check_in: float | None = None) -> Decision:
    reason = describe(replace(state, status=status))
    reached = not state.last_stage and state.stage.succeeded_at is None
    reached = reached and state.started and state.stage.reached(state.strategy.success_threshold)
    live = status in ("in_progress", "scheduled", "paused") and state.status != "rolling_back"
    return Decision(
        status,
        reason,
        dispatch,
        ALL_STAGES if status == "rolling_back" else state.stage.number,
        check_in,
        redeliver=state.overdue > 0,
        stage_succeeded=bool(reached and live),
    )


def _check(state: State) -> float:
    """Seconds until time alone may change something."""
    latest = CHECK_READY if state.ready else CHECK_RUNNING if state.in_progress or state.watched else CHECK_OFFLINE
    checks = [latest, state.due_in]
    if state.status != "rolling_back":
        checks += [state.frees_in if state.ready else None, _window_changes_in(state)]
        checks.append(state.seconds_until(state.soaked_at) if state.soaked_at else None)
    return _soonest(*checks)


def _check_while_running(state: State) -> float | None:
    if not state.in_progress and not state.watched:
        return None
    return _soonest(CHECK_RUNNING, state.due_in)


def _window_changes_in(state: State) -> float | None:
    return _soonest(state.seconds_until(state.window.changes_at)) if state.window.changes_at else None


def _soonest(*seconds: float | None) -> float:
    return max(CHECK_SOONEST, min(one for one in seconds if one is not None))


def outcome(status: str, code: str | None, data: Any) -> str:
    """What a device's answer means for its execution.

    ``succeeded``, ``already_installed``; ``not_sent``; ``unknown`` (may still be carried out); ``timeout``; for good
    ``rejected`` and ``failed``; ``error`` (worth another attempt).
    """
    if status == "success":
        known = isinstance(data, dict) and data.get("status") == "already_installed"
        return "already_installed" if known else "succeeded"
    return _OUTCOMES.get(code or "", "error")


_OUTCOMES = {
    "DEVICE_OFFLINE": "not_sent",
    "DEVICE_DISCONNECTED": "unknown",
    "DEVICE_TIMEOUT": "timeout",
    "UNSUPPORTED_NODE_TYPE": "rejected",
    "INVALID_FLOW": "rejected",
    "NOT_SUPPORTED_BY_DEVICE": "failed",
    "UNKNOWN_ACTION": "failed",
    "INVALID_PAYLOAD": "failed",
}
