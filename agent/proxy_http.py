"""What the editor's streams are in HTTP: the cloud's order as a request, the local server's answer as a frame's fields.

Everything that crosses is checked on both ways: the order comes from a browser, the answer from a program that may be
ill or hostile. A connection serves one request, so nothing that is wrong with it can reach another's answer.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, TypeGuard

import h11

from agent.hosts import Target
from agent.protocol import Frame

WINDOW = 256 * 1024
"""Bytes of a stream and direction that may be under way without having been credited."""
MAX_HEAD = 32 * 1024
MAX_HEADERS = 100
MAX_TARGET = 16 * 1024

Header = tuple[str, str]

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,256}")
_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
_TARGET = re.compile(r"/[\x21-\x22\x24-\x7e]*")  # what is visible, but no fragment
_LENGTH = re.compile(r"[0-9]{1,18}")
_PROXY_ONLY = ("proxy-authenticate", "proxy-authorization", "proxy-connection")
_HOP_BY_HOP = frozenset(
    ("connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade", "http2-settings", *_PROXY_ONLY)
)
# `Expect` would hold the body back for an answer that cannot cross; the agent names host and framing itself.
_SET_HERE = frozenset(("host", "content-length", "expect"))
_WITHOUT_CHUNKS = frozenset(("CONNECT", "TRACE"))


class StreamError(Exception):
    """The stream is over; `code` as in a `cancel` frame."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code


@dataclass(frozen=True)
class Order:
    """A request as the cloud wants it made. `length` of the body, None: unknown; `window`: bytes until a credit."""

    method: str
    target: str
    headers: tuple[Header, ...]
    body: bool
    upgrade: bool
    window: int
    length: str | None


def order_of(frame: Frame) -> Order:
    """The order in an `http_request` frame; raises StreamError PROTOCOL or TOO_LARGE."""
    method, target, window = frame.get("method"), frame.get("target"), frame.get("window")
    body, upgrade = frame.get("body", False), frame.get("upgrade", False)
    if not isinstance(method, str) or not _TOKEN.fullmatch(method) or method.upper() in _WITHOUT_CHUNKS:
        raise StreamError("PROTOCOL", "method")
    if not isinstance(target, str) or len(target) > MAX_TARGET or not _TARGET.fullmatch(target):
        raise StreamError("PROTOCOL", "target must be a path, and printable")
    if not isinstance(body, bool) or not isinstance(upgrade, bool) or (upgrade and (body or method != "GET")):
        raise StreamError("PROTOCOL", "body and upgrade must be booleans, and an upgrade a GET without a body")
    if not is_count(window):
        raise StreamError("PROTOCOL", "window must be a positive integer")
    headers = _checked(frame.get("headers"))
    lengths = {value for name, value in headers if name.lower() == "content-length"}
    if len(lengths) > 1 or not all(_LENGTH.fullmatch(value) for value in lengths):
        raise StreamError("PROTOCOL", "content-length")
    return Order(method, target, headers, body, upgrade, min(window, WINDOW), next(iter(lengths), None))


def request_of(order: Order, target: Target) -> h11.Request:
    """The request for the local server."""
    headers = [("Host", target.authority), *_forwarded(order, target), *_framing(order)]
    kind = [("Connection", "Upgrade"), ("Upgrade", "websocket")] if order.upgrade else [("Connection", "close")]
    lines = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in (*headers, *kind)]
    return h11.Request(method=order.method, target=f"{target.prefix}{order.target}", headers=lines)


def answer_of(response: h11.Response | h11.InformationalResponse, target: Target, order: Order) -> list[Header]:
    """The headers for the cloud; raises StreamError for what must not cross.

    To the browser, the path at which the editor is served here does not exist: it is taken off again.
    """
    raw = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in response.headers.raw_items()]
    if not 200 <= response.status_code <= 599 and response.status_code != 101:
        raise StreamError("PROTOCOL", f"the local server answered with status {response.status_code}")
    headers = _checked(raw)
    names = {name.lower() for name, _ in headers}
    # With both, the length is not the body's (RFC 9112, 6.3).
    dropped = _hop_by_hop(headers) | ({"content-length"} if "transfer-encoding" in names else set())
    kept = [(name, value) for name, value in headers if name.lower() not in dropped]
    return [(name, _outward(name.lower(), value, target, order)) for name, value in kept]


