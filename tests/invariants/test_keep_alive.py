"""Many requests on one connection: each is read for itself, whatever the last one said."""

import json
import socket
import time
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from typing import Any

import pytest

from tests.invariants.conftest import Caller
from tests.platform import Platform

pytestmark = pytest.mark.xdist_group("own_servers")

Reply = tuple[int, dict[str, str], Any]


class Line:
    """A connection that stays open."""

    def __init__(self, platform: Platform) -> None:
        self.socket = socket.create_connection(("127.0.0.1", platform.ports[0]), timeout=10)
        self.file = self.socket.makefile("rb")

    def send(self, first: str, *headers: str, body: bytes = b"") -> None:
        lines = [f"{first} HTTP/1.1", "Host: x", *headers]
        if body:
            lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
        self.socket.sendall("\r\n".join([*lines, "", ""]).encode() + body)

    def reply(self) -> Reply:
        status = int(self.file.readline().split()[1])
        headers = dict[str, str]()
        while line := self.file.readline().strip().decode():
            name, _, value = line.partition(": ")
            headers[name.lower()] = value
        text = self.file.read(int(headers.get("content-length", "0")))
        is_json = headers.get("content-type") == "application/json"
        return status, headers, json.loads(text) if is_json else text

    def ask(self, first: str, *headers: str, body: bytes = b"") -> Reply:
        self.send(first, *headers, body=body)
        return self.reply()


@pytest.fixture
def line(own_platform: Platform) -> Iterator[Line]:
    made = Line(own_platform)
    yield made
    made.file.close()
    made.socket.close()


def bearer(caller: Caller) -> str:
    return f"Authorization: {caller.http.headers['Authorization']}"


def test_each_request_is_its_own_caller_s(own_platform: Platform, line: Line) -> None:
    """Headers that are the same as the last time are not read again; those that are not, are."""
    ada, bob = Caller(own_platform.url()), Caller(own_platform.url())
    who = {caller: caller("GET", "/auth/profile")["email"] for caller in (ada, bob)}
    for caller in (ada, ada, bob, ada, bob, bob):
        status, _headers, body = line.ask("GET /api/v1/auth/profile", bearer(caller))
        assert (status, body["email"]) == (200, who[caller])
    assert line.ask("GET /api/v1/auth/profile")[0] == 401
    assert line.ask("GET /api/v1/auth/profile", bearer(ada))[2]["email"] == who[ada]


def test_a_request_s_id_is_its_own(line: Line) -> None:
    given = [line.ask("GET /healthz", f"X-Request-Id: r-{number // 2}")[1]["x-request-id"] for number in range(6)]
    assert given == ["r-0", "r-0", "r-1", "r-1", "r-2", "r-2"]
    made = {line.ask("GET /healthz")[1]["x-request-id"] for _ in range(5)}
    assert len(made) == 5


def test_a_body_that_nobody_read_is_not_the_next_request(line: Line) -> None:
    body = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
    for _ in range(3):
        assert line.ask("POST /api/v1/nope", body=body)[0] == 404
        assert line.ask("GET /healthz")[2] == b"ok\n"


def test_requests_that_come_together_are_answered_in_turn(line: Line) -> None:
    for number in range(20):
        line.send("GET /healthz" if number % 2 else "GET /api/v1/nope", f"X-Request-Id: r-{number}")
    replies = [line.reply() for _ in range(20)]
    assert [(status, headers["x-request-id"]) for status, headers, _body in replies] == [
        (200 if number % 2 else 404, f"r-{number}") for number in range(20)
    ]


def test_a_request_that_comes_in_pieces_is_read_whole(line: Line) -> None:
    whole = b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Request-Id: slow\r\n\r\n"
    for _ in range(2):
        for piece in (whole[:10], whole[10:30], whole[30:-2], whole[-2:]):
            line.socket.sendall(piece)
            time.sleep(0.05)
        status, headers, _body = line.reply()
        assert (status, headers["x-request-id"]) == (200, "slow")


def test_whoever_asks_whether_to_go_on_is_told_so_each_time(line: Line) -> None:
    body = b'{"email": "nobody@example.com", "password": "wrong password"}'
    head = f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\nExpect: 100-continue"
    for _ in range(2):
        line.send("POST /api/v1/auth/login", head)
        assert line.file.readline().split()[1] == b"100"
        assert line.file.readline() == b"\r\n"
        line.socket.sendall(body)
        assert line.reply()[0] == 401


def test_the_date_is_now(line: Line) -> None:
    for _ in range(2):
        told = parsedate_to_datetime(line.ask("GET /healthz")[1]["date"]).timestamp()
        assert abs(told - time.time()) < 5
        time.sleep(1.1)


def test_a_large_answer_comes_whole_to_a_slow_reader(line: Line) -> None:
    """More than the kernel takes at once."""
    line.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32_768)
    for _ in range(2):
        line.send("GET /api/v1/openapi.json")
        time.sleep(0.3)
        status, headers, body = line.reply()
        assert (status, body["openapi"]) == (200, "3.1.0")
        assert int(headers["content-length"]) > 100_000


def test_a_connection_that_says_nothing_is_closed(line: Line) -> None:
    line.ask("GET /healthz")
    started = time.monotonic()
    line.socket.settimeout(15)
    assert line.socket.recv(1) == b""
    assert 3 < time.monotonic() - started < 12
