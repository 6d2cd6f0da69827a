"""One WebSocket, from inside: what a peer sends, or does not read, piles nothing up."""

import json
import math
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from app.errors import ValidationFailed
from app.tunnel.pace import EVENTS_BURST, EVENTS_PER_SECOND, Pace
from app.tunnel.protocol import FRAME_BYTES, OUTBOX_FRAMES, Close
from app.tunnel.socket import Closed, TunnelSocket
from tests.e2e.conftest import until
from tests.tunnel.wire import CLOSE, CONTINUATION, PING, PONG, TEXT, Wire, frame, reading, socket_and_wire

Pair = tuple[TunnelSocket, Wire]


@pytest.fixture
def pair() -> Iterator[Pair]:
    with socket_and_wire() as (tunnel, wire):
        tunnel.max_message_bytes = FRAME_BYTES
        tunnel.start_writer("test")
        yield tunnel, wire


def test_empty_pings_that_nobody_reads_the_pongs_of_wait_as_one(pair: Pair) -> None:
    tunnel, wire = pair
    texts = reading(tunnel)
    for _ in range(OUTBOX_FRAMES * 2):  # one by one the pongs would fill the link, and then the outbox
        wire.frame(PING)
    wire.say("after")
    assert until(lambda: texts, 10) == ["after"]
    assert tunnel.connected
    assert len(tunnel._outbox) <= 1


def test_a_peer_that_does_not_read_is_cut_off_also_by_frames_without_content(pair: Pair) -> None:
    tunnel, _wire = pair

    def post_on() -> None:
        for _ in range(OUTBOX_FRAMES * 20):
            tunnel.post("")

    with pytest.raises(Closed):
        post_on()
    assert not tunnel.connected


def test_frames_come_whole_and_in_order_to_a_peer_that_reads_in_bursts(pair: Pair) -> None:
    """What goes at once, what is left of a frame that did not fit, and what waits behind it."""
    tunnel, wire = pair
    said = [f"{number} " + "x" * (number * 7919 % 90_000) for number in range(400)]
    left = list[int]()

    def post() -> None:
        for text in said:
            tunnel.post(text)
            left.append(tunnel._outbox_bytes)
            while tunnel._outbox_bytes > 100_000:
                time.sleep(0.001)

    posting = threading.Thread(target=post)
    posting.start()
    texts = list[str]()
    while len(texts) < len(said):
        if len(texts) % 10 == 0:
            time.sleep(0.05)
        opcode, payload = wire.read()
        assert opcode == TEXT
        texts.append(payload.decode())
    posting.join(10)
    assert texts == said
    assert 0 in left, "nothing went at once"
    assert any(left), "nothing waited"


def test_fragments_become_one_text_wherever_they_are_cut(pair: Pair) -> None:
    tunnel, wire = pair
    texts = reading(tunnel)
    body = '{"unit": "°C €"}'.encode()
    wire.frame(TEXT, b"", fin=False)
    for place in range(len(body)):
        wire.frame(CONTINUATION, body[place : place + 1], fin=False)
        wire.frame(PING, b"between")
    wire.frame(CONTINUATION, b"")
    assert until(lambda: texts, 5) == ['{"unit": "°C €"}']


