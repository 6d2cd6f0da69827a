"""For the tests of the editor's streams: local servers, good and ill, and the cloud's end of the tunnel."""

import asyncio
import contextlib
import json
import uuid
from base64 import b64decode, b64encode
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from agent.drivers.simulated import Behaviour, SimulatedDriver
from tests.agent.cloud import Cloud, Link
from tests.agent.support import device_on

WINDOW = 256 * 1024
Serve = Callable[["Asked", asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Asked:
    """A request as it reached the local server: its first line and its headers, as they were written."""

    line: str
    headers: list[tuple[str, str]]

    def get(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key.lower() == name.lower()]


@dataclass
class LocalServer:
    """A real server on loopback; `serve` does as it likes once the head has come."""

    serve: Serve
    asked: list[Asked] = field(default_factory=list)
    open: int = 0
    url: str = ""
    tasks: set[Any] = field(default_factory=set)

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open += 1
        self.tasks.add(asyncio.current_task())
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            line, *rest = head.decode("latin-1").split("\r\n")
            pairs = [(key, value.strip()) for key, _, value in (text.partition(":") for text in rest if text)]
            self.asked.append(Asked(line, pairs))
            await self.serve(self.asked[-1], reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            return
        finally:
            self.open -= 1
            self.tasks.discard(asyncio.current_task())
            writer.close()


@asynccontextmanager
async def local_server(serve: Serve | bytes) -> AsyncIterator[LocalServer]:
    """A server that does as `serve` says, or writes these bytes and closes."""
    server = LocalServer(serve if callable(serve) else writing(serve))
    listening = await asyncio.start_server(server.handle, "127.0.0.1", 0)
    server.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    try:
        yield server
    finally:
        listening.close()
        for task in server.tasks:
            task.cancel()


def writing(data: bytes, linger: float = 0) -> Serve:
    """Write `data` and close after `linger` seconds."""

    async def serve(asked: Asked, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        await writer.drain()
        await asyncio.sleep(linger)

    return serve


@dataclass
class Flow:
    """One stream, seen from the cloud."""

    id: str
    head: dict[str, Any] | None = None
    waits: int = 0
    """How often the device has said that the local server has yet to answer."""
    data: bytearray = field(default_factory=bytearray)
    chunks: int = 0
    received: int = 0
    ended: bool = False
    cancel: dict[str, Any] | None = None
    granted: int = 0
    """Bytes that the device has credited to the cloud."""

    @property
    def over(self) -> bool:
        return self.ended or self.cancel is not None

    def header(self, name: str) -> list[str]:
        return [value for key, value in (self.head or {})["headers"] if key.lower() == name.lower()]


class Far:
    """The cloud's end: opens streams, credits what has come unless `credits` is off, keeps bodies if `keeps`; after
    each chunk it reads nothing for `pause` seconds."""

    def __init__(self, link: Link) -> None:
        self.link, self.flows = link, dict[str, Flow]()
        self.credits, self.keeps, self.pause = True, True, 0.0
        self.order: list[str] = []
        """The streams' ids in the order in which their chunks came."""
        self._take = link.take
        self._changed = asyncio.Event()
        link.take = self.take  # type: ignore[method-assign]

    async def take(self, text: str) -> dict[str, Any]:
        frame = json.loads(text)
        flow = self.flows.get(frame.get("id"))
        if flow is None:
            return await self._take(text)
        if frame["type"] == "chunk":
            self._chunk(flow, frame)
            if self.pause:
                await asyncio.sleep(self.pause)
        elif frame["type"] == "http_response":
            assert flow.head is None
            if frame["status"] == 102:
                flow.waits += 1
            else:
                flow.head = frame
        elif frame["type"] == "credit":
            flow.granted += frame["bytes"]
        elif frame["type"] == "cancel":
            flow.cancel = frame
        self._changed.set()
        return frame

    def _chunk(self, flow: Flow, frame: dict[str, Any]) -> None:
        assert not flow.over, "a chunk after the end"
        data = b64decode(frame["data"], validate=True)
        assert len(data) <= 32 * 1024
        self.order.append(flow.id)
        flow.chunks += 1
        flow.received += len(data)
        flow.ended = frame.get("end", False)
        if self.keeps:
            flow.data += data
        if data and self.credits:
            self.credit(flow, len(data))

    def open(self, method: str = "GET", target: str = "/", headers: Any = (), **more: Any) -> Flow:
        flow = Flow(more.pop("id", None) or str(uuid.uuid4()))
        self.flows[flow.id] = flow
        frame = {"type": "http_request", "id": flow.id, "method": method, "target": target, "headers": headers}
        self.link.send({**frame, "body": False, "upgrade": False, "window": WINDOW, **more})
        return flow

    def credit(self, flow: Flow, count: Any) -> None:
        self.link.send({"type": "credit", "id": flow.id, "bytes": count})

    def chunk(self, flow: Flow, data: bytes, end: bool = False) -> None:
        frame = {"type": "chunk", "id": flow.id, "data": b64encode(data).decode()}
        self.link.send({**frame, "end": True} if end else frame)

    def cancel(self, flow: Flow) -> None:
        self.link.send({"type": "cancel", "id": flow.id, "code": "CLOSED", "error": "the browser has gone"})

    async def upload(self, flow: Flow, data: bytes) -> None:
        """Send a body as the window allows."""
        for start in range(0, len(data), 32768):
            piece = data[start : start + 32768]
            await self.until(lambda: start + len(piece) - flow.granted <= WINDOW)  # noqa: B023
            self.chunk(flow, piece, start + 32768 >= len(data))

    async def over(self, flow: Flow, seconds: float = 5) -> Flow:
        await self.until(lambda: flow.over, seconds)
        return flow

    async def until(self, condition: Callable[[], Any], seconds: float = 5) -> None:
        """Return once a frame has made `condition` true."""
        async with asyncio.timeout(seconds):
            while not condition():
                self._changed.clear()
                await self._changed.wait()

    async def fetch(self, *arguments: Any, **more: Any) -> Flow:
        """Open a stream and wait for its end."""
        return await self.over(self.open(*arguments, **more))


class EditorDriver(SimulatedDriver):
    """A simulated runtime with an editor."""

    def __init__(self, url: str | None) -> None:
        super().__init__("edited", Behaviour())
        self.editor_url = url


@asynccontextmanager
async def edited(url: str | None, cloud: Cloud | None = None, **more: Any) -> AsyncIterator[Far]:
    """A device whose editor is at `url`, and the cloud's end of its tunnel; `far.device` is the device."""
    async with contextlib.AsyncExitStack() as stack:
        cloud = cloud or await stack.enter_async_context(Cloud())
        nth = len(cloud.history) + 1
        device = await stack.enter_async_context(device_on(cloud, EditorDriver(url), **more))
        far = Far(await cloud.link(nth=nth))
        far.device, far.cloud = device, cloud  # type: ignore[attr-defined]
        yield far


def run(work: Callable[[], Awaitable[None]], seconds: float = 20) -> None:
    """Run an async test."""

    async def limited() -> None:
        async with asyncio.timeout(seconds):
            await work()

    asyncio.run(limited())
