"""One stream of the editor: a request to the local server, its answer, and the bytes both ways within their windows."""

import asyncio
import logging
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator, Coroutine
from typing import Any, Protocol

import h11
from websockets.exceptions import ConnectionClosed

from agent import protocol
from agent.hosts import ForbiddenHost
from agent.proxy_http import MAX_HEAD, WINDOW, Header, Order, StreamError, answer_of, is_count, request_of
from agent.proxy_local import READ, Editor

log = logging.getLogger("agent.proxy")

MAX_CHUNK = 32 * 1024
CREDIT_STEP = 16 * 1024
"""Bytes taken before they are credited: so few that a sender with a small share of the window never waits for it."""
MAX_INFORMATIONAL = 16

CONNECT_SECONDS = 10.0
IDLE_SECONDS = 120.0
TELL_SECONDS = 10.0
"""Between two signs that the answer's head is still awaited: without any for 30 s, the cloud gives the stream up."""


class Link(Protocol):
    """The tunnel, seen from a stream. What sends raises ConnectionClosed."""

    @property
    def share(self) -> int:
        """Bytes that a stream may have under way at present, whatever its window."""

    async def send(self, frame: str) -> None:
        """Send at once."""

    async def send_chunk(self, frame: str) -> None:
        """Send in turn with the other streams."""