def test_a_frame_is_measured_in_bytes_also_in_fragments(pair: Pair) -> None:
    tunnel, wire = pair
    reading(tunnel)
    euros = "€".encode() * (FRAME_BYTES // 6)  # in characters two of them would still fit
    wire.frame(TEXT, euros, fin=False)
    wire.frame(CONTINUATION, euros, fin=False)
    wire.frame(CONTINUATION, b"x" * 16)
    assert wire.code() == Close.TOO_BIG


def test_only_the_pong_to_our_own_ping_tells_a_round_trip(pair: Pair) -> None:
    tunnel, wire = pair
    texts = reading(tunnel)
    for claim in (b"nan", b"-1e308", b"0", b""):
        wire.frame(PONG, claim)
    wire.say("after")
    until(lambda: texts, 5)
    assert tunnel.rtt_ms is None
    tunnel.ping()
    opcode, payload = wire.read()
    assert opcode == PING
    wire.frame(PONG, payload)
    assert 0 <= until(lambda: tunnel.rtt_ms, 5) < 5_000
    assert math.isfinite(tunnel.rtt_ms)


def test_frames_after_the_peers_close_are_dropped_and_the_close_is_answered(pair: Pair) -> None:
    tunnel, wire = pair
    tunnel.post("x" * 4_000_000)  # fills the link: the next one still waits when the close frame comes
    tunnel.post("too late")
    wire.frame(CLOSE, (1000).to_bytes(2))
    tunnel._receive()
    with pytest.raises(Closed):
        tunnel.post("much too late")
    assert wire.code() == 1000


def test_what_a_peer_said_before_it_closed_is_still_read(pair: Pair) -> None:
    tunnel, wire = pair
    answer = json.dumps({"type": "response"})
    wire.sock.sendall(frame(TEXT, answer.encode()) + frame(CLOSE, (1000).to_bytes(2)))
    assert list(tunnel.messages()) == [answer]


def test_a_reason_for_closing_can_be_written_down() -> None:
    with socket_and_wire() as (tunnel, wire):
        wire.frame(CLOSE, (1000).to_bytes(2) + b"a\0b")
        list(tunnel.messages())
        assert tunnel.close_message == "ab"  # PostgreSQL keeps no NUL


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (frame(2, b"\0\1"), Close.UNSUPPORTED),
        (frame(TEXT, b"\xff\xfe"), 1007),
        (frame(TEXT, b"{}", rsv=4), 1002),  # as if compression had been agreed
        (frame(TEXT, b"{}", masked=False), 1002),
        (frame(CONTINUATION, b"x"), 1002),
        (frame(TEXT, b"a", fin=False) + frame(TEXT, b"b"), 1002),
        (frame(PING, b"x" * 126), 1002),
        (frame(PING, fin=False), 1002),
        (frame(CLOSE, b"\x03"), 1002),
        (frame(11), 1002),
    ],
)
def test_a_broken_frame_closes_with_its_code(pair: Pair, sent: bytes, code: int) -> None:
    tunnel, wire = pair
    reading(tunnel)
    wire.sock.sendall(sent)
    assert wire.code() == code


def test_a_peer_has_not_much_to_say_before_it_connects() -> None:
    with socket_and_wire() as (tunnel, wire):
        wire.sock.sendall(frame(PING) * 500)
        started = time.monotonic()
        with pytest.raises(Closed, match="too much"):
            tunnel.first(5)
        assert time.monotonic() - started < 2


def test_a_first_frame_that_dribbles_in_has_five_seconds_in_all() -> None:
    with socket_and_wire() as (tunnel, wire):
        wire.sock.sendall(frame(TEXT, b'{"type": "connect"}')[:10])
        started = time.monotonic()
        with pytest.raises(Closed, match="in time"):
            tunnel.first(0.5)
        assert 0.4 < time.monotonic() - started < 2


def test_a_flood_is_read_at_a_pace() -> None:
    pace = Pace()
    for _ in range(EVENTS_BURST):
        pace.count()
    assert pace.wait() == 0
    for _ in range(EVENTS_PER_SECOND * 2):
        pace.count()
    assert 1.5 < pace.wait() <= 2


@pytest.mark.parametrize("missing", ["HTTP_SEC_WEBSOCKET_KEY", "HTTP_SEC_WEBSOCKET_VERSION"])
def test_half_an_upgrade_is_the_callers_mistake(missing: str) -> None:
    here, there = socket.socketpair()
    environ = {
        "gunicorn.socket": here,
        "HTTP_HOST": "test",
        "HTTP_UPGRADE": "websocket",
        "HTTP_CONNECTION": "Upgrade",
        "HTTP_SEC_WEBSOCKET_KEY": "dGhlIHNhbXBsZSBub25jZQ==",
        "HTTP_SEC_WEBSOCKET_VERSION": "13",
    }
    del environ[missing]
    with pytest.raises(ValidationFailed):
        TunnelSocket(environ)
    here.close()
    there.close()
