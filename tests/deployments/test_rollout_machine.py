"""A fleet that behaves as it likes, a clock that jumps, users who pause and resume: what must hold of every decision.

The model carries decisions out as the engine does, on plain data, and checks them by its own arithmetic.
"""

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from app.deployments.rollout import FAILED, FINAL, SUCCEEDED, Decision, State, Strategy, decide, why_stopped
from app.deployments.state import StageState
from app.deployments.strategy import Health, Rate, Standing

BEGINNING = datetime(2026, 1, 1, tzinfo=UTC)
LEASE, RETRY, WINDOW, WATCH = 300, 60, 1000, 90
RUNNING = ("in_progress", "scheduled")
LIVE = (*RUNNING, "paused")


@dataclass
class Member:
    stage: int
    state: str = "queued"
    online: bool = True
    retry_at: float = 0
    lease_until: float = 0
    sent_at: float | None = None
    done_at: float | None = None
    judged: bool = False

    def become(self, state: str, clock: float) -> None:
        self.state, self.done_at = state, clock


strategies = st.builds(
    Strategy,
    stages=st.sampled_from([(100,), (50, 100), (10, 40, 100), (1, 2, 3, 100)]),
    success_threshold=st.sampled_from([50, 80, 100]),
    soak_seconds=st.sampled_from([0, 30, 1500]),
    max_in_flight=st.integers(1, 5),
    max_per_minute=st.sampled_from([None, 1, 3]),
    exponential_rate=st.sampled_from([None, Rate(1, 2, increase_after_notified=2), Rate(1, 1.5, None, 2)]),
    failure_threshold=st.sampled_from([0, 20, 50, 100]),
    min_executed=st.integers(1, 4),
    on_failure=st.sampled_from(["pause", "abort", "rollback"]),
    health=st.sampled_from([None, Health(0, WATCH)]),
)


