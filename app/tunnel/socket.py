"""One WebSocket, safe to hold thousands of: one reader, one writer, everything bounded.

simple-websocket writes with ``send`` and truncates large frames to slow readers, has no lock around it, buffers input
without limit and always offers compression. Here the handler's own greenlet reads and hands each message on before it
reads the next (TCP is the back-pressure), and a single writer drains a bounded outbox with ``sendall``.
"""

import contextlib
import io
import os
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import structlog
from simple_websocket import Server
from wsproto.connection import ConnectionState
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Event,
    Ping,
    Pong,
    Request,
    TextMessage,
)
from wsproto.utilities import LocalProtocolError, RemoteProtocolError

from app.errors import ValidationFailed
from app.tunnel.pace import Pace
from app.tunnel.protocol import BEFORE_AUTHENTICATION_BYTES, OUTBOX_BYTES, OUTBOX_FRAMES, Close
from config.sockets import send_all, wait_for_data

log = structlog.get_logger(__name__)

RECEIVE_BYTES = 16 * 1024
MESSAGES_BEFORE_YIELD = 16
CLOSE_SECONDS = 2.0
EVENTS_BEFORE_AUTHENTICATION = 64
FRAME_OVERHEAD = 64
TEXT_FRAME = 0x81

Later = Callable[[], Event | bytes]
"""Makes a frame when its turn comes."""


def text_frame(text: str) -> bytes:
    """A whole text frame of a server, which masks nothing (RFC 6455, 5.2). By hand: most of what we write is this."""
    payload = text.encode()
    size = len(payload)
    if size < 126:
        return bytes((TEXT_FRAME, size)) + payload
    if size < 1 << 16:
        return struct.pack("!BBH", TEXT_FRAME, 126, size) + payload
    return struct.pack("!BBQ", TEXT_FRAME, 127, size) + payload


class Closed(Exception):
    """The WebSocket is closed, or is being closed."""


class _Rest(bytes):
    """The end of a frame whose beginning is sent: it follows, whatever has come in between."""


class _NoThread:
    """In place of the library's own reading thread: our handler reads."""

    name = ""

    def __init__(self, target: Any = None) -> None:
        del target

    def start(self) -> None:
        """Nothing to start."""


