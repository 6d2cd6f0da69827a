"""Life signs of one connection: pings of ours, and the end of a link whose other side has fallen silent."""

import asyncio
import contextlib
import logging
import random

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from agent import protocol
from agent.settings import Settings

log = logging.getLogger("agent.device")


class Heartbeat:
    """Every `heartbeat_interval` of the settings, or else as often as the cloud wants, or every `interval` seconds."""

    def __init__(self, name: str, settings: Settings, interval: float, rng: random.Random) -> None:
        self._name, self._settings, self._interval, self._rng = name, settings, interval, rng
        self._changed = asyncio.Event()
        self._heard = 0.0

    def changed(self) -> None:
        """The settings have: what was waited for may be too long."""
        self._changed.set()

    def heard(self) -> None:
        """A frame has come."""
        self._heard = asyncio.get_running_loop().time()

    async def beat(self, socket: ClientConnection, interval: float) -> None:
        """Heartbeats, the first at a random moment so that a fleet's do not come at once; silence ends the link."""
        self._interval = interval
        self.heard()
        loop, wait = asyncio.get_running_loop(), self._rng.uniform(0.3, 1.0) * self._seconds()
        while True:
            with contextlib.suppress(TimeoutError):  # the wait's ordinary end
                await asyncio.wait_for(self._changed.wait(), wait)
            self._changed.clear()
            wait = self._seconds()
            if loop.time() - self._heard > 2 * wait + 10:
                log.warning("%s: the cloud has been silent for %.0f s", self._name, loop.time() - self._heard)
                socket.transport.abort()
                return
            try:
                await socket.send(protocol.ping())
            except ConnectionClosed:
                return  # whoever reads from it sees that, too

    def _seconds(self) -> float:
        return float(self._settings.get("heartbeat_interval") or self._interval)
