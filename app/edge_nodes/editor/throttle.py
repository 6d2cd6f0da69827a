"""How fast editors' bytes pass through one process.

A process that moves them as fast as it can has no moment for anything else: commands wait until it is their turn, and
their turn comes after each piece of each download. Measured on two processors, a download at full speed (50 MB/s) made
a command's p99 four times as long; at this speed it is hardly seen.
"""

import threading
import time
from functools import cache

BYTES_PER_SECOND = 12_500_000  # of all editors together: what a line of 100 Mbit/s brings
BURST_SECONDS = 0.02


class Throttle:
    """Lets so many bytes pass in a second; who comes too early waits."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._free_at = 0.0
        self._lock = threading.Lock()

    def wait(self, size: int) -> None:
        """Wait until ``size`` bytes may pass. Always yields, also when there is nothing to wait for."""
        moment = time.monotonic()
        with self._lock:
            self._free_at = max(self._free_at, moment - BURST_SECONDS) + size / self._rate
            wait = self._free_at - moment
        time.sleep(max(0.0, wait))  # gevent would serve a stream that always has data without ever yielding


@cache
def throttle() -> Throttle:
    """That of this process."""
    return Throttle(BYTES_PER_SECOND)
