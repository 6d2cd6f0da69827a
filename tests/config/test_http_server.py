"""What stands in place of gunicorn's own functions does what they do."""

import time
from email.utils import parsedate_to_datetime
from typing import Any

import gevent
import gevent.socket
import gunicorn.util
import pytest
from gunicorn.config import Config
from gunicorn.http.errors import InvalidHeader
from gunicorn.http.parser import RequestParser
from hypothesis import given
from hypothesis import strategies as st

from config.launch import http_server

gunicorn_date = http_server._http_date


@pytest.fixture(autouse=True, scope="module")
def _patched() -> None:
    http_server.patch()


def test_what_the_kernel_does_not_take_at_once_is_sent_after_that() -> None:
    ours, theirs = gevent.socket.socketpair()
    ours.setsockopt(gevent.socket.SOL_SOCKET, gevent.socket.SO_SNDBUF, 4096)
    data, got = bytes(range(256)) * 8_000, bytearray()

    def read() -> None:
        while piece := theirs.recv(10_000):
            got.extend(piece)

    reading = gevent.spawn(read)
    http_server.write(ours, data)
    ours.close()
    reading.join(10)
    assert bytes(got) == data


def test_chunks_are_framed() -> None:
    ours, theirs = gevent.socket.socketpair()
    http_server.write(ours, b"abc", chunked=True)
    assert theirs.recv(100) == b"3\r\nabc\r\n"


@given(moment=st.floats(0, 4e9))
def test_a_date_is_gunicorn_s(moment: float) -> None:
    assert http_server.http_date(moment) == gunicorn_date(int(moment))


def test_without_a_moment_it_is_now() -> None:
    assert abs(parsedate_to_datetime(http_server.http_date()).timestamp() - time.time()) <= 1


names = st.sampled_from(["Accept", "X-Request-Id", "Authorization", "Expect", "Cookie", "Content-Length", "X_Under"])
values = st.sampled_from(["a", "b", "100-continue", "0", "\x01"])
heads = st.lists(st.lists(st.tuples(names, values), max_size=4), min_size=1, max_size=4)


@given(heads=heads)
def test_requests_of_one_connection_are_read_as_if_each_had_its_own(heads: list[list[tuple[str, str]]]) -> None:
    """What gunicorn itself makes of each is the reference; a refused one ends its connection."""
    requests = [head(one) for one in heads]
    together = read_all(b"".join(requests))
    alone = [read_all(request)[0] for request in requests]
    wrong = next((number for number, one in enumerate(alone) if isinstance(one, str)), len(alone) - 1)
    assert together == alone[: wrong + 1]


def configured() -> Config:
    made = Config()
    made.set("secure_scheme_headers", {})  # as config/gunicorn.py has it
    return made


def head(headers: list[tuple[str, str]]) -> bytes:
    lines = ["GET / HTTP/1.1", "Host: x", *(f"{name}: {value}" for name, value in headers)]
    return "\r\n".join([*lines, "", ""]).encode()


def read_all(data: bytes) -> list[Any]:
    """Of each request its headers and whether it wants to be told to go on; of a refused one the kind of error."""
    parser = RequestParser(configured(), iter([data]), ("127.0.0.1", 1))
    found = list[Any]()
    try:
        for request in parser:
            found.append((request.headers, request._expected_100_continue, request.should_close()))
    except Exception as error:
        found.append(type(error).__name__)
    return found


def test_remembered_headers_are_nobody_s_to_change() -> None:
    request = head([("Accept", "a")])
    parser = RequestParser(configured(), iter([request * 3]), ("127.0.0.1", 1))
    for made in parser:
        assert made.headers == [("HOST", "x"), ("ACCEPT", "a")]
        made.headers.clear()


def test_a_wrong_header_is_wrong_also_after_right_ones() -> None:
    assert read_all(head([("Accept", "a")]) * 2 + head([("Accept", "\x01")]))[-1] == InvalidHeader.__name__
    assert gunicorn.util.write is http_server.write
