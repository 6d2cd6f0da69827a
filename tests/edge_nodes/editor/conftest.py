"""Two web processes, a device whose agent the test plays frame by frame, and a browser that speaks plain HTTP."""

import base64
import queue
import socket
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit
from uuid import UUID

import httpx
import pytest
from websockets.exceptions import ConnectionClosed

from tests import make
from tests.platform import TLS, Platform
from tests.tunnel.conftest import V2, Device

PROXY = {**V2, "capabilities": [*V2["capabilities"], "http_proxy"]}
WINDOW, CHUNK = 256 * 1024, 32 * 1024


class EditorDevice(Device):
    """A device with an editor. ``serve`` answers each request; without it the test takes frames with ``next``."""

    def __init__(self, url: str, device_id: UUID, key: str, serve: "Callable[[Served], None] | None" = None) -> None:
        super().__init__(url, device_id, key, **PROXY)
        self.streams: dict[str, queue.Queue[Any]] = defaultdict(queue.Queue)
        self.requests: queue.Queue[Served] = queue.Queue()
        self.commands: queue.Queue[Any] = queue.Queue()
        self._serve = serve
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        try:
            while True:
                frame = self.receive(None)
                if frame["type"] == "http_request":
                    served = Served(self, frame)
                    self.requests.put(served)
                    if self._serve:
                        threading.Thread(target=self._serve, args=(served,), daemon=True).start()
                elif frame["type"] in ("chunk", "credit", "cancel"):
                    self.streams[frame["id"]].put(frame)
                elif frame["type"] == "command":
                    self.send({"type": "response", "id": frame["id"], "status": "success", "data": {"status": "ok"}})
        except ConnectionClosed:
            for stream in list(self.streams.values()):
                stream.put({"type": "cancel"})  # with the tunnel each of its streams ends


class Served:
    """One stream at the device."""

    def __init__(self, device: EditorDevice, request: Any) -> None:
        self.device, self.request, self.id = device, request, request["id"]
        self.may_send = WINDOW
        self.received = b""

    @property
    def headers(self) -> dict[str, str]:
        return {name.lower(): value for name, value in self.request["headers"]}

    def send(self, kind: str, **fields: Any) -> None:
        self.device.send({"type": kind, "id": self.id, **fields})

    def head(self, status: int = 200, *headers: tuple[str, str]) -> None:
        self.send("http_response", status=status, headers=headers, window=WINDOW)

    def chunk(self, data: bytes, *, end: bool = False) -> None:
        """Send without a look at the window."""
        self.send("chunk", data=base64.b64encode(data).decode(), end=end)

    def body(self, data: bytes, timeout: float = 20) -> None:
        """Send a whole body as the window allows."""
        for start in range(0, len(data), CHUNK):
            part = data[start : start + CHUNK]
            while self.may_send < len(part):
                frame = self.next(timeout)
                assert frame["type"] == "credit", frame
                self.may_send += frame["bytes"]
            self.may_send -= len(part)
            self.chunk(part)
        self.chunk(b"", end=True)

    def next(self, timeout: float = 10) -> Any:
        """The next frame of this stream."""
        return self.device.streams[self.id].get(timeout=timeout)

    def read(self, *, credit: bool = True, timeout: float = 10) -> bytes:
        """The request's body, to its end."""
        while True:
            frame = self.next(timeout)
            if frame["type"] != "chunk":
                assert frame["type"] == "credit", frame
                continue
            data = base64.b64decode(frame["data"])
            self.received += data
            if credit and data:
                self.send("credit", bytes=len(data))
            if frame["end"]:
                return self.received

    def answer(self, body: bytes = b"", status: int = 200, *headers: tuple[str, str]) -> None:
        self.head(status, *headers)
        self.body(body)


