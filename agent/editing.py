"""The editor beside the agent: whether it is offered to the cloud, and the streams that lead to it."""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from agent.drivers.base import Driver
from agent.hosts import ForbiddenHost
from agent.protocol import Frame
from agent.proxy import Proxy
from agent.proxy_local import Editor, editor_of
from agent.settings import Settings

log = logging.getLogger("agent.device")


class Editing:
    """What is offered is said when a connection begins; `reconnect` makes a new one, where it has changed.

    `timeout`: how long it has to begin an answer, in seconds.
    """

    def __init__(
        self, name: str, settings: Settings, driver: Driver, timeout: float, reconnect: Callable[[], Awaitable[None]]
    ) -> None:
        self._name, self._settings, self._driver, self._reconnect = name, settings, driver, reconnect
        self._timeout = timeout
        self._socket: ClientConnection | None = None
        self._editor: Editor | None = None
        self._offered, self._moves = False, set[asyncio.Task[None]]()
        self.proxy: Proxy | None = None
        """Of the present connection, once a stream was opened."""

    def offer(self) -> bool:
        """Look where the editor is; whether a connection that begins offers one."""
        self._editor = self._present()
        self._offered = self._editor is not None
        return self._offered

    def connected(self, socket: ClientConnection) -> None:
        self._socket = socket

    async def disconnected(self) -> None:
        """End all streams."""
        self._socket = None
        proxy, self.proxy = self.proxy, None
        if proxy:
            await proxy.close()

    def stop(self) -> None:
        for move in self._moves:
            move.cancel()

    async def take(self, frame: Frame) -> None:
        """A frame of a stream."""
        if self.proxy is None and self._socket:
            self.proxy = Proxy(self._socket)
        if self.proxy:
            await self.proxy.take(frame, self._editor)

    def commanded(self) -> None:
        """A command has come: it goes before what streams send."""
        if self.proxy:
            self.proxy.commanded()

    def changed(self) -> None:
        """The settings have, and with them perhaps where the editor is."""
        if self._socket and (editor := self._present()) != self._editor:
            self._editor = editor
            move = asyncio.create_task(self._move(self._socket))
            self._moves.add(move)
            move.add_done_callback(self._moves.discard)

    def _present(self) -> Editor | None:
        try:
            local_url, own_url = self._settings.get("local_url"), self._driver.editor_url
            return editor_of(local_url, own_url, self._settings.hosts, self._timeout)
        except ForbiddenHost as error:
            log.warning("%s: no editor is offered: %s", self._name, error)
            return None

    async def _move(self, socket: ClientConnection) -> None:
        """End the streams that lead to the former editor. What is offered at all is said anew, by a new connection."""
        with contextlib.suppress(ConnectionClosed):  # which ends them as well
            if self.proxy:
                await self.proxy.close("CLOSED", "the editor is another one now")
        if self._offered != (self._editor is not None):
            await asyncio.sleep(1.0)  # so that the answer to the command that changed it still goes the old way
        if socket is self._socket and self._offered != (self._editor is not None):
            await self._reconnect()
