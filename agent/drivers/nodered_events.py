"""What Node-RED tells its editors over its /comms WebSocket: what was deployed, debug messages, uncaught errors."""

import asyncio
import json
import logging
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException

log = logging.getLogger("agent.driver")

RETRY_SECONDS = 1.0
ERROR_LEVEL = 20
"""Node-RED's log levels: an error 20, a warning 30; what a debug node shows has none."""


class CommsError(Exception):
    """Node-RED does not let the agent listen."""


class NodeRedEvents:
    """Listens for as long as it is open: `hear(data)` for each debug message and error, `stopped()` when a deployment
    has ended the old nodes and the new ones do not exist yet."""

    def __init__(
        self,
        url: str,
        token: Callable[[], str | None],
        hear: Callable[[dict[str, Any]], None],
        stopped: Callable[[], None],
    ) -> None:
        parts = urlsplit(url)
        scheme = "wss" if parts.scheme == "https" else "ws"
        self._url = urlunsplit((scheme, parts.netloc, f"{parts.path.rstrip('/')}/comms", "", ""))
        self._token, self._hear, self._stopped = token, hear, stopped
        self._task: asyncio.Task[None] | None = None
        self._changed = asyncio.Condition()
        self.connected = False
        self.missing: str | None = "not connected yet"
        """Why nothing is heard; None while connected."""
        self.drops = 0
        """How often the connection broke: on one machine that is Node-RED ending."""
        self.state: dict[str, Any] = {}
        """The newest state of its flows: `{"state", "error"?, "types"?, "modules"?}`."""
        self._deployed: set[str] = set()

    def open(self) -> None:
        """Begin to listen."""
        self._task = asyncio.create_task(self._listen())

    async def close(self) -> None:
        """Listen no more."""
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def expect(self) -> None:
        """Forget which revisions were deployed, before another one is sent."""
        self._deployed = set()

    async def deployed(self, rev: str) -> bool:
        """Return once the flows of a revision have been started, or are known not to; False when nobody can tell."""
        async with self._changed:
            await self._changed.wait_for(lambda: rev in self._deployed or not self.connected)
        return rev in self._deployed

    async def ready(self, seconds: float) -> bool:
        """Whether it is connected within so many seconds."""
        try:
            async with asyncio.timeout(seconds), self._changed:
                await self._changed.wait_for(lambda: self.connected)
        except TimeoutError:
            return False
        return True

    async def _listen(self) -> None:
        while True:
            try:
                await self._follow()
            except (OSError, WebSocketException, CommsError, ValueError) as error:
                await self._set(False, str(error) or type(error).__name__)
            await asyncio.sleep(RETRY_SECONDS)

    async def _follow(self) -> None:
        async with connect(self._url, proxy=None, open_timeout=10, max_size=16 * 1024 * 1024) as socket:
            token = self._token()
            if token:
                await self._authenticate(socket, token)
            await socket.send(json.dumps({"subscribe": "notification/#"}))
            self.state = {}
            await self._set(True, None)
            try:
                async for frame in socket:
                    await self._take(json.loads(frame))
            finally:
                self.drops += 1
        raise CommsError("Node-RED has closed the connection")

    async def _authenticate(self, socket: ClientConnection, token: str) -> None:
        await socket.send(json.dumps({"auth": token}))
        async with asyncio.timeout(10):
            answer = json.loads(await socket.recv())
        if not isinstance(answer, dict) or answer.get("auth") != "ok":
            raise CommsError("Node-RED refuses the access token")

    async def _set(self, connected: bool, missing: str | None) -> None:
        if missing and missing != self.missing:
            log.warning("Node-RED's events cannot be heard: %s", missing)
        async with self._changed:
            self.connected, self.missing = connected, missing
            self._changed.notify_all()

    async def _take(self, frame: Any) -> None:
        for event in frame if isinstance(frame, list) else [frame]:
            topic, data = (event.get("topic"), event.get("data")) if isinstance(event, dict) else (None, None)
            if topic == "debug" and isinstance(data, dict):
                self._hear(data)
            elif topic == "notification/runtime-state":
                self.state = data if isinstance(data, dict) else {}
                if self.state.get("state") == "stop" and self.state.get("deploy"):
                    self._stopped()
            elif topic == "notification/runtime-deploy" and isinstance(data, dict):
                async with self._changed:
                    self._deployed.add(str(data.get("revision")))
                    self._changed.notify_all()


def text_of(data: dict[str, Any]) -> str:
    """What a debug message shows, as one line."""
    shown = data.get("msg")
    if data.get("format") == "error" and isinstance(shown, str):
        shown = _message(shown)
    text = shown if isinstance(shown, str) else json.dumps(shown, ensure_ascii=False)
    return text if len(text) <= 500 else f"{text[:499]}…"


def _message(encoded: str) -> str:
    """An error's text; it travels as JSON: `{"data": {"name", "message", "stack"}, …}`."""
    try:
        told = json.loads(encoded)["data"]
        return f"{told['name']}: {told['message']}"
    except (ValueError, TypeError, KeyError):
        return encoded