class Stream:
    """`run` until it is over; meanwhile `chunk` and `credit` hand over what the cloud sends, without waiting."""

    def __init__(self, stream_id: str, order: Order, editor: Editor, link: Link) -> None:
        self.id, self._order, self._editor, self._link = stream_id, order, editor, link
        self._inbound = bytearray()
        self._ended = not (order.body or order.upgrade)
        self._uncredited, self._taken, self._window = 0, 0, order.window
        self._arrived, self._credited = asyncio.Event(), asyncio.Event()
        self._wire = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD)
        self._clock = asyncio.timeout(CONNECT_SECONDS)
        self._patience: float | None = IDLE_SECONDS if order.body else editor.head_seconds

    # From the cloud

    def chunk(self, data: bytes, end: bool) -> None:
        """Bytes for the local server; raises StreamError when they may not come."""
        if self._ended:
            raise StreamError("PROTOCOL", "a chunk after the last")
        if self._uncredited + len(data) > WINDOW:
            raise StreamError("PROTOCOL", "more bytes than were credited")
        self._uncredited += len(data)
        self._ended = end
        self._inbound += data
        self._arrived.set()

    def credit(self, count: Any) -> None:
        """The cloud has taken so many bytes; raises StreamError for more than it was sent."""
        if not is_count(count) or self._window + count > self._order.window:
            raise StreamError("PROTOCOL", "credit for bytes that were not sent")
        self._window += count
        self._credited.set()

    # The work

    async def run(self) -> None:
        """Serve the stream to its end; a failure is told by a `cancel`. Raises nothing but CancelledError."""
        try:
            try:
                await self._serve()
            except StreamError as error:
                await self._link.send(protocol.cancel(self.id, error.code, str(error)))
        except ConnectionClosed:
            return  # nobody is left to be told

    async def _serve(self) -> None:
        """The stream with every failure as a StreamError, but the tunnel's own end."""
        connected = False
        try:
            async with self._clock:
                reader, writer = await self._editor.connect()
                connected = True
                await self._use(reader, writer)
        except (StreamError, ConnectionClosed):
            raise
        except ForbiddenHost as error:
            raise StreamError("REFUSED", str(error)) from error
        except TimeoutError as error:
            raise StreamError("TIMEOUT", "the local server does not answer in time") from error
        except OSError as error:
            raise StreamError("CLOSED" if connected else "UNREACHABLE", f"the local server: {error}") from error
        except h11.LocalProtocolError as error:
            raise StreamError("PROTOCOL", f"no request that HTTP allows: {error}") from error
        except Exception as error:  # one stream's accident must end neither the tunnel nor in silence
            log.exception("stream %s", self.id)
            raise StreamError("PROTOCOL", f"internal error: {type(error).__name__}") from error

    async def _use(self, reader: StreamReader, writer: StreamWriter) -> None:
        try:
            await self._exchange(reader, writer)
        except BaseException:
            writer.transport.abort()
            raise
        writer.close()

    async def _exchange(self, reader: StreamReader, writer: StreamWriter) -> None:
        self._progress()
        writer.write(self._wire.send(request_of(self._order, self._editor.target)) or b"")
        if not self._order.body:
            writer.write(self._wire.send(h11.EndOfMessage()) or b"")
            await self._answer(reader, writer)
            return
        async with _Beside(self._upload(writer)) as upload:
            await upload.during(self._answer(reader, writer))

    async def _answer(self, reader: StreamReader, writer: StreamWriter) -> None:
        response = await self._head(reader)
        headers: list[Header] = answer_of(response, self._editor.target, self._order)
        switched = response.status_code == 101
        self._patience = None if switched else IDLE_SECONDS
        self._progress()
        await self._link.send(protocol.http_response(self.id, response.status_code, headers, WINDOW))
        if switched:
            async with _Beside(self._raw_upload(writer)) as upload:
                await upload.first(self._raw_download(reader))
        else:
            await self._download(reader)

    async def _head(self, reader: StreamReader) -> h11.Response | h11.InformationalResponse:
        """The answer's head, after those that only say that there will be one. It is no progress if it dribbles."""
        informational = 0
        while informational <= MAX_INFORMATIONAL:
            event = self._parsed()
            if event is h11.NEED_DATA:
                self._wire.receive_data(await self._more_of_head(reader))
            elif isinstance(event, h11.Response):
                return event
            elif isinstance(event, h11.InformationalResponse):
                if event.status_code == 101:
                    return self._upgraded(event)
                informational += 1
            else:
                raise StreamError("CLOSED", "the local server closed without an answer")
        raise StreamError("PROTOCOL", "the local server never comes to its answer")

    async def _more_of_head(self, reader: StreamReader) -> bytes:
        """What comes next; while nothing does, the cloud is told that the local server has the request."""
        reading = asyncio.ensure_future(reader.read(READ))
        try:
            while not (await asyncio.wait((reading,), timeout=TELL_SECONDS))[0]:
                if self._wire.our_state is not h11.SEND_BODY:
                    await self._link.send(protocol.http_response(self.id, 102, [], WINDOW))
            return reading.result()
        finally:
            reading.cancel()

    def _upgraded(self, event: h11.InformationalResponse) -> h11.InformationalResponse:
        if (b"upgrade", b"websocket") not in [(name, value.lower()) for name, value in event.headers]:
            raise StreamError("PROTOCOL", "the local server switches to something that is no WebSocket")
        return event

    def _parsed(self) -> Any:
        """h11's next event; raises StreamError for what is no HTTP."""
        try:
            return self._wire.next_event()
        except h11.RemoteProtocolError as error:
            closed, large = self._wire.trailing_data[1], error.error_status_hint == 431
            code = "TOO_LARGE" if large else "CLOSED" if closed else "PROTOCOL"
            raise StreamError(code, f"the local server: {error}") from error

    # Bytes to the cloud

    async def _download(self, reader: StreamReader) -> None:
        """The body; the many small parts of a chunked one leave together as far as they came together."""
        gathered = bytearray()
        while True:
            event = self._parsed()
            if isinstance(event, h11.Data):
                gathered += event.data
            elif event is not h11.NEED_DATA:
                await self._give(bytes(gathered), end=True)
                return
            elif gathered:
                await self._give(bytes(gathered), end=False)
                gathered.clear()
            else:
                self._wire.receive_data(await reader.read(READ))
                self._progress()

    async def _raw_download(self, reader: StreamReader) -> None:
        data = self._wire.trailing_data[0]
        if data:
            await self._give(data, end=False)
        while data := await reader.read(READ):
            await self._give(data, end=False)
        await self._give(b"", end=True)

    async def _give(self, data: bytes, end: bool) -> None:
        """Send `data` as the window allows."""
        while data or end:
            piece = data[: max(0, min(MAX_CHUNK, self._room()))]
            if data and not piece:
                self._credited.clear()
                await self._credited.wait()
                continue
            data = data[len(piece) :]
            self._window -= len(piece)
            await self._link.send_chunk(protocol.chunk(self.id, piece, end and not data))
            self._progress()
            end = end and bool(data)

    def _room(self) -> int:
        return min(self._window, self._link.share - (self._order.window - self._window))

    # Bytes to the local server

    async def _upload(self, writer: StreamWriter) -> None:
        """The request's body. A server that does not want it may still have an answer, so that is no failure."""
        try:
            async for data in self._pieces():
                writer.write(self._wire.send(h11.Data(data=data)) or b"")
                await self._drained(writer, len(data))
            writer.write(self._wire.send(h11.EndOfMessage()) or b"")
            await writer.drain()
        except OSError as error:
            log.debug("stream %s: the body is not wanted: %s", self.id, error)
        if self._patience is not None and self._wire.their_state is h11.SEND_RESPONSE:
            self._patience = self._editor.head_seconds
            self._progress()

    async def _raw_upload(self, writer: StreamWriter) -> None:
        async for data in self._pieces():
            writer.write(data)
            await self._drained(writer, len(data))

    async def _pieces(self) -> AsyncIterator[bytes]:
        while True:
            while self._inbound:
                data = bytes(self._inbound[:MAX_CHUNK])
                del self._inbound[:MAX_CHUNK]
                yield data
            if self._ended:
                return
            self._arrived.clear()
            await self._arrived.wait()

    async def _drained(self, writer: StreamWriter, count: int) -> None:
        await writer.drain()
        self._progress()
        self._taken += count
        if self._taken >= CREDIT_STEP:
            taken, self._taken = self._taken, 0
            self._uncredited -= taken
            await self._link.send(protocol.credit(self.id, taken))

    def _progress(self) -> None:
        if not self._clock.expired():
            patience = self._patience
            self._clock.reschedule(None if patience is None else asyncio.get_running_loop().time() + patience)


class _Beside:
    """A task beside the block, cancelled with it."""

    def __init__(self, work: Coroutine[Any, Any, None]) -> None:
        self._task = asyncio.create_task(work)

    async def __aenter__(self) -> "_Beside":
        return self

    async def __aexit__(self, *error: object) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def during(self, work: Coroutine[Any, Any, None]) -> None:
        """Do `work` to its end unless the task fails first; raises what either raises."""
        await self._race(work, alone=True)

    async def first(self, work: Coroutine[Any, Any, None]) -> None:
        """Do `work` until it or the task ends."""
        await self._race(work, alone=False)

    async def _race(self, work: Coroutine[Any, Any, None], alone: bool) -> None:
        main = asyncio.create_task(work)
        try:
            await asyncio.wait((main, self._task), return_when=asyncio.FIRST_COMPLETED)
            if self._task.done():
                self._task.result()
            if main.done() or alone:
                await main
        finally:
            main.cancel()
            await asyncio.gather(main, return_exceptions=True)
