"""Real time and test clocks: both bring about what is due."""

import logging
import time

import gevent

from tools.local_stripe.account import Account
from tools.local_stripe.billing import engine
from tools.local_stripe.store import Obj

log = logging.getLogger(__name__)
_KIND = "test_helpers.test_clock"


def finish_advancing(account: Account, clock: Obj) -> None:
    """All that happens up to the clock's new time; then it is ready."""
    target = clock["frozen_time"]
    engine.run(account, clock["id"], target)
    clock = account.get(_KIND, clock["id"])
    clock.update(status="ready", status_details={}, _now=target)
    account.save(clock)
    account.emit("test_helpers.test_clock.ready", clock)
    account.store.commit()


class Ticker:
    """Looks each second for what real time brings, and oftener for clocks that are being advanced.

    Their state is in the store: an advance that a kill cut short goes on after the restart.
    """

    def __init__(self, account: Account, pause: float = 0.05) -> None:
        self._account, self._pause = account, pause
        self._next = self._tidy = 0.0

    def run(self) -> None:
        while True:
            try:
                self._look()
            except Exception:
                self._account.store.rollback()
                log.exception("what was due could not be done")
            gevent.sleep(self._pause)

    def _look(self) -> None:
        for id in self._account.store.advancing():
            finish_advancing(self._account, self._account.get(_KIND, id))
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + 1
            engine.run(self._account, None, self._account.now())
        if time.monotonic() >= self._tidy:
            self._tidy = time.monotonic() + 3_600
            self._account.store.tidy(time.time())
