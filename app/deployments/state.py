"""A deployment as it stands at one moment, frozen, and what can be told from that alone."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from app.deployments.strategy import Standing, Strategy

SUCCEEDED = ("succeeded", "already_installed")
FAILED = ("failed", "timed_out", "rejected")
LEFT = ("removed", "superseded", "canceled")
EXECUTION_STATES = (
    "queued", "in_progress", "succeeded", "failed", "timed_out", "rejected", "canceled", "removed", "superseded",
    "already_installed",
)  # fmt: skip
MINUTE = 60


def count(counts: Mapping[str, int], *states: str) -> int:
    return sum(counts.get(state, 0) for state in states)


@dataclass(frozen=True)
class StageState:
    """The current stage. ``counts``: its executions by state; ``succeeded_at``: when it came up to its threshold.

    ``acknowledged``: its failures that somebody has accepted, which count no more; ``watched``: its succeeded ones
    whose health is still to be judged.
    """

    number: int = 0
    counts: Mapping[str, int] = field(default_factory=dict)
    acknowledged: int = 0
    succeeded_at: datetime | None = None
    watched: int = 0

    @property
    def failed(self) -> int:
        failed = count(self.counts, *FAILED)
        return failed - min(self.acknowledged, failed)

    @property
    def members(self) -> int:
        """The devices that its success is measured by: none that has left, nor an accepted failure."""
        left = count(self.counts, *LEFT) + min(self.acknowledged, count(self.counts, *FAILED))
        return sum(self.counts.values()) - left

    def reached(self, percent: int) -> bool:
        return not self.watched and count(self.counts, *SUCCEEDED) * 100 >= percent * self.members

    def out_of_reach(self, percent: int) -> bool:
        """Whether it would not come up to its threshold even if all that is open succeeded."""
        return (self.members - self.failed) * 100 < percent * self.members


@dataclass(frozen=True)
class State:
    """A deployment as it stands. ``counts``: executions by state, of installs, or of rollbacks while rolling back.

    ``online``: queued ones of the stages begun whose device can be reached; ``ready``: those of them that may be sent
    now; ``reserved``: queued ones of later stages; ``overdue``: those under way to be sent again; ``due_in``: seconds
    until the next lease, redelivery or retry; ``failure``: one of the failures in words; ``sent_lately``: commands of
    the last minute, the first of which is a minute old in ``frees_in`` seconds; ``notified``: devices that were sent
    to at all; ``cause``: why it was stopped by itself; ``watched``: succeeded ones whose health is still to be judged,
    the last of them at ``watched_until``; ``unreported``: those judged healthy because they report nothing.
    """

    status: str
    strategy: Strategy = field(default_factory=Strategy)
    counts: Mapping[str, int] = field(default_factory=dict)
    acknowledged: int = 0
    online: int = 0
    ready: int = 0
    reserved: int = 0
    overdue: int = 0
    due_in: float | None = None
    failure: str | None = None
    now: datetime = datetime(2000, 1, 1, tzinfo=UTC)
    started: bool = True
    starts_at: datetime | None = None
    dynamic: bool = False
    stage: StageState = field(default_factory=StageState)
    window: Standing = field(default_factory=Standing)
    sent_lately: int = 0
    frees_in: float | None = None
    notified: int = 0
    cause: str | None = None
    watched: int = 0
    watched_until: datetime | None = None
    unreported: int = 0

    def count(self, *states: str) -> int:
        return count(self.counts, *states)

    @property
    def running(self) -> bool:
        """Whether it goes on by itself: also while a maintenance window keeps it waiting."""
        return self.status == "in_progress" or (self.status == "scheduled" and self.started)

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
        return self.queued - self.reserved - self.online

    @property
    def last_stage(self) -> bool:
        return self.stage.number >= len(self.strategy.stages) - 1

    @property
    def soaked_at(self) -> datetime | None:
        """When the next stage may begin; None: not before this one has succeeded. An empty one need not soak."""
        if self.last_stage or self.stage.succeeded_at is None:
            return None
        if not self.stage.members:
            return self.stage.succeeded_at
        return self.stage.succeeded_at + timedelta(seconds=self.strategy.soak_seconds)

    @property
    def budget(self) -> int | None:
        """How many more may be sent within this minute; None: as many as there are. A rollback has no rate."""
        rate = self.strategy.per_minute(self.notified, self.succeeded)
        if rate is None or self.status == "rolling_back":
            return None
        return max(0, rate - self.sent_lately)

    def seconds_until(self, moment: datetime) -> float:
        return (moment - self.now).total_seconds()


def unacknowledged(state: State) -> tuple[int, int]:
    """The failures that nobody has accepted, and the finished executions without those accepted."""
    known = min(state.acknowledged, state.failed)
    return state.failed - known, state.finished - known


def too_many_failed(state: State) -> bool:
    failed, finished = unacknowledged(state)
    return failed * 100 > state.strategy.failure_threshold * finished


def tripped(state: State) -> bool:
    """Whether failures that nobody has acknowledged exceed the threshold, once enough executions are finished."""
    return state.finished >= state.strategy.min_executed and too_many_failed(state)


def stage_failed(state: State) -> bool:
    """Whether the current stage cannot succeed any more, so that the next one would never begin."""
    if state.last_stage or state.stage.succeeded_at is not None:
        return False
    return state.stage.out_of_reach(state.strategy.success_threshold)


def why_stopped(state: State) -> str | None:
    """What stops a deployment that has something left to send, in words; None: nothing does."""
    if tripped(state):
        failed, finished = unacknowledged(state)
        rate = f"{failed * 100 / finished:.3g} % > {state.strategy.failure_threshold} %"
        return f"{failed} of {finished} finished devices failed ({rate})"
    if stage_failed(state):
        number, stages = state.stage.number + 1, len(state.strategy.stages)
        failures = f"{state.stage.failed} of its {state.stage.members} devices failed"
        return f"stage {number} of {stages} cannot reach {state.strategy.success_threshold} %: {failures}"
    return None
