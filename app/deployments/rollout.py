"""What a deployment does next, and how it says so. Pure: plain data in, a decision out.

Timeouts and retries have been written down before (``queries.expire``); the rules here follow in the order
failure threshold, stage complete, next stage, dispatch. With one stage of 100 % "stage complete" is "all done".
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

SUCCEEDED = ("succeeded", "already_installed")
FAILED = ("failed", "timed_out", "rejected")
EXECUTION_STATES = (
    "queued", "in_progress", "succeeded", "failed", "timed_out", "rejected", "canceled", "removed", "superseded",
    "already_installed",
)  # fmt: skip

ALLOWED: Mapping[str, tuple[str, ...]] = {
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
STATUSES = tuple(ALLOWED)
ACTIVE = ("created", "scheduled", "in_progress", "paused", "rolling_back")
FINAL = tuple(status for status in STATUSES if status not in ACTIVE)

# Seconds until the next look, so that a lost job costs no more; answers and connects come as jobs long before.
CHECK_READY, CHECK_RUNNING, CHECK_OFFLINE, CHECK_SOONEST = 2.0, 5.0, 10.0, 0.5


@dataclass(frozen=True)
class Strategy:
    """How a rollout goes on. Times in seconds; the backoff doubles with each attempt."""

    max_in_flight: int = 50
    timeout_seconds: int = 300
    retries: int = 2
    retry_backoff_seconds: int = 60
    failure_threshold: int = 10
    min_executed: int = 1
    on_failure: str = "pause"

    @classmethod
    def of(cls, stored: Mapping[str, Any]) -> "Strategy":
        known = {one.name for one in fields(cls)}
        return cls(**{key: value for key, value in stored.items() if key in known})


@dataclass(frozen=True)
class State:
    """A deployment as it stands. ``counts``: executions by state, of installs, or of rollbacks while rolling back.

    ``online``: queued ones whose device can be reached; ``ready``: those of them that may be sent now; ``overdue``:
    those under way to be sent again; ``due_in``: seconds until the next lease, redelivery or retry; ``failure``: one of
    the failures in words.
    """

    status: str
    strategy: Strategy = field(default_factory=Strategy)
    counts: Mapping[str, int] = field(default_factory=dict)
    acknowledged: int = 0
    online: int = 0
    ready: int = 0
    overdue: int = 0
    due_in: float | None = None
    failure: str | None = None

    def count(self, *states: str) -> int:
        return sum(self.counts.get(state, 0) for state in states)

    @property
    def queued(self) -> int:
        return self.count("queued")

    @property
    def in_progress(self) -> int:
        return self.count("in_progress")

    @property
    def open(self) -> int:
        return self.queued + self.in_progress

    @property
    def succeeded(self) -> int:
        return self.count(*SUCCEEDED)

    @property
    def failed(self) -> int:
        return self.count(*FAILED)

    @property
    def finished(self) -> int:
        """Those that have a result (AWS IoT Jobs: thresholds count finished executions)."""
        return self.succeeded + self.failed

    @property
    def total(self) -> int:
        """The devices it is about: removed ones no more."""
        return sum(self.counts.values()) - self.count("removed")

    @property
    def offline(self) -> int:
        return self.queued - self.online


@dataclass(frozen=True)
class Decision:
    """``status`` from now on, its ``reason``, how many executions to send, seconds until the next look (None: never).

    ``redeliver``: commands that stayed unanswered are due to be sent again.
    """

    status: str
    reason: str
    dispatch: int = 0
    check_in: float | None = None
    redeliver: bool = False


def tripped(state: State) -> bool:
    """Whether failures that nobody has acknowledged exceed the threshold, once enough executions are finished."""
    return state.finished >= state.strategy.min_executed and _too_many_failed(state)


def decide(state: State) -> Decision:
    """The next step of a deployment."""
    for rule in (_nothing_to_drive, _failure_threshold, _complete, _hold):
        decision = rule(state)
        if decision:
            return decision
    return _dispatch(state)


def _nothing_to_drive(state: State) -> Decision | None:
    if state.status == "canceled":
        return _become(state, "canceled", check_in=_check(state) if state.in_progress else None)
    if state.status in ("in_progress", "paused", "rolling_back"):
        return None
    return _become(state, state.status)


def _failure_threshold(state: State) -> Decision | None:
    """Stop sending while it would matter; with nothing left to send, the end decides."""
    if state.status == "in_progress" and state.queued and tripped(state):
        return _become(state, "paused", check_in=_check(state) if state.in_progress else None)
    return None


def _complete(state: State) -> Decision | None:
    if state.open:
        return None
    if state.status == "rolling_back":
        return _become(state, "rollback_failed" if state.failed else "rolled_back")
    if not state.finished:
        return _become(state, "canceled")
    return _become(state, "failed" if _too_many_failed(state) else "succeeded")


def _hold(state: State) -> Decision | None:
    if state.status != "paused":
        return None
    return _become(state, "paused", check_in=_check(state) if state.in_progress else None)


def _dispatch(state: State) -> Decision:
    """Offline devices hold no slot: only what is under way counts against ``max_in_flight``."""
    room = max(0, state.strategy.max_in_flight - state.in_progress)
    return _become(state, state.status, dispatch=min(room, state.ready), check_in=_check(state))


def _become(state: State, status: str, *, dispatch: int = 0, check_in: float | None = None) -> Decision:
    reason = describe(replace(state, status=status))
    return Decision(status, reason, dispatch, check_in, redeliver=state.overdue > 0)


def _check(state: State) -> float:
    latest = CHECK_READY if state.ready else CHECK_RUNNING if state.in_progress else CHECK_OFFLINE
    return max(CHECK_SOONEST, latest if state.due_in is None else min(latest, state.due_in))


def _too_many_failed(state: State) -> bool:
    failed, finished = _unacknowledged(state)
    return failed * 100 > state.strategy.failure_threshold * finished


def _unacknowledged(state: State) -> tuple[int, int]:
    known = min(state.acknowledged, state.failed)
    return state.failed - known, state.finished - known


def describe(state: State) -> str:
    """Where a deployment stands, in one plain sentence."""
    return _SENTENCES[state.status](state)


def _running(state: State) -> str:
    waits = not state.in_progress and not state.ready
    if state.status == "in_progress" and waits and state.queued:
        parts = [_some(state.offline, f"of {state.total} devices offline")]
        parts += [_some(state.queued - state.offline, "to be tried again")]
        return f"waiting: {_list(parts)}"
    verb = "rolling back" if state.status == "rolling_back" else "running"
    return f"{verb}: {_progress(state)}"


def _progress(state: State) -> str:
    parts = [f"{state.succeeded} of {state.total} done", _some(state.in_progress, "in progress")]
    parts += [_some(state.failed, "failed"), _some(state.offline, "offline")]
    parts += [_some(state.online - state.ready, "to be tried again"), _some(state.ready, "next")]
    return _list(parts)


def _paused(state: State) -> str:
    if not tripped(state):
        return f"paused: {state.finished} of {state.total} finished, {state.in_progress} still in progress"
    failed, finished = _unacknowledged(state)
    rate = f"{failed * 100 / finished:.3g} % > {state.strategy.failure_threshold} %"
    return f"paused: {failed} of {finished} finished devices failed ({rate})"


def _succeeded(state: State) -> str:
    return f"succeeded: {_list([f'{state.succeeded} of {state.total} devices', _some(state.failed, 'failed')])}"


def _failed(state: State) -> str:
    verb = "rollback failed" if state.status == "rollback_failed" else "failed"
    if state.failed == 1 and state.failure:
        return f"{verb}: {state.failure}"
    first = f"; {state.failure}" if state.failure else ""
    return f"{verb}: {state.failed} of {state.total} devices{first}"


def _canceled(state: State) -> str:
    if state.in_progress:
        return f"canceled: {state.finished} of {state.total} finished, {state.in_progress} still in progress"
    if not state.counts:
        return "canceled: it had not been started"
    if not state.total:
        return "canceled: none of its devices is left"
    return f"canceled: {state.finished} of {state.total} finished"


def _rolled_back(state: State) -> str:
    if not state.succeeded:
        return "rolled back: there was nothing to undo"
    return f"rolled back: {state.succeeded} {'device' if state.succeeded == 1 else 'devices'}"


def _some(number: int, words: str) -> str:
    return f"{number} {words}" if number > 0 else ""


def _list(parts: list[str]) -> str:
    return ", ".join(part for part in parts if part)


_SENTENCES: Mapping[str, Callable[[State], str]] = {
    "created": lambda _state: "created: not started",
    "scheduled": lambda _state: "scheduled",
    "in_progress": _running,
    "paused": _paused,
    "succeeded": _succeeded,
    "failed": _failed,
    "canceled": _canceled,
    "rolling_back": _running,
    "rolled_back": _rolled_back,
    "rollback_failed": _failed,
}


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
