"""Devices whose agents only answer are asked for their figures once a minute, by the gateway that holds them.

No job and no message: the gateway has the socket. Each device has its place in the minute, by its id, so that a fleet
spreads over all of it and keeps doing so when it connects anew.
"""

import time
from collections.abc import Callable
from typing import Any
from uuid import UUID, uuid4

import structlog

from app.tunnel.protocol import Answer

log = structlog.get_logger("tunnel")

EVERY_SECONDS = 60.0
FIRST_AFTER = 15.0
"""A connection that has only just begun has other things to do."""
TIMEOUT = 30.0
ACTION = "get_system_metrics"


class Poll:
    """One connection's. ``ask`` is the connection's own; ``told`` takes what the device answers."""

    def __init__(self, ask: Callable[..., None], device_id: UUID, told: Callable[[Any], None]) -> None:
        self._ask, self._device_id, self._told = ask, device_id, told
        self._failed = False
        self._due_at = time.monotonic() + FIRST_AFTER + until_place(device_id, time.time() + FIRST_AFTER)

    def tick(self, moment: float) -> None:
        """Ask if it is time; ``moment`` is monotonic."""
        if moment < self._due_at:
            return
        self._due_at += EVERY_SECONDS * ((moment - self._due_at) // EVERY_SECONDS + 1)
        self._ask(str(uuid4()), ACTION, {}, TIMEOUT, self._take)

    def _take(self, answer: Answer) -> None:
        if answer.ok:
            self._failed = False
            self._told(answer.data)
        elif not self._failed and answer.code != "DEVICE_DISCONNECTED":
            self._failed = True  # said once, not every minute
            log.warning("no system metrics", device_id=str(self._device_id), error=answer.error, code=answer.code)


def until_place(device_id: UUID, moment: float) -> float:
    """Seconds from ``moment`` (since 1970) until the device's place in the minute."""
    place: float = device_id.int % 60_000 / 1000
    return (place - moment) % EVERY_SECONDS
