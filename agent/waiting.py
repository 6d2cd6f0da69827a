"""How long to wait before the next connection: a pure decision over how the last one ended."""

import random
from dataclasses import dataclass

from agent.protocol import BAD_CREDENTIALS, DEVICE_DISABLED, REPLACED


@dataclass(frozen=True)
class Waits:
    """Seconds. `refused` is for credentials that were turned down: trying at once would only burn the server."""

    base: float = 1.0
    cap: float = 60.0
    refused: float = 300.0
    replaced: float = 30.0
    stable_after: float = 5.0


@dataclass(frozen=True)
class Ended:
    """How a connection, or the attempt at one, came to its end."""

    reason: str
    code: int | None = None
    lasted: float = 0.0
    retry_after: float | None = None

    @property
    def refused(self) -> bool:
        """Whether the cloud does not want this device, rather than the link having failed."""
        return self.code in (BAD_CREDENTIALS, DEVICE_DISABLED)


def next_wait(ended: Ended, failures: int, waits: Waits, rng: random.Random) -> float:
    """Seconds until the next try; `failures` counts the short-lived connections before this one.

    Full jitter (AWS, "Exponential Backoff and Jitter"), so that a fleet that fell together does not come back together.
    """
    if ended.refused:
        return rng.uniform(0.8, 1.2) * waits.refused
    if ended.code == REPLACED:
        return rng.uniform(1.0, 2.0) * waits.replaced
    if ended.retry_after is not None:
        return ended.retry_after + rng.uniform(0, max(waits.base, ended.retry_after))
    return rng.uniform(0, min(waits.cap, waits.base * 2 ** min(failures, 16)))
