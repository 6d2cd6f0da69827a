"""Editors that are open at the same time: bytes that say whose they are and where, and people who act at once."""

import base64
import socket
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import httpx
from sqlalchemy import text
from websockets.exceptions import ConnectionClosed

from app import db
from tests.edge_nodes.editor.conftest import CHUNK, SWITCH, Browser, Served, Setting, head_of

LINE = 32


def marked(name: str, size: int) -> bytes:
    """Bytes each line of which says whose stream it belongs to, and where in it."""
    return b"".join(f"{name:>18.18} {at:012}\n".encode() for at in range(0, size, LINE))[:size]


def at_once(calls: Iterable[Callable[[], Any]]) -> list[Any]:
    """What each call gives, all of them begun at the same time; raises what one raises."""
    todo = list(calls)
    start = threading.Barrier(len(todo))

    def run(call: Callable[[], Any]) -> Any:
        start.wait(10)
        return call()

    with ThreadPoolExecutor(len(todo)) as pool:
        return [one.result(60) for one in [pool.submit(run, call) for call in todo]]


class Workshop:
    """What a device's editor does. ``name`` is in all its bytes, so that another device's would be noticed.

    ``GET /down/<who>/<size>`` gives marked bytes, ``POST /up/<who>/<size>`` takes them and says whether they are those;
    ``GET /slow/<who>/<size>`` gives a little at a time until ``hurry`` is set, ``POST /late/<who>/<size>`` reads
    nothing until then. A WebSocket hears the device's name, and then what it sends.
    """

    def __init__(self, name: str) -> None:
        self.name, self.hurry = name, threading.Event()
        self.writes: list[str] = []
        self.given: dict[str, int] = {}
        """Bytes that were sent so far, by target."""

    def __call__(self, served: Served) -> None:
        with suppress(ConnectionClosed):  # the device was cut off
            self._serve(served)

    def _serve(self, served: Served) -> None:
        method, target = served.request["method"], served.request["target"]
        if served.request["upgrade"]:
            self._talk(served)
        elif method in ("GET", "HEAD"):
            self._give(served, target)
        else:
            self.writes.append(target)
            if target.startswith("/late/"):
                self.hurry.wait(60)
            right = served.read(timeout=60) == self.bytes_of(target)
            served.answer(f"{self.name} {right}".encode())

    def bytes_of(self, target: str) -> bytes:
        _, _kind, who, size = target.split("/")
        return marked(f"{self.name}/{who}", int(size))

    def _give(self, served: Served, target: str) -> None:
        if target.count("/") < 3:
            served.answer(self.name.encode())
            return
        content = self.bytes_of(target)
        served.head(200, ("Content-Length", str(len(content))))
        at = 0
        while at < len(content):
            little = target.startswith("/slow/") and not self.hurry.wait(0.05)
            part = content[at : at + (10 * LINE if little else CHUNK)]
            while served.may_send < len(part):
                frame = served.next(60)
                if frame["type"] != "credit":
                    return  # it was cut
                served.may_send += frame["bytes"]
            served.may_send -= len(part)
            served.chunk(part)
            at = self.given[target] = at + len(part)
        served.chunk(b"", end=True)

    def _talk(self, served: Served) -> None:
        served.head(101, *SWITCH)
        waiting = f"{self.name}\n".encode()
        while True:
            while waiting and served.may_send:
                part = waiting[: min(CHUNK, served.may_send)]
                waiting, served.may_send = waiting[len(part) :], served.may_send - len(part)
                served.chunk(part)
            frame = served.next(60)
            if frame["type"] == "credit":
                served.may_send += frame["bytes"]
            elif frame["type"] == "cancel" or frame.get("end"):
                return
            else:
                waiting += (data := base64.b64decode(frame["data"]))
                served.send("credit", bytes=len(data))


class Talk:
    """A browser's open WebSocket."""

    def __init__(self, browser: Browser, path: str = "/terminal") -> None:
        self.wire = browser.socket(path)
        assert head_of(self.wire).startswith("HTTP/1.1 101")
        self.device = self.hear(1)
        while not self.device.endswith(b"\n"):
            self.device += self.hear(1)

    def hear(self, size: int) -> bytes:
        heard = b""
        while len(heard) < size:
            part = self.wire.recv(size - len(heard))
            assert part, f"the socket ended after {len(heard)} bytes"
            heard += part
        return heard

    def say(self, content: bytes) -> bytes:
        """What comes back for some bytes."""
        heard = b""
        for start in range(0, len(content), CHUNK):
            part = content[start : start + CHUNK]
            self.wire.sendall(part)
            heard += self.hear(len(part))
        return heard

    def close(self) -> None:
        self.wire.close()


def download(browser: Browser, target: str) -> bytes:
    answer = browser("GET", target)
    assert answer.status_code == 200, answer.text
    return answer.content


def upload(browser: Browser, target: str, content: bytes) -> str:
    return browser("POST", target, content=content).text


def rest_of(wire: socket.socket) -> bytes:
    """What else comes until the other side closes."""
    came = b""
    try:
        while part := wire.recv(65536):
            came += part
    except ConnectionError:
        return came
    return came


def audit(setting: Setting, kind: str) -> list[dict[str, Any]]:
    """The journal's entries of that kind, oldest first, each with its device's id."""
    query = text("SELECT device_id, fields FROM log_entries WHERE kind = :kind ORDER BY id")
    with db.transaction(setting.org_id) as session:
        return [{**row.fields, "device_id": row.device_id} for row in session.execute(query, {"kind": kind})]


class OneBrowser:
    """One person's browser with one jar of cookies for all hosts, which all are at this machine."""

    def __init__(self) -> None:
        self.sent: dict[str, set[str]] = {}
        """Cookies that left, by host."""
        self.http = httpx.Client(transport=_Loopback(), timeout=20, event_hooks={"request": [self._note]})

    def _note(self, request: httpx.Request) -> None:
        self.sent.setdefault(request.url.host, set()).add(request.headers.get("Cookie", ""))

    def open(self, url: str) -> str:
        """Follow a link to an editor; its origin."""
        answer = self.http.get(url)
        assert answer.status_code == 303, answer.text
        return url.partition("/__edgeflow")[0]

    def close(self) -> None:
        self.http.close()


class _Loopback(httpx.HTTPTransport):
    """Names below ``localhost`` are this machine, as in browsers; not every system's resolver knows."""

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        dialled = httpx.Request(
            request.method, request.url.copy_with(host="127.0.0.1"), headers=request.headers, stream=request.stream
        )
        return super().handle_request(dialled)
