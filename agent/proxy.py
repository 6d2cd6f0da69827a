"""The editor's streams of one tunnel connection: frames in, streams kept, all of them gone with the connection."""

import asyncio
import base64
import binascii
import logging

from websockets.asyncio.client import ClientConnection

from agent import protocol
from agent.outbox import ChunkLane
from agent.protocol import Frame, FrameError
from agent.proxy_http import WINDOW, StreamError, order_of
from agent.proxy_local import Editor
from agent.proxy_stream import MAX_CHUNK, Stream

log = logging.getLogger("agent.proxy")

FRAMES = frozenset(("http_request", "chunk", "credit", "cancel"))
MAX_STREAMS = 64
MIN_SHARE = 96 * 1024
"""More than the steps in which the cloud credits (64 KiB): a stream must not wait for a credit that waits for it."""
QUIET_SECONDS = 1.0
"""After a command; the next is likely to come soon."""
MAX_ID = 100
MAX_DATA = (MAX_CHUNK + 2) // 3 * 4


class Proxy:
    """`take` the cloud's frames, `close` at the end of the connection or when the editor is another one."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket, self._lane = socket, ChunkLane(socket)
        self._streams: dict[str, Stream] = {}
        self._tasks: dict[Stream, asyncio.Task[None]] = {}
        self._commanded = float("-inf")

    @property
    def active(self) -> int:
        """How many streams there are."""
        return len(self._streams)

    @property
    def share(self) -> int:
        """Bytes that a stream may have under way at present, whatever its window.

        What is under way stands in line at the cloud before the next answer: so several streams share the window of
        one, and each has little while commands are coming.
        """
        if asyncio.get_running_loop().time() < self._commanded + QUIET_SECONDS:
            return MIN_SHARE
        return max(MIN_SHARE, WINDOW // max(1, len(self._streams)))

    def commanded(self) -> None:
        """A command has come: its answer shall not stand behind much."""
        self._commanded = asyncio.get_running_loop().time()

    async def send(self, frame: str) -> None:
        """Send at once; raises ConnectionClosed."""
        await self._socket.send(frame)

    async def send_chunk(self, frame: str) -> None:
        """Send in turn with the other streams; raises ConnectionClosed."""
        await self._lane.send(frame)

    async def take(self, frame: Frame, editor: Editor | None) -> None:
        """One frame of FRAMES; `editor`: where a new stream leads. Raises FrameError, ConnectionClosed.

        What is wrong with a stream ends that stream. A frame of an unknown stream is late, and nothing is wrong.
        """
        stream_id = frame.get("id")
        if not isinstance(stream_id, str) or not 0 < len(stream_id) <= MAX_ID:
            raise FrameError(f"{frame['type']} without an id")
        stream = self._streams.get(stream_id)
        try:
            if frame["type"] == "http_request":
                self._open(stream_id, frame, editor)
            elif stream is None:
                log.debug("a %s of the unknown stream %s", frame["type"], stream_id)
            elif frame["type"] == "chunk":
                stream.chunk(*_chunk_of(frame))
            elif frame["type"] == "credit":
                stream.credit(frame.get("bytes"))
            else:
                self._end(stream)
        except StreamError as error:
            if stream is not None:
                self._end(stream)
            await self.send(protocol.cancel(stream_id, error.code, str(error)))

    async def close(self, code: str = "", text: str = "") -> None:
        """End every stream and its local connection; with a code the cloud is told. Raises ConnectionClosed."""
        ended, tasks = list(self._streams), list(self._tasks.values())
        self._streams.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for stream_id in ended if code else ():
            await self.send(protocol.cancel(stream_id, code, text))

    def _open(self, stream_id: str, frame: Frame, editor: Editor | None) -> None:
        if stream_id in self._streams:
            raise StreamError("PROTOCOL", "the id is another stream's")
        if editor is None:
            raise StreamError("REFUSED", "this device has no editor")
        # Those that are ending count too, lest a cloud that opens and cancels in a hurry gets ahead of them.
        if len(self._tasks) >= MAX_STREAMS:
            raise StreamError("BUSY", f"more than {MAX_STREAMS} streams")
        stream = Stream(stream_id, order_of(frame), editor, self)
        self._streams[stream_id] = stream
        task = self._tasks[stream] = asyncio.create_task(stream.run())
        task.add_done_callback(lambda _: self._forget(stream))

    def _end(self, stream: Stream) -> None:
        self._tasks[stream].cancel()
        self._streams.pop(stream.id)

    def _forget(self, stream: Stream) -> None:
        self._tasks.pop(stream)
        if self._streams.get(stream.id) is stream:
            self._streams.pop(stream.id)


def _chunk_of(frame: Frame) -> tuple[bytes, bool]:
    """The bytes of a `chunk` frame and whether they are the last; raises StreamError."""
    data, end = frame.get("data"), frame.get("end", False)
    if not isinstance(data, str) or not isinstance(end, bool):
        raise StreamError("PROTOCOL", "a chunk without data")
    if len(data) > MAX_DATA:
        raise StreamError("PROTOCOL", f"a chunk of more than {MAX_CHUNK} bytes")
    return _decoded(data), end


def _decoded(data: str) -> bytes:
    try:
        decoded = base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError) as error:
        raise StreamError("PROTOCOL", "a chunk that is not base64") from error
    if len(decoded) > MAX_CHUNK:
        raise StreamError("PROTOCOL", f"a chunk of more than {MAX_CHUNK} bytes")
    return decoded
