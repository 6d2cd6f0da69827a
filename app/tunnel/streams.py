"""A stream to a device's editor: the end of the process that has the browser.

Bytes flow within windows: a sender has at most ``WINDOW`` bytes under way that the receiver has not said to have taken.
So what waits anywhere is bounded by that, however slow the browser or the device is.
"""

import binascii
import threading
import time
from base64 import b64decode
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from app.tunnel import protocol
from app.tunnel.protocol import CHUNK_BYTES, STILL_WAITING, WINDOW_BYTES, Frame

CREDIT_BYTES = WINDOW_BYTES // 4  # what was taken is told in pieces of this size, or each read would be a frame
MAX_HEADERS, HEADERS_BYTES = 100, 32 * 1024


class StreamFailed(Exception):
    """The stream ended before its end. ``code``: one of ``cancel``'s, or ``OFFLINE``: the device was not reached."""

    def __init__(self, code: str, error: str) -> None:
        super().__init__(error)
        self.code = code


class NothingYet(StreamFailed):
    """Not there in time; the stream itself goes on."""

    def __init__(self) -> None:
        super().__init__("TIMEOUT", "the device did not answer in time")


@dataclass(frozen=True)
class Head:
    """What the device's editor answers before its body."""

    status: int
    headers: list[tuple[str, str]]


