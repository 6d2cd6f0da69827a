"""A WebSocket between a browser and a device's editor: the handshake is checked, then bytes pass as they are."""

import base64
import hashlib
import http
import socket
import threading
from contextlib import suppress
from typing import Any, NoReturn

from app.edge_nodes.editor.headers import BadHeaders, Headers, set_cookies
from app.edge_nodes.editor.throttle import throttle
from app.edge_nodes.editor.watchdog import Opened, watchdog
from app.tunnel.protocol import CHUNK_BYTES
from app.tunnel.streams import Head, Stream, StreamFailed

GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, 1.3
PASSED = ("sec-websocket-protocol", "sec-websocket-extensions")


def carry(environ: dict[str, Any], head: Head, opened: Opened) -> NoReturn:
    """Answer the browser's handshake and pass bytes until one side ends; StopIteration ends the connection.

    Raises BadHeaders for an answer of the device that is no handshake.
    """
    answer = _handshake(environ, head)
    browser = opened.browser
    try:
        browser.settimeout(None)
        browser.sendall(answer)
        threading.Thread(target=_upwards, args=(browser, opened.stream), name="editor-socket", daemon=True).start()
        _downwards(opened.stream, browser)
    except (StreamFailed, OSError):
        pass  # either side has gone
    finally:
        opened.stream.close()
        watchdog().release(opened)
        with suppress(OSError):
            browser.shutdown(socket.SHUT_RDWR)
    raise StopIteration


def _handshake(environ: dict[str, Any], head: Head) -> bytes:
    """The 101 as the browser gets it: only what belongs to a handshake, and the device's cookies."""
    key = str(environ.get("HTTP_SEC_WEBSOCKET_KEY", ""))
    accept = base64.b64encode(hashlib.sha1(f"{key}{GUID}".encode(), usedforsecurity=False).digest()).decode()
    if _values(head.headers, "sec-websocket-accept") != [accept]:
        raise BadHeaders("a handshake that does not fit")
    lines: Headers = [("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Accept", accept)]
    lines += [(name, value) for name, value in head.headers if name.lower() in PASSED]
    lines += set_cookies(head.headers)
    fields = "".join(f"{name}: {value}\r\n" for name, value in lines)
    return f"HTTP/1.1 101 {http.HTTPStatus(101).phrase}\r\n{fields}\r\n".encode("latin-1")


def _values(headers: Headers, wanted: str) -> list[str]:
    return [value.strip() for name, value in headers if name.lower() == wanted]


def _upwards(browser: Any, stream: Stream) -> None:
    try:
        while data := browser.recv(CHUNK_BYTES):
            stream.write(data)
            throttle().wait(len(data))
        stream.write(b"", end=True)
    except (StreamFailed, OSError):
        pass  # either side has gone, which the other direction meets as well
    stream.close()


def _downwards(stream: Stream, browser: Any) -> None:
    while data := stream.read(timeout=None):
        browser.sendall(data)
        throttle().wait(len(data))
