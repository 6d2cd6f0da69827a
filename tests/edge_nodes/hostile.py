"""A device whose editor is hostile, and a browser that sends what it likes: both on real sockets, byte by byte."""

import base64
import hashlib
import http.client
import json
import socket
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

from websockets.exceptions import ConnectionClosed

from tests.tunnel.conftest import Caller, Device

HELLO = {"protocol": 2, "capabilities": ["deploy_flow", "configure", "get_node_types", "dedup", "http_proxy"]}
WINDOW, CHUNK = 256 * 1024, 32 * 1024
COOKIE = "edgeflow_editor"
WS_KEY = base64.b64encode(b"0123456789abcdef").decode()
WS_MAGIC = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

Frame = dict[str, Any]
Script = Callable[["Editor", Frame], None]


def polite(device: "Editor", request: Frame) -> None:
    """What a device without malice does: 200, and ``hello``."""
    device.respond(request["id"], body=b"hello")


class Editor(Device):
    """A connected device that does with each ``http_request`` what ``script`` says, and keeps all that it hears."""

    def __init__(self, url: str, device_id: UUID | str, key: str) -> None:
        super().__init__(url, device_id, key, **HELLO)
        self.requests: list[Frame] = []
        self.heard: list[Frame] = []
        self.script: Script = polite
        self._news = threading.Condition()
        threading.Thread(target=self._serve, daemon=True).start()

    def respond(
        self, stream: str, status: Any = 200, headers: Any = (), body: bytes | None = None, window: Any = WINDOW
    ) -> None:
        """A head and, unless ``body`` is None, one last chunk."""
        given = [list(pair) for pair in headers] if isinstance(headers, (tuple, list)) else headers
        self.send({"type": "http_response", "id": stream, "status": status, "headers": given, "window": window})
        if body is not None:
            self.chunk(stream, body, end=True)

    def chunk(self, stream: str, data: bytes, *, end: bool = False) -> None:
        self.send({"type": "chunk", "id": stream, "data": base64.b64encode(data).decode(), "end": end})

    def wait(self, kind: str, stream: str, timeout: float = 10, number: int = 1) -> Frame:
        """The ``number``-th frame of that kind that the cloud sent for the stream."""
        found: list[Frame] = []

        def there() -> bool:
            found[:] = [frame for frame in self.heard if frame["type"] == kind and frame.get("id") == stream]
            return len(found) >= number

        with self._news:
            assert self._news.wait_for(there, timeout), f"no {kind}, only {self._kinds(stream)}"
        return found[number - 1]

    def _kinds(self, stream: str) -> list[tuple[str, str | None]]:
        return [(frame["type"], frame.get("code")) for frame in self.heard if frame.get("id") == stream]

    def body(self, stream: str) -> bytes:
        """What of the request's body has arrived."""
        with self._news:
            return b"".join(
                base64.b64decode(frame["data"])
                for frame in self.heard
                if frame["type"] == "chunk" and frame["id"] == stream
            )

    def forget(self) -> None:
        """Between two tests: politeness again, and nothing heard."""
        self.script = polite
        with self._news:
            self.requests.clear()
            self.heard.clear()

    def _serve(self) -> None:
        try:
            while True:
                self._hear(json.loads(self.socket.recv()))
        except ConnectionClosed:
            return

    def _hear(self, frame: Frame) -> None:
        if frame["type"] == "command":
            self.send({"type": "response", "id": frame["id"], "status": "success", "data": {"status": "healthy"}})
            return
        with self._news:
            (self.requests if frame["type"] == "http_request" else self.heard).append(frame)
            self._news.notify_all()
        if frame["type"] == "http_request":
            self.script(self, frame)