def is_count(value: Any) -> TypeGuard[int]:
    """Whether it is a positive integer."""
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _checked(headers: Any) -> tuple[Header, ...]:
    if not isinstance(headers, (list, tuple)):
        raise StreamError("PROTOCOL", "headers must be a list")
    if len(headers) > MAX_HEADERS:
        raise StreamError("TOO_LARGE", f"more than {MAX_HEADERS} headers")
    if not all(_is_header(header) for header in headers):
        raise StreamError("PROTOCOL", "a header that HTTP does not allow")
    if sum(len(name) + len(value) + 4 for name, value in headers) > MAX_HEAD:
        raise StreamError("TOO_LARGE", f"more than {MAX_HEAD} bytes of headers")
    return tuple((name, value.strip(" \t")) for name, value in headers)


def _is_header(header: Any) -> bool:
    if not isinstance(header, (list, tuple)) or len(header) != 2:
        return False
    name, value = header
    texts = isinstance(name, str) and isinstance(value, str)
    return texts and bool(_TOKEN.fullmatch(name)) and bool(_VALUE.fullmatch(value))


def _hop_by_hop(headers: Iterable[Header]) -> set[str]:
    """Names that are between two neighbours only: the known ones, and those that Connection lists."""
    listed = [value.lower().split(",") for name, value in headers if name.lower() == "connection"]
    return {*_HOP_BY_HOP, *(name.strip() for names in listed for name in names)}


def _forwarded(order: Order, target: Target) -> list[Header]:
    dropped = _hop_by_hop(order.headers) | _SET_HERE
    kept = [(name, value) for name, value in order.headers if name.lower() not in dropped]
    seen = _seen(order)
    # A server that compares Origin with Host, as many do before they open a WebSocket, must find them alike.
    return [(name, target.origin if (name.lower(), value) == ("origin", seen) else value) for name, value in kept]


def _framing(order: Order) -> list[Header]:
    if order.body:
        return [("Content-Length", order.length)] if order.length else [("Transfer-Encoding", "chunked")]
    return [("Content-Length", "0")] if order.method in ("POST", "PUT", "PATCH") else []


def _seen(order: Order) -> str:
    """The editor's origin as the browser sees it."""
    given = {name.lower(): value for name, value in order.headers}
    return f"{given.get('x-forwarded-proto')}://{given.get('x-forwarded-host')}"


def _outward(name: str, value: str, target: Target, order: Order) -> str:
    if name == "location":
        return _location(value, target, (target.origin, _seen(order)))
    return _cookie(value, target) if name == "set-cookie" and target.prefix else value


def _location(value: str, target: Target, origins: Iterable[str]) -> str:
    """A redirect to the local server itself as a path of the editor's own origin; others stay as they are."""
    path = value
    for origin in origins:
        rest = value[len(origin) :]
        # http://127.0.0.1:18801 only begins like http://127.0.0.1:1880
        if value.lower().startswith(origin) and rest[:1] in ("", "/", "?", "#"):
            path = rest if rest.startswith("/") else f"/{rest}"
    path = _below(path, target.prefix)
    return value if path.startswith("//") else path  # which would name another host


def _below(path: str, prefix: str) -> str:
    """A path without the prefix, if it has it."""
    rest = path[len(prefix) :]
    if not prefix or not path.startswith(prefix) or rest[:1] not in ("", "/", "?", "#"):
        return path
    return rest if rest.startswith("/") else f"/{rest}"


def _cookie(value: str, target: Target) -> str:
    """A cookie for a path below the prefix is one for that path without it: browsers would never send it else."""
    pair, *attributes = value.split(";")
    named = [(part, *part.partition("=")[::2]) for part in attributes]
    kept = [
        f" Path={_below(path.strip(), target.prefix)}" if name.strip().lower() == "path" else part
        for part, name, path in named
    ]
    return ";".join([pair, *kept])