class Browser:
    """A browser with an editor's origin. ``web``: the number of the web process that it asks."""

    def __init__(self, gateways: Platform, device_id: UUID, web: int = 0) -> None:
        self.port = gateways.ports[web]
        self.host = f"{device_id}.edit.localhost:{self.port}"
        self.origin = f"http://{self.host}"
        self.http = httpx.Client(base_url=gateways.url(web), headers={"Host": self.host}, timeout=20, verify=TLS)
        self.cookie = ""

    def open(self, url: str) -> httpx.Response:
        """Follow the link that the API gave, and keep the cookie."""
        parts = urlsplit(url)
        answer = self.http.get(f"{parts.path}?{parts.query}")
        if "set-cookie" in answer.headers:
            self.cookie = answer.headers["set-cookie"].partition(";")[0]
            self.http.headers["Cookie"] = self.cookie
        self.http.cookies.clear()  # the cookie belongs to another host than the one that is dialled
        return answer

    def __call__(self, method: str, path: str, **options: Any) -> httpx.Response:
        headers = {"Origin": self.origin} if method not in ("GET", "HEAD") else {}
        return self.http.request(method, path, **{**options, "headers": {**headers, **options.get("headers", {})}})

    def dial(self, path: str, *, method: str = "GET", receive_buffer: int = 0, **headers: str) -> socket.socket:
        """A socket on which a request's head was sent."""
        dialled = socket.socket()
        if receive_buffer:
            dialled.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        dialled.settimeout(15)
        dialled.connect(("127.0.0.1", self.port))
        given = {"Host": self.host, "Cookie": self.cookie, "Origin": self.origin}
        given |= {name.replace("_", "-"): value for name, value in headers.items()}
        lines = "".join(f"{name}: {value}\r\n" for name, value in given.items() if value)
        dialled.sendall(f"{method} {path} HTTP/1.1\r\n{lines}\r\n".encode())
        return dialled

    def socket(self, path: str = "/comms", **headers: str) -> socket.socket:
        """A socket on which a WebSocket was asked for."""
        return self.dial(path, Upgrade="websocket", Connection="Upgrade", Sec_WebSocket_Version="13",
                         Sec_WebSocket_Key=KEY, **headers)  # fmt: skip

    def close(self) -> None:
        self.http.close()


KEY = "dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="  # RFC 6455, 1.3
SWITCH = (("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Accept", ACCEPT))


def head_of(wire: socket.socket) -> str:
    """An answer's head, read from a socket."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        part = wire.recv(1)
        assert part, f"the connection ended: {head!r}"
        head += part
    return head.decode()


def ended(wire: socket.socket, timeout: float) -> bool:
    """Whether the other side closes a socket within so many seconds."""
    wire.settimeout(timeout)
    try:
        while wire.recv(65536):
            pass
    except TimeoutError:
        return False
    except OSError:
        return True
    return True


class Setting:
    """An organization with one device and people who open its editor."""

    def __init__(self, gateways: Platform, org_id: UUID | None = None) -> None:
        self.gateways, self.org_id = gateways, org_id or make.organization()
        self.device, self.key = make.device(self.org_id)
        self.keys = {role: make.api_key(self.org_id, role) for role in ("owner", "operator", "viewer")}
        self._open: list[Any] = []

    def beside(self) -> "Setting":
        """Another device of the same organization."""
        made = Setting(self.gateways, self.org_id)
        self._open.append(made)
        return made

    def connect(self, serve: Callable[[Served], None] | None = None, web: int = 0) -> EditorDevice:
        made = EditorDevice(self.gateways.url(web), self.device.id, self.key, serve)
        self._open.append(made)
        return made

    def api(self, method: str, path: str, role: str = "operator", web: int = 0, **options: Any) -> httpx.Response:
        headers = options.pop("headers", {"X-API-Key": self.keys[role]})
        return httpx.request(
            method, f"{self.gateways.url(web)}/api/v1{path}", headers=headers, timeout=20, **options, verify=TLS
        )

    def link(self, role: str = "operator", web: int = 0, **options: Any) -> str:
        answer = self.api("GET", f"/edge-nodes/{self.device.id}/editor-url", role, web, **options)
        assert answer.status_code == 200, answer.text
        return answer.json()["url"]

    def browser(self, role: str = "operator", web: int = 0, **options: Any) -> Browser:
        """A browser with the editor open."""
        made = Browser(self.gateways, self.device.id, web)
        self._open.append(made)
        answer = made.open(self.link(role, web, **options))
        assert answer.status_code == 303, answer.text
        return made

    def close(self) -> None:
        for one in self._open:
            one.close()


@pytest.fixture
def setting(app: Any, gateways: Platform) -> Iterator[Setting]:
    made = Setting(gateways)
    yield made
    made.close()


def ticket_of(url: str) -> str:
    return parse_qs(urlsplit(url).query)["ticket"][0]