class Fleet(RuleBasedStateMachine):
    @initialize(
        strategy=strategies, size=st.integers(1, 14), windows=st.booleans(), delay=st.sampled_from([None, 0, 400])
    )
    def begin(self, strategy: Strategy, size: int, windows: bool, delay: int | None) -> None:
        self.strategy, self.windows, self.clock = strategy, windows, 0.0
        ends = [-(-size * percent // 100) for percent in strategy.stages]
        self.members = [Member(next(k for k, end in enumerate(ends) if n < end)) for n in range(size)]
        self.started = delay is None
        self.starts_at = None if delay is None else self.moment(delay)
        self.status = "in_progress" if self.started else "scheduled"
        self.stage, self.succeeded_at, self.acknowledged, self.stage_acknowledged = 0, None, 0, 0
        self.sent: list[float] = []
        self.cause: str | None = None
        self.tick()

    def moment(self, seconds: float) -> datetime:
        return BEGINNING + timedelta(seconds=seconds)

    def window(self) -> Standing:
        """Open for a while, closed for as long."""
        if not self.windows:
            return Standing()
        number = int(self.clock // WINDOW)
        return Standing(number % 2 == 0, self.moment((number + 1) * WINDOW))

    def count(self, *states: str, stage: int | None = None) -> int:
        return sum(one.state in states and stage in (None, one.stage) for one in self.members)

    def watched(self, stage: int | None = None) -> list[Member]:
        """Succeeded ones whose health is not judged yet."""
        if self.strategy.health is None or self.status not in LIVE:
            return []
        return [one for one in self.some(*SUCCEEDED) if not one.judged and stage in (None, one.stage)]

    def judge(self) -> None:
        for member in self.watched():
            assert member.done_at is not None
            member.judged = member.done_at + WATCH <= self.clock

    def snapshot(self) -> State:
        members = self.members if self.started else []
        back = self.status in ("rolling_back", "rolled_back", "rollback_failed")
        begun = [one for one in members if one.state == "queued" and (back or one.stage <= self.stage)]
        waits = [one.retry_at for one in members if one.state == "queued" and one.retry_at > self.clock]
        lately = [sent for sent in self.sent if sent > self.clock - 60]
        waits += [one.lease_until for one in members if one.state == "in_progress"]
        waits += [one.done_at + WATCH for one in self.watched() if one.done_at is not None]
        here = [one.state for one in members if one.stage == self.stage]
        return State(
            self.status,
            self.strategy,
            {state: self.count(state) for state in {one.state for one in members}},
            acknowledged=0 if back else self.acknowledged,
            online=sum(one.online for one in begun),
            ready=sum(one.online and one.retry_at <= self.clock for one in begun),
            reserved=0 if back else self.count("queued") - len(begun) if members else 0,
            due_in=min(waits) - self.clock if waits else None,
            now=self.moment(self.clock),
            started=self.started,
            starts_at=self.starts_at,
            stage=StageState(
                self.stage,
                {state: here.count(state) for state in here},
                self.stage_acknowledged,
                self.succeeded_at,
                len(self.watched(self.stage)),
            ),
            window=self.window(),
            sent_lately=len(lately),
            frees_in=min(lately) + 60 - self.clock if lately else None,
            notified=sum(one.sent_at is not None for one in members),
            cause=self.cause,
            watched=len(self.watched()),
        )

    def tick(self) -> None:
        for member in self.members:
            if member.state == "in_progress" and member.lease_until <= self.clock:
                member.state = "timed_out"
        self.judge()
        for _ in range(50):
            state = self.snapshot()
            self.last = decide(state)
            self.check(state, self.last)
            was, self.status, self.cause = self.status, self.last.status, self.last.cause or self.cause
            if not self.carry_out(was, self.last):
                break
        else:
            raise AssertionError("the steps of one tick do not end")
        self.dispatch(self.last)

    def check(self, state: State, decision: Decision) -> None:
        assert decision.reason
        assert not decision.reason.endswith((": ", ", "))
        assert decision.check_in is None or decision.check_in > 0
        if state.status in RUNNING and decision.status in ("paused", "failed", "rolling_back") and state.started:
            failed = self.count(*FAILED) - self.acknowledged
            finished = self.count(*FAILED, *SUCCEEDED) - self.acknowledged
            too_many = failed * 100 > self.strategy.failure_threshold * finished
            gate = self.stage < len(self.strategy.stages) - 1 and self.succeeded_at is None
            here = self.count(*FAILED, stage=self.stage) - self.stage_acknowledged
            members = sum(one.stage == self.stage and one.state != "removed" for one in self.members)
            members -= self.stage_acknowledged
            hopeless = gate and (members - here) * 100 < self.strategy.success_threshold * members
            assert too_many or hopeless, "only finished executions stop a deployment"
            if not hopeless and state.open:
                assert finished + self.acknowledged >= self.strategy.min_executed

    def carry_out(self, was: str, decision: Decision) -> bool:
        if decision.begin:
            assert self.starts_at is None or self.starts_at <= self.moment(self.clock)
            assert self.window().open
            self.started, self.status = True, "in_progress"
        elif decision.next_stage:
            soaked = self.succeeded_at is not None and (
                self.succeeded_at + timedelta(seconds=self.strategy.soak_seconds) <= self.moment(self.clock)
                or not any(one.stage == self.stage and one.state != "removed" for one in self.members)
                or self.snapshot().stage.members == 0
            )
            assert soaked, "a stage began before its predecessor had succeeded and soaked"
            assert self.status == "in_progress"
            assert self.window().open
            self.stage, self.succeeded_at, self.stage_acknowledged = self.stage + 1, None, 0
        elif decision.stage_succeeded:
            assert not self.watched(self.stage), "a stage succeeded before the health of its devices was judged"
            self.succeeded_at = self.moment(self.clock)
        elif decision.status == was:
            return False
        elif decision.status == "rolling_back":
            back = [one for one in self.members if one.sent_at is not None and one.state in (*SUCCEEDED, "in_progress")]
            self.members = [Member(one.stage, online=one.online) for one in back]
        elif decision.status == "failed":
            for member in self.members:
                member.state = "canceled" if member.state == "queued" else member.state
        else:
            return False
        return True

    def dispatch(self, decision: Decision) -> None:
        ready = [
            one
            for one in self.members
            if one.state == "queued" and one.online and one.retry_at <= self.clock and one.stage <= decision.stage
        ]
        assert decision.dispatch <= len(ready)
        if not decision.dispatch:
            return
        assert self.started
        assert self.status in ("in_progress", "rolling_back"), "nothing is sent while it is paused, waits, or is over"
        notified = sum(one.sent_at is not None for one in self.members)
        for member in ready[: decision.dispatch]:
            assert self.status == "rolling_back" or (member.stage <= self.stage and self.window().open)
            member.state, member.sent_at, member.lease_until = "in_progress", self.clock, self.clock + LEASE
        if self.status == "in_progress":
            self.sent += [self.clock] * decision.dispatch
            rate = self.strategy.per_minute(notified, self.count(*SUCCEEDED))
            assert rate is None or sum(sent > self.clock - 60 for sent in self.sent) <= rate

    def some(self, *states: str) -> list[Member]:
        return [one for one in self.members if one.state in states]

    @rule()
    def look_again(self) -> None:
        self.tick()

    @rule(seconds=st.sampled_from([1, 10, 60, 120, 700, 2000]))
    def wait(self, seconds: int) -> None:
        self.clock += seconds
        self.tick()

    @precondition(lambda self: self.some("in_progress"))
    @rule(how=st.sampled_from([*SUCCEEDED, "succeeded", "succeeded", *FAILED, "removed"]), number=st.integers(1, 5))
    def answer(self, how: str, number: int) -> None:
        for member in self.some("in_progress")[:number]:
            member.become(how, self.clock)
        self.tick()

    @precondition(lambda self: self.watched())
    @rule(number=st.integers(1, 3))
    def fall_ill(self, number: int) -> None:
        for member in self.watched()[:number]:
            member.become("failed", self.clock)
        self.tick()

    @precondition(lambda self: self.some("in_progress") and self.status in (*LIVE, "rolling_back"))
    @rule()
    def retry(self) -> None:
        member = self.some("in_progress")[0]
        member.state, member.retry_at = "queued", self.clock + RETRY
        self.tick()

    @rule(which=st.integers(0, 13))
    def come_or_go(self, which: int) -> None:
        if self.members:
            member = self.members[which % len(self.members)]
            member.online = not member.online
            self.tick()

    @precondition(lambda self: self.status in RUNNING and self.started)
    @rule()
    def pause(self) -> None:
        self.status = "paused"
        self.tick()

    @precondition(lambda self: self.status == "paused")
    @rule()
    def resume(self) -> None:
        if why_stopped(self.snapshot()):
            self.acknowledged = self.count(*FAILED)
            self.stage_acknowledged = self.count(*FAILED, stage=self.stage)
        self.status = "in_progress"
        self.tick()

    @invariant()
    def never_more_than_the_slots(self) -> None:
        assert self.count("in_progress") <= self.strategy.max_in_flight

    @invariant()
    def over_exactly_when_nothing_is_open(self) -> None:
        if self.started:
            nothing_left = not self.some("queued") and (not self.some("in_progress") or self.status in FINAL)
            nothing_left = nothing_left and not self.watched()
            assert (self.status in FINAL) == nothing_left

    @invariant()
    def looked_at_again_when_time_can_change_something(self) -> None:
        moments = [one.lease_until for one in self.some("in_progress")]
        moments += [one.done_at + WATCH for one in self.watched() if one.done_at is not None]
        if self.status in RUNNING:
            if not self.started:
                assert self.last.check_in is not None
            changes_at = self.window().changes_at
            if changes_at and (self.some("queued") or not self.started):
                moments.append((changes_at - BEGINNING).total_seconds())
        if self.status == "in_progress":
            begun = [one for one in self.some("queued") if one.stage <= self.stage]
            moments += [one.retry_at for one in begun if one.retry_at > self.clock]
            state = self.snapshot()
            if state.soaked_at is not None:
                moments.append((state.soaked_at - BEGINNING).total_seconds())
            if state.ready and state.budget == 0 and state.frees_in is not None:
                moments.append(self.clock + state.frees_in)
        if moments:
            assert self.last.check_in is not None
            if not (self.status == "scheduled" and not self.started):
                assert self.last.check_in <= max(0.5, min(moments) - self.clock) + 1e-6

    def teardown(self) -> None:
        """Once everything works and somebody resumes it, it comes to its end by itself."""
        if not hasattr(self, "members"):
            return
        for _ in range(5_000):  # a soak alone is looked at 150 times
            if self.status in FINAL and not self.some("in_progress"):
                return
            for member in self.members:
                member.online = True
            for member in self.some("in_progress"):
                member.become("succeeded", self.clock)
            if self.status == "paused":
                self.resume()
            self.clock += self.last.check_in or 1
            self.tick()
        raise AssertionError(f"it does not end: {self.snapshot()}")


TestFleet = Fleet.TestCase
TestFleet.settings = settings(max_examples=120, stateful_step_count=30, deadline=None)


def test_the_machine_would_notice_a_stage_that_does_not_wait_for_health() -> None:
    """The control: the same machine, and what decides does not know what is watched."""

    class Careless(Fleet):
        def snapshot(self) -> State:
            state = super().snapshot()
            return replace(state, watched=0, stage=replace(state.stage, watched=0))

    machine = Careless()
    machine.begin(Strategy(stages=(50, 100), health=Health(0, WATCH)), 2, False, None)
    with pytest.raises(AssertionError, match="health"):
        machine.answer("succeeded", 1)


def test_the_machine_would_notice_a_stage_that_begins_too_early() -> None:
    """The control: the same machine with the soak taken away from what decides."""

    class Careless(Fleet):
        def snapshot(self) -> State:
            state = super().snapshot()
            return replace(state, strategy=replace(state.strategy, soak_seconds=0))

    machine = Careless()
    machine.strategy = Strategy(stages=(50, 100), soak_seconds=100)
    machine.begin(machine.strategy, 2, False, None)
    with pytest.raises(AssertionError, match="soaked"):
        machine.answer("succeeded", 1)
