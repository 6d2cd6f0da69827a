"""One request of a browser, carried to the device's editor and back while both go on: nothing is kept whole."""

import errno
import threading
import time
from collections.abc import Iterable, Iterator
from typing import Any

import structlog

from app.edge_nodes.editor import checks, headers, pages, websocket
from app.edge_nodes.editor.origin import Place
from app.edge_nodes.editor.pages import Refused, StartResponse
from app.edge_nodes.editor.sessions import Access
from app.edge_nodes.editor.throttle import throttle
from app.edge_nodes.editor.watchdog import BODY_SECONDS, Opened, watchdog
from app.tunnel import bus
from app.tunnel.protocol import CHUNK_BYTES
from app.tunnel.streams import Head, NothingYet, Stream, StreamFailed

log = structlog.get_logger("editor")

HEAD_SECONDS = 30.0  # without a word of the device

Environ = dict[str, Any]


def forward(environ: Environ, start: StartResponse, place: Place, access: Access, target: str) -> Iterable[bytes]:
    """Carry a request to the device, and its answer back. Raises Refused."""
    gateway = _reach(access)
    upgrade = checks.is_upgrade(environ)
    body = checks.has_body(environ) and not upgrade
    request = {
        "method": environ["REQUEST_METHOD"],
        "target": target,
        "headers": headers.to_device(environ, place.scheme, upgrade=upgrade, read_only=access.read_only),
        "body": body,
        "upgrade": upgrade,
    }
    stream = bus.open_stream(access.device_id, gateway, access.actor, request)
    opened = Opened(access, stream, environ["gunicorn.socket"], upgrade, checks.writes(environ))
    watchdog().hold(opened)
    upload = _Upload(environ, stream) if body else None
    try:
        return _answered(environ, start, place, opened, upload)
    except BaseException:
        stream.close()
        watchdog().release(opened)
        raise


def _reach(access: Access) -> str:
    if access.gateway is None:
        raise Refused(503, "The device is offline", "Try again when it is connected.", "offline", Retry_After="30")
    if "http_proxy" not in access.capabilities:
        raise Refused(501, "No editor", "The device's agent does not offer one.", "capability")
    return access.gateway


def _answered(
    environ: Environ, start: StartResponse, place: Place, opened: Opened, upload: "_Upload | None"
) -> Iterable[bytes]:
    try:
        head = _head(opened.stream)
        passed, length = headers.to_browser(head.headers, place.origin), headers.length(head.headers)
        if head.status == 101:
            websocket.carry(environ, head, opened)  # ends with StopIteration: the server has nothing to add
    except StreamFailed as failed:
        raise _failure(failed) from None
    except headers.BadHeaders as bad:
        raise Refused(502, "The editor answered badly", f"Its answer had {bad}.", "answer") from None
    bodiless = environ["REQUEST_METHOD"] == "HEAD" or head.status in (204, 304)
    told = [] if length is None or head.status == 204 else [("Content-Length", str(length))]
    start(pages.status_line(head.status), [*passed, *told])
    return _Download(opened, upload, length, bodiless=bodiless)


def _head(stream: Stream) -> Head:
    """The answer's head. It is not due while the request's body is moving, or the device says that it waits, too.

    How long it waits is the device's to decide, where its editor is known: an installation may take minutes.
    """
    while True:
        try:
            return stream.head(HEAD_SECONDS)
        except NothingYet:
            if time.monotonic() - stream.moved_at > HEAD_SECONDS:
                raise


def _failure(failed: StreamFailed) -> Refused:
    if failed.code == "OFFLINE":
        return Refused(503, "The device is offline", "Try again in a moment.", "offline", Retry_After="5")
    if failed.code == "TIMEOUT":
        return Refused(
            504, "The editor does not answer",
            "The device is there, but its editor said nothing. It may still be doing what it was asked.", "timeout",
        )  # fmt: skip
    if failed.code == "BUSY":
        return Refused(
            503, "Too much at once", "The device has too many requests under way. Try again in a moment.", "busy",
            Retry_After="2",
        )  # fmt: skip
    return Refused(502, "The editor is not there", "The device could not reach its editor, or was cut off.", "device")


class _Upload:
    """The request's body on its way to the device, in a thread of its own: the answer may come before its end."""

    def __init__(self, environ: Environ, stream: Stream) -> None:
        self.done = False
        self._source, self._stream = environ["wsgi.input"], stream
        self._left = int(environ["CONTENT_LENGTH"]) if environ.get("CONTENT_LENGTH") else None
        threading.Thread(target=self._run, name="editor-upload", daemon=True).start()

    def _run(self) -> None:
        try:
            while data := self._source.read(CHUNK_BYTES):
                self._left = None if self._left is None else self._left - len(data)
                self._stream.write(data)
                throttle().wait(len(data))
            if self._left:
                self._stream.cancel("CLOSED", "the browser has gone")
                return
            self.done = True
            self._stream.write(b"", end=True)
        except StreamFailed:
            return  # whoever waits for the answer knows
        except Exception as error:  # the browser went, or what it sent is no body
            log.info("upload broken off", error=str(error)[:200])
            self._stream.cancel("CLOSED", "the browser has gone")


class _Download:
    """The answer's body, as the server iterates it. One that breaks off is cut: its end must not look like one."""

    def __init__(self, opened: Opened, upload: _Upload | None, length: int | None, *, bodiless: bool) -> None:
        self._opened, self._upload, self._left, self._bodiless = opened, upload, length, bodiless

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        if self._bodiless:
            raise StopIteration
        try:
            data = self._opened.stream.read(BODY_SECONDS)
        except StreamFailed as failed:
            raise _cut(str(failed)) from None
        if self._left is not None:
            self._left -= len(data)
            if self._left < 0 or (self._left and not data):
                raise _cut("a body of another length than was told")
        if not data:
            raise StopIteration
        throttle().wait(len(data))
        return data

    def close(self) -> None:
        """Called by the server in the end. StopIteration tells it not to use the connection again."""
        self._opened.stream.close()
        watchdog().release(self._opened)
        if self._upload and not self._upload.done:
            raise StopIteration


def _cut(reason: str) -> OSError:
    """What the server takes for a browser that went: it closes the connection and says nothing."""
    log.info("download cut", reason=reason[:200])
    return ConnectionResetError(errno.ECONNRESET, reason)
