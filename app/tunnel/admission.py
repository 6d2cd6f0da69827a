"""Connects, authenticated in batches: a storm of them costs a few statements, and a database that is briefly away
costs a wait, not a try (the released agent has five)."""

import threading
import time
from collections.abc import Callable
from uuid import UUID

from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from app.batch import Batcher
from app.tunnel import queries
from app.tunnel.protocol import Close, Connect
from app.tunnel.queries import Admitted, Denied

PATIENCE_SECONDS = 8.0
"""The agent waits 10 s for ``connected``."""

AWAY = (OperationalError, InterfaceError, PoolTimeout)
"""The database is away, or another transaction was in the way: both pass."""


Refusal = tuple[int, str, str]
"""Close code, error code, words."""


class Refused(Exception):
    """A connect that is not admitted; ``code`` is the WebSocket close code."""

    def __init__(self, code: int, error_code: str, text: str) -> None:
        super().__init__(text)
        self.code, self.error_code = code, error_code


class _Asked:
    """A connect that waits for its batch."""

    def __init__(self, connect: Connect, address: str | None, outdated: Callable[[], bool]) -> None:
        self.connect, self.address, self.outdated = connect, address, outdated
        self.done = threading.Event()
        self.given_up_at = time.monotonic() + PATIENCE_SECONDS
        self.outcome: Admitted | Refusal = _TRY_LATER

    @property
    def given_up(self) -> bool:
        return time.monotonic() >= self.given_up_at

    def settle(self, outcome: Admitted | Refusal) -> None:
        self.outcome = outcome
        self.done.set()


class Admission:
    """Admits devices to the gateway ``gateway``; ``departures`` takes those who were admitted too late to be told."""

    def __init__(self, gateway: str, departures: Batcher[queries.Departure]) -> None:
        self._gateway, self._departures = gateway, departures
        self._batches: Batcher[_Asked] = Batcher(
            "admit",
            self._admit,
            seconds=0.005,
            most=200,
            key=lambda asked: asked.connect.device_id,
            failed=_fail,
            passing=AWAY,
        )

    def ask(self, connect: Connect, address: str | None, outdated: Callable[[], bool]) -> Admitted:
        """Authenticate a connect and take over its device, unless it is ``outdated`` by then. Raises Refused."""
        asked = _Asked(connect, address, outdated)
        self._batches.add(asked)
        asked.done.wait(PATIENCE_SECONDS)
        outcome, asked.given_up_at = asked.outcome, 0.0  # from now on nobody is there to be told
        if isinstance(outcome, Admitted):
            return outcome
        raise Refused(*outcome)

    def _admit(self, batch: list[_Asked]) -> None:
        waiting = [asked for asked in batch if not asked.given_up and not asked.outdated()]
        _fail([asked for asked in batch if asked not in waiting])
        try:
            known = self._take_over(waiting) if waiting else {}
        except queries.Outdated:
            _fail(waiting)
            return
        for asked in waiting:
            outcome = known.get(asked.connect.device_id)
            if not isinstance(outcome, Admitted):
                asked.settle(_REFUSALS[outcome])
            elif asked.given_up:
                self._departures.add((outcome.device_id, outcome.epoch, "admitted too late"))
            else:
                asked.settle(outcome)

    def _take_over(self, waiting: list[_Asked]) -> dict[UUID, Admitted | Denied]:
        def outdated() -> bool:
            return any(asked.outdated() for asked in waiting)

        return queries.admit(self._gateway, [(asked.connect, asked.address) for asked in waiting], outdated)


def _fail(batch: list[_Asked], _error: Exception | None = None) -> None:
    for asked in batch:
        asked.settle(_TRY_LATER)


_TRY_LATER = (Close.TRY_LATER, "SERVICE_UNAVAILABLE", "try again later")
_REFUSALS = {
    None: (Close.BAD_CREDENTIALS, "UNAUTHORIZED", "unknown device or key"),
    Denied.DISABLED: (Close.DISABLED, "DEVICE_DISABLED", "the device is disabled"),
    Denied.REPLACED: (Close.REPLACED, "REPLACED", "replaced by a newer connection"),
}