class TunnelSocket(Server):  # type: ignore[misc]
    """A server-side WebSocket. ``post`` may be called from anywhere; only the writer touches the wire."""

    def __init__(self, environ: dict[str, Any], **_options: Any) -> None:
        self.bytes_in = self.bytes_out = 0
        self.opened_at = self.heard_at = time.monotonic()
        self.rtt_ms: float | None = None
        self.max_message_bytes = BEFORE_AUTHENTICATION_BYTES
        self.closing_at: float | None = None
        self._messages: deque[str] = deque()
        self._text, self._text_bytes = io.StringIO(), 0
        self._pace = Pace()
        self._pinged: tuple[bytes, float] | None = None
        self._pong: Event | None = None
        self._outbox: deque[tuple[Event | bytes | Later, int]] = deque()
        self._outbox_bytes = 0
        self._bulk: deque[bytes] = deque()
        self._wake = threading.Condition()
        self._writing = False
        self._writer: threading.Thread | None = None
        super().__init__(environ, thread_class=_NoThread, event_class=_NoEvent)

    # Reading: the handler's greenlet only.

    def first(self, seconds: float) -> str:
        """The first text, which must be whole within ``seconds``. Raises Closed."""
        deadline = time.monotonic() + seconds
        while not self._messages:
            self.sock.settimeout(max(0.001, deadline - time.monotonic()))
            if time.monotonic() >= deadline or not self.connected or not self._receive():
                raise Closed("no first frame in time")
            if self._pace.total > EVENTS_BEFORE_AUTHENTICATION:
                raise Closed("too much before the first frame")
        self.sock.settimeout(CLOSE_SECONDS)  # until there is a writer, this greenlet waits for what it writes
        return self._messages.popleft()

    def messages(self) -> Iterator[str]:
        """The texts that arrive, until the WebSocket closes."""
        served = 0
        while True:
            while self._messages:
                yield self._messages.popleft()
                served += 1
                if served % MESSAGES_BEFORE_YIELD == 0:
                    time.sleep(0)
            self._keep_pace()
            if not self.connected or not self._receive():
                return

    def _keep_pace(self) -> None:
        """Let a flood wait in the peer's own buffers."""
        while self.connected and (wait := self._pace.wait()):
            time.sleep(min(wait, 0.25))

    def forgive(self, events: int) -> None:
        """Do not count so many of the peer's events: what they brought is bounded in another way."""
        self._pace.forgive(events)

    def _receive(self) -> bool:
        try:
            wait_for_data(self.sock)  # which also lets others work: recv serves who always has data without yielding
            data = self.sock.recv(RECEIVE_BYTES)
            if not data:
                return False
            self.bytes_in += len(data)
            self.heard_at = time.monotonic()
            self.ws.receive_data(data)
            self._handle_events()
        except (OSError, LocalProtocolError, RemoteProtocolError):
            return False
        return True

    def _handle_events(self) -> bool:
        for event in self.ws.events():
            self._pace.count()
            if isinstance(event, Request):
                self._write(AcceptConnection())  # no compression: a bomb would be inflated before authentication
            elif isinstance(event, TextMessage):
                self._take(event)
            elif isinstance(event, BytesMessage):
                self.hang_up(Close.UNSUPPORTED, "text frames only")
            elif isinstance(event, Ping):
                self._answer_ping(event)
            elif isinstance(event, Pong):
                self._measure(event)
            elif isinstance(event, CloseConnection):
                self._answer_close(event)
        return True

    def _take(self, event: TextMessage) -> None:
        data = event.data
        self._text_bytes += len(data) if data.isascii() else len(data.encode())
        if self._text_bytes > self.max_message_bytes:
            self.hang_up(Close.TOO_BIG, f"frame over {self.max_message_bytes} bytes")
            self._text = io.StringIO()
        else:
            self._text.write(data)  # a list of parts would grow by empty ones, which cost the peer nothing
        if event.message_finished:
            if self.closing_at is None:
                self._messages.append(self._text.getvalue())
            self._text, self._text_bytes = io.StringIO(), 0

    def _answer_ping(self, event: Ping) -> None:
        """Only the newest ping that still waits is answered (RFC 6455, 5.5.3), so a flood of them piles nothing up."""
        if self._writer is None:
            return  # its first frame comes first, and then ours
        queued, self._pong = self._pong, event.response()
        if queued is None:
            with contextlib.suppress(Closed):  # a ping that crossed our close frame needs no answer
                self._post(self._take_pong, 0)

    def _take_pong(self) -> Event:
        pong, self._pong = self._pong, None
        return pong or Pong()

    def _measure(self, event: Pong) -> None:
        """The round trip, by our own clock: a pong that answers no ping of ours says nothing."""
        if self._pinged and bytes(event.payload) == self._pinged[0]:
            self.rtt_ms = (time.monotonic() - self._pinged[1]) * 1000
            self._pinged = None

    def _answer_close(self, event: CloseConnection) -> None:
        self.close_reason, self.close_message = event.code, (event.reason or "").replace("\0", "")
        if self.closing_at is None:
            with contextlib.suppress(LocalProtocolError):  # both sides may close at once
                self._post(event.response(), 0)
        self.closing_at = self.closing_at or time.monotonic()
        self.connected = False

    # Writing: anyone posts, one writer sends.

    def start_writer(self, name: str) -> None:
        """From here on a writer of its own sends what is posted (before, posts are written at once)."""
        self.sock.settimeout(None)
        # gevent's own would wait, whatever the flags say.
        self._plain: Any = getattr(self.sock, "_sock", self.sock)
        self._writer = threading.Thread(target=self._write_all, name=f"tunnel-writer-{name}", daemon=True)
        self._writer.start()

    def post(self, text: str) -> None:
        """Queue a text frame. Raises Closed when the socket is closing, or was closed now because it does not drain."""
        frame = text_frame(text)
        self._post(frame, len(frame))

    def post_bulk(self, text: str) -> None:
        """Queue a text frame behind all that ``post`` queues, also later; whoever calls bounds it. Raises Closed."""
        with self._wake:
            if self.closing_at is not None:
                raise Closed(self.close_message)
            self._bulk.append(text_frame(text))
            self._wake.notify()

    def post_later(self, text: Callable[[], str]) -> None:
        """Queue a frame whose text is made when its turn comes, so that newer state replaces older."""
        self._post(lambda: text_frame(text()), 0)

    def ping(self) -> None:
        """Ask for a pong, to measure the round trip."""
        self._post(self._make_ping, 0)

    def _make_ping(self) -> Event:
        payload = os.urandom(8)
        self._pinged = (payload, time.monotonic())
        return Ping(payload=payload)

    def hang_up(self, code: int, reason: str) -> None:
        """Close in order: what is queued goes first, then the close frame; the peer has 2 s to answer."""
        if self.closing_at is not None:
            return
        self.close_reason, self.close_message = code, reason
        with contextlib.suppress(Closed):  # it does not drain: it is gone already
            self._post(CloseConnection(code, reason[:120]), 0)
        self.closing_at = time.monotonic()

    def abort(self, reason: str) -> None:
        """Tear the link down now: both the reader and the writer wake up and end."""
        self.close_message = self.close_message or reason
        self.closing_at = self.closing_at or time.monotonic()
        self.connected = False
        with contextlib.suppress(OSError):  # the peer may have closed it already
            self.sock.shutdown(socket.SHUT_RDWR)
        with self._wake:
            self._wake.notify_all()

    def close(self, reason: int | None = None, message: str | None = None) -> None:
        """Called by flask-sock once the handler has returned: let the writer finish, then close the descriptor."""
        if self._writer is None:
            self.abort("closed")
        else:
            self.hang_up(reason or Close.NORMAL, message or "")
            self._writer.join(CLOSE_SECONDS)
            self.abort("closed")
            self._writer.join(CLOSE_SECONDS)

    def _post(self, item: Event | bytes | Later, size: int) -> None:
        if self._writer is None:
            self._write(item)
            return
        size += FRAME_OVERHEAD
        with self._wake:
            if self.closing_at is not None:
                raise Closed(self.close_message)
            if isinstance(item, bytes) and not (self._writing or self._outbox or self._bulk):
                item = self._send_at_once(item)
                if not item:
                    return
                size = len(item) + FRAME_OVERHEAD
            full = self._outbox_bytes + size > OUTBOX_BYTES or len(self._outbox) >= OUTBOX_FRAMES
            if not (full and self._outbox_bytes):
                self._outbox.append((item, size))
                self._outbox_bytes += size
                self._wake.notify()
                return
        self.abort("outbox full: the device does not read")
        raise Closed(self.close_message)

    def _send_at_once(self, frame: bytes) -> bytes:
        """What is left for the writer of a frame before which nothing waits: mostly nothing, and nobody need wake.

        The kernel takes what it has room for; nobody waits here. The caller holds the lock.
        """
        if self.ws.state is not ConnectionState.OPEN:
            return b""
        try:
            sent = self._plain.send(frame, socket.MSG_DONTWAIT)
        except OSError:  # no room, or the link is gone: the writer, who waits for the one, finds out about the other
            return frame
        self.bytes_out += sent
        return _Rest(frame[sent:]) if sent else frame

    def _write_all(self) -> None:
        """The writer: ends after a close frame, or when the link is gone."""
        while True:
            with self._wake:
                while not self._outbox and (self.closing_at is not None or not self._bulk):
                    if not self.connected or self.closing_at is not None:
                        return
                    self._wake.wait()
                item, size = self._outbox.popleft() if self._outbox else (self._bulk.popleft(), 0)
                self._writing = True
            written = self._write(item)
            with self._wake:
                self._writing = False
                self._outbox_bytes -= size  # only now: a frame that is being written is still held
            if not written:
                return

    def _write(self, item: Event | bytes | Later) -> bool:
        """Write one frame; False when it was the last one, or the link is gone."""
        try:
            event = item() if callable(item) else item
            if isinstance(event, bytes):
                if self.ws.state is not ConnectionState.OPEN and not isinstance(event, _Rest):
                    return True
                data = event
            else:
                data = self.ws.send(event)
            send_all(self.sock, data)
        except LocalProtocolError:
            return True  # the peer has sent its close frame: only ours, which follows, may still go
        except OSError as error:
            self.abort(f"write failed: {error}")
            return False
        except Exception:
            # Without its writer the socket would stand there, deaf, until the outbox is full.
            log.exception("frame not written")
            self.abort("internal error")
            return False
        self.bytes_out += len(data)
        return not isinstance(event, CloseConnection)

    def handshake(self) -> None:
        try:
            super().handshake()
        except RemoteProtocolError as error:
            raise ValidationFailed(f"not a WebSocket upgrade: {error}") from None
        self.connected = True


class _NoEvent:
    """In place of the library's event, which only its own ``receive`` waits for."""

    def set(self) -> None:
        """Nobody waits."""
