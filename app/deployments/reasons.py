"""Where a deployment stands, in one plain sentence."""

from collections.abc import Callable, Mapping
from datetime import datetime

from app.deployments.state import State, why_stopped


def describe(state: State) -> str:
    """Where a deployment stands, in one plain sentence."""
    return _SENTENCES[state.status](state)


def _scheduled(state: State) -> str:
    if not state.window.open and (state.started or not state.starts_at or state.starts_at <= state.now):
        opens = f", which opens {_moment(state.window.changes_at)}" if state.window.changes_at else ""
        under_way = _some(state.in_progress, "still in progress")
        done = f"{state.finished} of {state.total} finished" if state.started else ""
        return _list([f"scheduled: waiting for the maintenance window{opens}", done, under_way])
    if state.starts_at and not state.started:
        return f"scheduled: starts {_moment(state.starts_at)}"
    return "scheduled: starts now"


def _running(state: State) -> str:
    if state.status == "rolling_back":
        because = f" because {state.cause}" if state.cause else ""
        return f"rolling back{because}: {_progress(state)}" if state.counts else f"rolling back{because}"
    if not state.open:
        return _watching(state) if state.watched else _idle(state)
    if not state.in_progress and not state.ready:
        return _waiting(state)
    if not state.in_progress and state.budget == 0:
        return f"waiting: {_devices(state.sent_lately)} sent to within a minute, which is the limit; {state.ready} next"
    return f"running: {_progress(state)}"


def _idle(state: State) -> str:
    """Only a dynamic one has nothing open and yet goes on."""
    return _list([f"running: {_progress(state)}", "devices that come to match will join" if state.dynamic else ""])


def _watching(state: State) -> str:
    until = f"until {_moment(state.watched_until)}" if state.watched_until else ""
    words = f"watching the health of {_devices(state.watched)} {until}".rstrip()
    return _list([f"{words}: {state.succeeded} of {state.total} done", _some(state.failed, "failed"), _silent(state)])


def _silent(state: State) -> str:
    return _some(state.unreported, "without a report of their health")


def _waiting(state: State) -> str:
    parts = [_some(state.offline, f"of {state.total} devices offline")]
    parts += [_some(state.online, "to be tried again"), _some(state.watched, "watched for their health")]
    if state.soaked_at is not None:
        next_one = f"stage {state.stage.number + 2} of {len(state.strategy.stages)} begins {_moment(state.soaked_at)}"
        return f"waiting: {_list([next_one, *parts])}"
    return f"waiting: {_list([*parts, _some(state.reserved, 'in later stages')])}"


def _progress(state: State) -> str:
    parts = [f"{state.succeeded} of {state.total} done", _some(state.in_progress, "in progress")]
    parts += [_some(state.failed, "failed"), _some(state.offline, "offline")]
    parts += [_some(state.online - state.ready, "to be tried again"), _some(state.ready, "next")]
    parts += [_some(state.watched, "watched for their health")]
    parts += [_some(state.reserved, "in later stages"), _left(state), _silent(state)]
    return _list(parts)


def _paused(state: State) -> str:
    if cause := why_stopped(state):
        return f"paused: {cause}"
    return f"paused: {state.finished} of {state.total} finished, {state.in_progress} still in progress"


def _succeeded(state: State) -> str:
    parts = [f"{state.succeeded} of {state.total} devices", _some(state.failed, "failed"), _left(state), _silent(state)]
    return f"succeeded: {_list(parts)}"


def _failed(state: State) -> str:
    if state.cause and state.status == "failed":
        under_way = _some(state.in_progress, "still in progress")
        return _list([f"failed: aborted because {state.cause}", under_way])
    verb = "rollback failed" if state.status == "rollback_failed" else "failed"
    if state.failed == 1 and state.failure:
        return f"{verb}: {state.failure}"
    first = f"; {state.failure}" if state.failure else ""
    return f"{verb}: {state.failed} of {state.total} devices{first}"


def _canceled(state: State) -> str:
    if state.cause:
        return f"canceled: {state.cause}"
    if state.in_progress:
        return f"canceled: {state.finished} of {state.total} finished, {state.in_progress} still in progress"
    if not state.counts:
        return "canceled: it had not been started"
    if not state.total:
        return "canceled: none of its devices is left"
    if state.total == state.count("superseded"):
        return "canceled: newer deployments have taken over all of its devices"
    return f"canceled: {state.finished} of {state.total} finished"


def _rolled_back(state: State) -> str:
    because = f" because {state.cause}" if state.cause else ""
    if not state.succeeded:
        return f"rolled back{because}: there was nothing to undo"
    return f"rolled back{because}: {_devices(state.succeeded)}"


def _left(state: State) -> str:
    return _some(state.count("superseded"), "left to newer deployments")


def _devices(number: int) -> str:
    return f"{number} {'device' if number == 1 else 'devices'}"


def _moment(moment: datetime | None) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC" if moment else ""


def _some(number: int, words: str) -> str:
    return f"{number} {words}" if number > 0 else ""


def _list(parts: list[str]) -> str:
    return ", ".join(part for part in parts if part)


_SENTENCES: Mapping[str, Callable[[State], str]] = {
    "waiting_for_approval": lambda _state: "waiting for approval: nothing happens before somebody approves it",
    "created": lambda _state: "created: not started",
    "scheduled": _scheduled,
    "in_progress": _running,
    "paused": _paused,
    "succeeded": _succeeded,
    "failed": _failed,
    "canceled": _canceled,
    "rolling_back": _running,
    "rolled_back": _rolled_back,
    "rollback_failed": _failed,
}
