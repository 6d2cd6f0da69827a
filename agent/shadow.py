"""The device's side of the shadow: read what is desired, take it over, report it, and what runs along with it."""

import asyncio
import logging
import random
from collections.abc import Callable
from typing import Any

from agent import __version__
from agent.credentials import Credentials
from agent.drivers.base import Driver, JsonObject
from agent.protocol import now
from agent.report import Reports
from agent.rest import Rest, RestError, Retry, retrying
from agent.settings import Settings

log = logging.getLogger("agent.shadow")

COALESCE = 0.05
UNFIT = frozenset({400, 413})
"""Statuses of a report that the cloud will never take."""


def merge(into: JsonObject, patch: JsonObject) -> JsonObject:
    """Two merge patches as one (RFC 7396): the later one's nulls still delete."""
    merged = dict(into)
    for key, value in patch.items():
        old = merged.get(key)
        merged[key] = merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


class ShadowSync:
    """Gathers what is to be reported and sends it by one task, so that ten pushes make one PUT.

    What runs is looked at anew for each of them: it goes with the first PUT of a connection, and with later ones when
    it has changed. `missed` is called when a report was given up, to have it tried again some time.
    """

    def __init__(
        self, rest: Rest, credentials: Credentials, driver: Driver, settings: Settings, rng: random.Random
    ) -> None:
        self._rest, self._driver, self._settings, self._rng = rest, driver, settings, rng
        self.credentials = credentials
        self.retry = Retry()
        self.missed: Callable[[], None] = lambda: None
        self._reports = Reports(driver)
        self._pending: JsonObject = {}
        self._refresh = self._look = False
        self._task: asyncio.Task[None] | None = None

    def connected(self) -> None:
        """Read the shadow and report being online, as the first thing on a new connection."""
        self._refresh = True
        self._report({"online": True, "agent_version": __version__, "last_updated": now()})

    def pushed(self, delta: Any) -> None:
        """Take over the delta that the cloud has pushed."""
        if isinstance(delta, dict) and delta:
            self._take_over(delta)

    def look(self) -> None:
        """What runs may be another now: report it, if it is."""
        self._look = True
        self._report({})

    async def read(self) -> JsonObject:
        """The document; raises RestError."""
        return await self._rest.shadow(self.credentials.device_id, self.credentials.api_key)

    async def reread(self) -> JsonObject:
        """Take over what the cloud has now; the delta that was found. Raises RestError."""
        document = await self.read()
        self._reports.known(document.get("reported"))
        delta = document.get("delta")
        self.pushed(delta)
        return delta if isinstance(delta, dict) else {}

    async def stop(self) -> None:
        """Drop what is not reported yet: the next connection tells it again."""
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def _take_over(self, delta: JsonObject) -> None:
        try:
            understood = self._settings.understood(delta)
        except OSError as error:
            log.warning("settings cannot be stored: %s", error)
            return
        taken = delta if self._driver.echoes_desired else understood
        if taken:
            self._report({**taken, "last_updated": now()})

    def _report(self, reported: JsonObject) -> None:
        self._pending = merge(self._pending, reported)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._send())

    async def _send(self) -> None:
        while self._pending or self._refresh or self._look:
            await asyncio.sleep(COALESCE)
            try:
                await self._send_once()
            except RestError as error:
                log.warning("device %s: the shadow is not reported: %s", self.credentials.device_id, error)
                self.missed()
                return

    async def _send_once(self) -> None:
        if self._refresh:
            await retrying(self.reread, self.retry, self._rng, "reading the shadow")
            self._refresh = False
        self._look = False
        sending, self._pending = self._pending, {}
        patch = await self._reports.patch()
        if not sending and not patch:
            return
        try:
            await self._put_both(sending, patch)
        except BaseException:
            # What came meanwhile is newer than what was not delivered.
            self._pending = merge(sending, self._pending)
            raise

    async def _put_both(self, reported: JsonObject, running: JsonObject) -> None:
        """Report; if the cloud does not take what runs, at least the rest."""
        try:
            await retrying(lambda: self._put({**reported, **running}), self.retry, self._rng, "reporting")
        except RestError as error:
            if error.status not in UNFIT or not running:
                raise
            log.warning("device %s: what runs is not reported: %s", self.credentials.device_id, error)
            self._reports.refused(running)
            if reported:
                await retrying(lambda: self._put(reported), self.retry, self._rng, "reporting")

    async def _put(self, reported: JsonObject) -> JsonObject:
        document = await self._rest.report(self.credentials.device_id, self.credentials.api_key, reported)
        self._reports.known(document.get("reported"))
        return document
