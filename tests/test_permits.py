"""Permits of a rate limit: few questions for many requests, and never many more or fewer than the limit says."""

import random
from collections import deque

import pytest

from app import permits
from app.permits import HOLD_SECONDS, Permits


class Window:
    """A moving window, as Redis counts it, and the clock that all go by."""

    def __init__(self, amount: int, seconds: float) -> None:
        self.amount, self.seconds, self.now = amount, seconds, 1_000.0
        self.taken = deque[float]()  # ascending
        self.questions = 0

    def acquire(self, count: int) -> bool:
        self.questions += 1
        while self.taken and self.taken[0] <= self.now - self.seconds:
            self.taken.popleft()
        if len(self.taken) + count > self.amount:
            return False
        self.taken.extend([self.now] * count)
        return True


@pytest.fixture
def window(monkeypatch: pytest.MonkeyPatch) -> Window:
    made = Window(6_000, 60)
    monkeypatch.setattr(permits.time, "monotonic", lambda: made.now)
    return made


def asks(window: Window, callers: list[Permits], per_second: float, seconds: float, seed: int = 1) -> int:
    """How many of somebody's uses are allowed: so many a second, at random moments, by any of some processes."""
    chance = random.Random(seed)
    allowed, end = 0, window.now + seconds
    while window.now < end:
        allowed += chance.choice(callers).use(window.acquire)
        window.now += chance.expovariate(per_second)
    return allowed


def test_a_burst_is_allowed_up_to_the_limit_with_few_questions(window: Window) -> None:
    caller = Permits(6_000, 60)
    allowed = sum(caller.use(window.acquire) for _ in range(7_000))
    assert allowed == 6_000
    assert window.questions < 6_000 / 50 + 2 * 1_000 + 20


@pytest.mark.parametrize("processes", [1, 4])
@pytest.mark.parametrize("per_second", [0.3, 1, 3, 20, 90])
def test_a_caller_below_the_limit_is_never_refused(window: Window, processes: int, per_second: float) -> None:
    callers = [Permits(6_000, 60) for _ in range(processes)]
    asked = window.now
    allowed = asks(window, callers, per_second, 200)
    assert allowed >= per_second * 200 * 0.85
    assert len(window.taken) <= 6_000, asked
    assert all(caller.use(window.acquire) for caller in callers)


@pytest.mark.parametrize(("amount", "seconds"), [(600, 60), (3_600, 3_600), (200, 3_600)])
@pytest.mark.parametrize("part", [0.5, 0.9])
def test_what_goes_unused_is_little_of_any_limit(window: Window, amount: int, seconds: int, part: float) -> None:
    window.amount, window.seconds = amount, seconds
    caller = Permits(amount, seconds)
    allowed = asks(window, [caller], part * amount / seconds, seconds * 0.99)
    assert len(window.taken) - allowed <= amount * 0.02 + 1


@pytest.mark.parametrize("processes", [1, 4])
def test_a_caller_above_the_limit_gets_what_it_says(window: Window, processes: int) -> None:
    callers = [Permits(6_000, 60) for _ in range(processes)]
    allowed = asks(window, callers, 500, 60)
    assert 6_000 * (1 - 0.02 * processes) <= allowed <= 6_000 * 1.01
    assert 0.95 * 6_000 <= asks(window, callers, 500, 60) <= 6_000 * 1.02


def test_small_limits_are_counted_one_by_one(window: Window) -> None:
    window.amount = 199
    callers = [Permits(199, 60) for _ in range(3)]
    assert sum(callers[number % 3].use(window.acquire) for number in range(300)) == 199
    assert window.questions == 300


def test_permits_that_are_old_are_not_used(window: Window) -> None:
    caller = Permits(6_000, 60)
    for _ in range(40):
        caller.use(window.acquire)
    asked = window.questions
    caller.use(window.acquire)
    assert window.questions == asked, "some are left"
    window.now += HOLD_SECONDS
    caller.use(window.acquire)
    assert window.questions == asked + 1


def test_who_comes_while_others_are_on_their_way_takes_one_alone(window: Window) -> None:
    caller = Permits(6_000, 60)
    for _ in range(63):  # 1 + 2 + 4 + … + 32: the next question is for 60
        caller.use(window.acquire)
    taken = list[int]()

    def acquire(count: int) -> bool:
        taken.append(count)
        if len(taken) == 1:
            assert all(caller.use(acquire) for _ in range(5))
        return window.acquire(count)

    assert caller.use(acquire)
    assert taken == [60, 1, 1, 1, 1, 1]
    assert sum(caller.use(acquire) for _ in range(59)) == 59
    assert taken == [60, 1, 1, 1, 1, 1]


def test_a_question_that_fails_leaves_it_usable(window: Window) -> None:
    caller = Permits(6_000, 60)

    def away(_count: int) -> bool:
        raise OSError

    with pytest.raises(OSError):  # noqa: PT011
        caller.use(away)
    assert caller.use(window.acquire)
    assert caller.use(window.acquire)