class Stream:
    """One request and its answer, or one WebSocket. ``take`` is called by whoever receives, the rest by the caller.

    ``post`` hands a frame on towards the device; ``forget`` is called once, when no more frames are expected.
    """

    def __init__(
        self, stream_id: str, request: Frame, post: Callable[[Frame], None], forget: Callable[["Stream"], None]
    ) -> None:
        self.id = stream_id
        self.moved_at = time.monotonic()
        """When a byte last moved, in either direction, or the device said that its editor has yet to answer."""
        self.bytes_in = self.bytes_out = 0
        self._post, self._forget = post, forget
        self._changed = threading.Condition()
        self._head: Head | None = None
        self._inbox: deque[bytes] = deque()
        self._inbox_bytes = self._lent = self._taken = 0
        self._may_send = WINDOW_BYTES
        self._received_all, self._sent_all = False, not request["body"]
        self._upgraded = self._over = False
        self._failure: StreamFailed | None = None

    # Towards the browser.

    def take(self, frame: Frame) -> None:
        """A frame from the device. A malformed one ends the stream."""
        try:
            with self._changed:
                if not self._over:
                    _TAKE[frame["type"]](self, frame)
                    self._changed.notify_all()
        except (KeyError, TypeError, ValueError, binascii.Error) as error:
            self.cancel("PROTOCOL", f"malformed frame: {error}")
        self._forget_if_over()

    def head(self, timeout: float) -> Head:
        """The answer's head, awaited for ``timeout`` seconds. Raises StreamFailed."""
        with self._changed:
            self._await(lambda: self._head is not None, timeout)
            assert self._head is not None
            return self._head

    def read(self, timeout: float | None) -> bytes:
        """The next bytes, none at the end; what was read before counts as taken from now on. Raises StreamFailed."""
        self._give_credit()
        with self._changed:
            self._await(lambda: bool(self._inbox) or self._received_all, timeout)
            if not self._inbox:
                return b""
            data = self._inbox.popleft()
            self._inbox_bytes -= len(data)
            self._lent = len(data)
            return data

    # Towards the device.

    def write(self, data: bytes, timeout: float | None = None, *, end: bool = False) -> None:
        """Send bytes as the window allows, waiting up to ``timeout`` seconds for it. Raises StreamFailed."""
        told = bool(data)
        while data:
            part = self._reserve(data, timeout)
            data = data[len(part) :]
            self._post(protocol.chunk(self.id, part, end=end and not data))
        if end:
            self._end_sending(told=told)

    def cancel(self, code: str, error: str) -> None:
        """End the stream now: the device and whoever waits here are told. One that is over stays as it is."""
        with self._changed:
            over, self._over = self._over, True
            self._failure = self._failure or StreamFailed(code, error)
            self._changed.notify_all()
        if not over:
            self._post(protocol.cancel(self.id, code, error))
        self._forget_if_over()

    def fail(self, code: str, error: str) -> None:
        """Whoever waits here is told that the stream is over; the device cannot be."""
        self.take({"type": "cancel", "code": code, "error": error})

    def close(self) -> None:
        """The caller wants no more of it."""
        self.cancel("CLOSED", "the browser has gone")

    def _reserve(self, data: bytes, timeout: float | None) -> bytes:
        with self._changed:
            self._await(lambda: self._may_send > 0, timeout)
            part = data[: min(self._may_send, CHUNK_BYTES)]
            self._may_send -= len(part)
            self.bytes_out += len(part)
            self.moved_at = time.monotonic()
            return part

    def _end_sending(self, *, told: bool) -> None:
        with self._changed:
            if self._sent_all:
                return
            self._sent_all = True
            self._over = self._over or self._received_all or self._upgraded
        if not told:
            self._post(protocol.chunk(self.id, b"", end=True))
        self._forget_if_over()

    def _give_credit(self) -> None:
        with self._changed:
            self._taken += self._lent
            self._lent = 0
            due = self._taken if self._taken >= CREDIT_BYTES and not self._received_all else 0
            self._taken -= due
        if due:
            self._post(protocol.credit(self.id, due))

    def _await(self, there: Callable[[], bool], timeout: float | None) -> None:
        """Wait for something (the lock is held). What came before a failure is still there to be had."""
        if not self._changed.wait_for(lambda: there() or self._failure is not None, timeout):
            raise NothingYet
        if self._failure is not None and not there():
            raise self._failure

    def _forget_if_over(self) -> None:
        if self._over:
            forget, self._forget = self._forget, lambda _stream: None
            forget(self)

    # Frames of the device (the lock is held).

    def _take_head(self, frame: Frame) -> None:
        if self._head is not None:
            raise ValueError("a second head")
        if frame["status"] == STILL_WAITING:
            self.moved_at = time.monotonic()
            return
        self._head = Head(_status(frame["status"]), _headers(frame["headers"]))
        self._upgraded = self._head.status == 101
        self._sent_all = self._sent_all and not self._upgraded

    def _take_chunk(self, frame: Frame) -> None:
        data = b64decode(frame["data"], validate=True)
        self._inbox_bytes += len(data)
        if self._head is None or self._received_all or self._inbox_bytes > WINDOW_BYTES + CHUNK_BYTES:
            raise ValueError("a chunk out of place")
        if data:
            if self._inbox and len(self._inbox[-1]) + len(data) <= CHUNK_BYTES:
                self._inbox[-1] += data  # many small ones would take more room than they have bytes
            else:
                self._inbox.append(data)
            self.bytes_in += len(data)
            self.moved_at = time.monotonic()
        if frame.get("end") is True:
            self._received_all = True
            self._over = self._sent_all or self._upgraded

    def _take_credit(self, frame: Frame) -> None:
        self._may_send += frame["bytes"]
        if frame["bytes"] < 0 or self._may_send > WINDOW_BYTES:
            raise ValueError("credit for what was not sent")

    def _take_cancel(self, frame: Frame) -> None:
        self._failure = self._failure or StreamFailed(str(frame.get("code")), str(frame.get("error"))[:200])
        self._over = True


_TAKE: dict[str, Callable[[Stream, Frame], None]] = {
    "http_response": Stream._take_head,
    "chunk": Stream._take_chunk,
    "credit": Stream._take_credit,
    "cancel": Stream._take_cancel,
}


def _status(status: Any) -> int:
    if type(status) is not int or not (200 <= status <= 599 or status == 101):
        raise ValueError("no status")
    return status


def _headers(given: Any) -> list[tuple[str, str]]:
    headers = [(name, value) for name, value in given]
    if len(headers) > MAX_HEADERS or not all(isinstance(part, str) for pair in headers for part in pair):
        raise ValueError("headers that are none, or too many")
    if sum(len(name) + len(value) for name, value in headers) > HEADERS_BYTES:
        raise ValueError("headers too large")
    return headers
