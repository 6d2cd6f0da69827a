"""Workers that die: at a call to Stripe, just before it leaves or just after its answer came."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from app.billing import stripe_client


class Died(BaseException):
    """As ``kill -9``: nobody catches it, and nothing after it happens."""


@contextmanager
def dying(call: int, after: bool) -> Iterator[None]:
    """Within, the worker dies at its ``call``-th call to Stripe (from 1)."""
    made = 0

    def dies(_name: str, now_after: bool) -> bool:
        nonlocal made
        made += not now_after
        return made == call and now_after is after

    with _mortal(dies):
        yield


def die_everywhere(work: Callable[[], None], due_again: Callable[[], None]) -> int:
    """Have ``work`` done by workers of which each dies at a place where none has yet; how many died.

    The places: before and after each kind of call. What one has done makes the way of the next one shorter.
    """
    died: set[tuple[str, bool]] = set()

    def dies(name: str, after: bool) -> bool:
        new = (name, after) not in died
        died.add((name, after))
        return new

    with _mortal(dies):
        while True:
            try:
                work()
            except Died:
                due_again()
                continue
            return len(died)


@contextmanager
def _mortal(dies: Callable[[str, bool], bool]) -> Iterator[None]:
    ask = stripe_client._ask

    def mortal(name: str, really: Callable[[], Any]) -> Any:
        if dies(name, False):
            raise Died
        answer = ask(name, really)
        if dies(name, True):
            raise Died
        return answer

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stripe_client, "_ask", mortal)
        yield