@dataclass(frozen=True)
class Page:
    """An answer as a browser sees it. ``whole``: it ended as its head had said."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes
    whole: bool

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key.lower() == name.lower()]


def read_page(sock: socket.socket, method: str = "GET") -> Page:
    """Read one answer. A connection that ends before a head is a page with status 0."""
    answer = http.client.HTTPResponse(sock, method=method)
    try:
        answer.begin()
    except (http.client.HTTPException, ConnectionError):
        return Page(0, [], b"", whole=False)
    try:
        body, whole = answer.read(), True
    except http.client.IncompleteRead as cut:
        body, whole = cut.partial, False
    except ConnectionError:
        body, whole = b"", False
    return Page(answer.status, answer.getheaders(), body, whole)


def talk(port: int, data: bytes, timeout: float = 10) -> bytes:
    """Send bytes to the web process; all that comes back until it closes, or is silent for ``timeout``."""
    with socket.create_connection(("127.0.0.1", port), timeout) as sock:
        sock.sendall(data)
        return everything(sock, timeout)


class Tab:
    """A browser on one device's origin, with or without the cookie that opens it."""

    def __init__(self, port: int, host: str, cookie: str = "") -> None:
        self.port, self.host, self.cookie = port, host, cookie
        self.origin = f"http://{host}"

    @classmethod
    def open(cls, caller: Caller, device_id: UUID | str) -> "Tab":
        """Ask the API for the editor's address and go there."""
        return cls.at(ticket_url(caller, device_id), caller.http.base_url.port or 80)

    @classmethod
    def at(cls, url: str, port: int) -> "Tab":
        address = urlsplit(url)
        tab = cls(port, address.netloc)
        page = tab.get(f"{address.path}?{address.query}")
        assert page.status == 303, (page.status, page.body)
        (given,) = page.all("Set-Cookie")
        name, _, value = given.partition(";")[0].partition("=")
        assert name == COOKIE
        tab.cookie = value
        return tab

    def get(self, target: str = "/", *headers: tuple[str, str], **options: Any) -> Page:
        return self.ask("GET", target, *headers, **options)

    def ask(
        self, method: str, target: str = "/", *headers: tuple[str, str], body: bytes = b"", timeout: float = 10
    ) -> Page:
        with socket.create_connection(("127.0.0.1", self.port), timeout) as sock:
            sock.sendall(self.head(method, target, *headers, length=len(body)) + body)
            return read_page(sock, method)

    def head(self, method: str, target: str, *headers: tuple[str, str], length: int = 0, close: bool = True) -> bytes:
        """The head of a request; a header that is given replaces the one that would be there."""
        given = {name.lower() for name, _ in headers}
        own = [("Host", self.host), ("Connection", "close" if close else "keep-alive")]
        if self.cookie:
            own.append(("Cookie", f"{COOKIE}={self.cookie}"))
        if method not in {"GET", "HEAD"}:
            own += [("Origin", self.origin), ("Content-Length", str(length))]
        lines = [*(pair for pair in own if pair[0].lower() not in given), *headers]
        text = "".join(f"{name}: {value}\r\n" for name, value in lines)
        return f"{method} {target} HTTP/1.1\r\n{text}\r\n".encode("latin-1")

    def upgrade(self, target: str = "/comms", *headers: tuple[str, str]) -> tuple[Page, socket.socket]:
        """Ask for a WebSocket; the answer's head, and the socket behind it."""
        given = {name.lower() for name, _ in headers}
        asked = [("Connection", "Upgrade"), ("Upgrade", "websocket"), ("Sec-WebSocket-Version", "13"),
                 ("Sec-WebSocket-Key", WS_KEY), ("Origin", self.origin)]  # fmt: skip
        sock = socket.create_connection(("127.0.0.1", self.port), 10)
        sock.sendall(self.head("GET", target, *(pair for pair in asked if pair[0].lower() not in given), *headers))
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            part = sock.recv(1)
            if not part:
                break
            head += part
        status = int(head.split(b" ", 2)[1]) if b" " in head else 0
        return Page(status, _pairs(head), b"", whole=True), sock


def ticket_url(caller: Caller, device_id: UUID | str) -> str:
    """``http://<device>.edit.localhost:PORT/__edgeflow/open?ticket=…``"""
    answer = caller("GET", f"/edge-nodes/{device_id}/editor-url")
    assert answer.status_code == 200, answer.text
    url: str = answer.json()["url"]
    return url


def switching(request: Frame) -> list[tuple[str, str]]:
    """The headers of a right answer to an upgrade."""
    key = dict(_lower(request["headers"]))["sec-websocket-key"]
    accept = base64.b64encode(hashlib.sha1((key + WS_MAGIC).encode()).digest()).decode()
    return [("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Accept", accept)]


def names(request: Frame) -> set[str]:
    """The headers that a device was given, in lower case."""
    return {name for name, _ in _lower(request["headers"])}


def _lower(pairs: Iterable[Iterable[str]]) -> list[tuple[str, str]]:
    return [(name.lower(), value) for name, value in pairs]


def _pairs(head: bytes) -> list[tuple[str, str]]:
    lines = head.decode("latin-1").split("\r\n")[1:]
    return [(name, value.strip()) for name, _, value in (line.partition(":") for line in lines if line)]


def settled(seconds: float = 0.3) -> None:
    """Give what must not happen the time to happen."""
    time.sleep(seconds)


def until(there: Callable[[], bool], seconds: float = 10) -> None:
    """Wait for what must happen."""
    deadline = time.monotonic() + seconds
    while not there():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


def everything(sock: socket.socket, seconds: float) -> bytes:
    """All that comes until the other side closes or is silent for so long."""
    sock.settimeout(seconds)
    got = b""
    try:
        while part := sock.recv(65536):
            got += part
    except (TimeoutError, ConnectionError):
        pass
    return got
