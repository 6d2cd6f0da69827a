"""How much of a peer is read in a second."""

import time

EVENTS_PER_SECOND, EVENTS_BURST = 500, 1_000


class Pace:
    """How many events a peer may send: what it sends faster is read later, so that no peer holds up the others."""

    def __init__(self) -> None:
        self.total = 0
        self._debt, self._at = 0.0, time.monotonic()

    def count(self) -> None:
        self.total += 1
        self._debt += 1

    def forgive(self, events: int) -> None:
        """So many events had another bound."""
        self._debt = max(0.0, self._debt - events)

    def wait(self) -> float:
        """Seconds until the next read."""
        moment = time.monotonic()
        self._debt = max(0.0, self._debt - (moment - self._at) * EVENTS_PER_SECOND)
        self._at = moment
        return max(0.0, self._debt - EVENTS_BURST) / EVENTS_PER_SECOND
