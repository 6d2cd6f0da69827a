"""Requests that are too large, too slow, or none at all: refused in the one shape, and nobody else is held up."""

import json
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from typing import Any

import pytest

from tests.invariants.conftest import Caller
from tests.platform import Platform

pytestmark = pytest.mark.xdist_group("own_servers")

HEAD = b"Host: x\r\nConnection: close\r\n"
LOGIN = b"POST /api/v1/auth/login HTTP/1.1\r\n" + HEAD + b"Content-Type: application/json\r\n"
GET = b"GET /api/v1/devices HTTP/1.1\r\n" + HEAD
DEEP = b'{"a":' * 2000 + b"1" + b"}" * 2000


def chunked(size: int) -> bytes:
    whole = b'{"email": "a@example.com", "password": "' + b"x" * size + b'"}'
    chunks = (whole[start : start + 65_536] for start in range(0, len(whole), 65_536))
    return b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"


REQUESTS = {
    "200 headers": (431, GET + b"".join(b"X-%d: 1\r\n" % n for n in range(200)) + b"\r\n"),
    "a header of 20 KB": (431, GET + b"X-Big: " + b"x" * 20_000 + b"\r\n\r\n"),
    "a line of 20 KB": (414, b"GET /api/v1/devices?q=" + b"x" * 20_000 + b" HTTP/1.1\r\n" + HEAD + b"\r\n"),
    "no HTTP": (400, b"\x00\x01\x02\r\n\r\n"),
    "NUL in a header": (400, GET + b"X-API-Key: a\0b\r\n\r\n"),
    "two lengths": (400, LOGIN + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    "a negative length": (400, LOGIN + b"Content-Length: -1\r\n\r\n"),
    "no UTF-8 in the path": (400, b"GET /api/v1/\xff\xfe HTTP/1.1\r\n" + HEAD + b"\r\n"),
    "an unknown method": (405, b"FOO /api/v1/devices HTTP/1.1\r\n" + HEAD + b"\r\n"),
    "another path in a header": (401, GET + b"SCRIPT_NAME: /x\r\nPATH_INFO: /healthz\r\n\r\n"),
    "3 MB": (413, LOGIN + b"Content-Length: 3000000\r\n\r\n"),
    "3 MB in chunks": (413, LOGIN + b"Transfer-Encoding: chunked\r\n\r\n" + chunked(3_000_000)),
    "2,000 levels": (400, LOGIN + b"Content-Length: %d\r\n\r\n" % len(DEEP) + DEEP),
    "no such range": (
        416,
        b"GET /api/v1/docs/assets/swagger-ui.css HTTP/1.1\r\n" + HEAD + b"Range: bytes=99999999999-\r\n\r\n",
    ),
}


def ask(platform: Platform, request: bytes) -> tuple[int, Any]:
    with socket.create_connection(("127.0.0.1", platform.ports[0]), timeout=5) as connection:
        connection.settimeout(5)
        with suppress(ConnectionError):  # it was refused before it was whole
            connection.sendall(request)
        answer = b"".join(iter(lambda: received(connection), b""))
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)


def received(connection: socket.socket) -> bytes:
    try:
        return connection.recv(65_536)
    except ConnectionResetError:  # the rest of an oversized body went to a closed socket
        return b""


@pytest.mark.parametrize("name", REQUESTS)
def test_a_malformed_request_is_refused_in_the_one_shape(own_platform: Platform, name: str) -> None:
    expected, request = REQUESTS[name]
    status, body = ask(own_platform, request)
    assert (status, body["status"]) == (expected, expected), body
    assert body.keys() >= {"error", "code", "status", "request_id"}


@pytest.fixture
def slow_bodies(own_platform: Platform) -> Iterator[Caller]:
    """More signed-in callers that send a body a byte at a time than there are database connections."""
    ada = Caller(own_platform.url())
    credentials = b"Authorization: %b\r\n" % ada.http.headers["Authorization"].encode()
    head = b"POST /api/v1/devices HTTP/1.1\r\n" + HEAD + b"Content-Type: application/json\r\nContent-Length: 99\r\n"
    with ExitStack() as stack:
        for _ in range(30):
            sender = stack.enter_context(socket.create_connection(("127.0.0.1", own_platform.ports[0])))
            sender.sendall(head + credentials + b"\r\n{")
        time.sleep(0.5)
        yield ada


def test_slow_bodies_hold_nobody_up(slow_bodies: Caller) -> None:
    started = time.monotonic()
    slow_bodies("GET", "/devices")
    assert time.monotonic() - started < 2
