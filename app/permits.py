"""Permits of a rate limit, taken from where they are counted a few at a time: one question for several requests. Pure.

What is taken counts, also if it is never used. So a process takes as many as were used just now, of a large limit only,
and stops that for the rest of a window when too many went unused: a limit may be met 2 % early for each process. And
since those that it holds are up to a second older than their use, 1 % late.
"""

import time
from collections.abc import Callable

HOLD_SECONDS = 1.0  # how long permits may be used
PART = 100  # so small a part of a limit is taken at most, and may go unused in a window
MOST = 100

Acquire = Callable[[int], bool]
"""Takes so many permits, or none: then False."""


class Permits:
    """Those of one caller. Limits under 200 are counted one by one."""

    __slots__ = ("_count", "_left", "_most", "_since", "_taking", "_until", "_wasted", "_window")

    def __init__(self, amount: int, window: float) -> None:
        """``amount`` permits in ``window`` seconds."""
        self._most, self._window = min(MOST, amount // PART), window
        self._count = self._left = self._wasted = 0
        self._since = self._until = 0.0
        self._taking = False

    def use(self, acquire: Acquire) -> bool:
        """Use one: one that is here, or of new ones. False when there is none."""
        moment = time.monotonic()
        if self._left > 0 and moment < self._until:
            self._left -= 1
            return True
        if self._taking or self._most < 2:  # those on their way are for who comes after them
            return acquire(1)
        self._taking = True
        try:
            return self._take(acquire, moment)
        finally:
            self._taking = False

    def _take(self, acquire: Acquire, moment: float) -> bool:
        count = self._likely(moment)
        taken = acquire(count)
        if not taken and count > 1:
            count = 1
            taken = acquire(1)
        self._count, self._left, self._until = count, (count - 1) * taken, moment + HOLD_SECONDS
        return taken

    def _likely(self, moment: float) -> int:
        """How many will be used in time: twice as many as last time if those were, else as many as were."""
        if moment - self._since >= self._window:
            self._since, self._wasted = moment, 0
        used, self._wasted, self._left = self._count - self._left, self._wasted + self._left, 0
        if self._wasted >= self._most:
            return 1
        return max(1, min(self._most, used * 2 if moment < self._until else used))
