"""A stream's two ends in the cloud, without processes: what each takes, tells and forgets."""

import threading
from typing import Any

import pytest

from app.edge_nodes.editor import proxy
from app.tunnel import protocol
from app.tunnel.protocol import CHUNK_BYTES, MAX_STREAMS, MAX_STREAMS_OF_ONE, WINDOW_BYTES, Frame
from app.tunnel.relay import Caller, Relay
from app.tunnel.streams import CREDIT_BYTES, NothingYet, Stream, StreamFailed

REQUEST: Frame = {"method": "GET", "target": "/", "headers": [], "body": False, "upgrade": False}
HEAD: Frame = {"type": "http_response", "id": "s", "status": 200, "headers": [["A", "b"]], "window": WINDOW_BYTES}

WAITING: Frame = {"type": "http_response", "id": "s", "status": 102, "headers": [], "window": WINDOW_BYTES}


class Ends:
    """A stream whose frames are caught."""

    def __init__(self, **request: Any) -> None:
        self.posted: list[Frame] = []
        self.forgotten: list[Stream] = []
        self.stream = Stream("s", {**REQUEST, **request}, self.posted.append, self.forgotten.append)

    def chunk(self, data: bytes, *, end: bool = False) -> None:
        self.stream.take(protocol.chunk("s", data, end=end))


def test_what_was_read_is_credited_when_more_is_asked_for() -> None:
    ends = Ends()
    ends.stream.take(HEAD)
    for _ in range(WINDOW_BYTES // CHUNK_BYTES):
        ends.chunk(b"x" * CHUNK_BYTES)
    for _ in range(CREDIT_BYTES // CHUNK_BYTES):
        ends.stream.read(0)
    assert ends.posted == []
    ends.stream.read(0)
    assert ends.posted == [protocol.credit("s", CREDIT_BYTES)]


def test_what_came_before_a_failure_is_still_there() -> None:
    ends = Ends()
    ends.stream.take(HEAD)
    ends.chunk(b"begins")
    ends.stream.take(protocol.cancel("s", "CLOSED", "gone"))
    assert ends.stream.head(0).status == 200
    assert ends.stream.read(0) == b"begins"
    with pytest.raises(StreamFailed, match="gone"):
        ends.stream.read(0)
    assert ends.forgotten == [ends.stream]


def test_many_small_pieces_take_no_more_room_than_their_bytes() -> None:
    ends = Ends()
    ends.stream.take(HEAD)
    for _ in range(1_000):
        ends.chunk(b"x")
    assert ends.stream.read(0) == b"x" * 1_000


def test_a_stream_is_over_when_both_directions_have_ended() -> None:
    ends = Ends(body=True)
    ends.stream.take(HEAD)
    ends.chunk(b"", end=True)
    assert ends.forgotten == []
    ends.stream.write(b"all", end=True)
    assert ends.posted == [protocol.chunk("s", b"all", end=True)]
    assert ends.forgotten == [ends.stream]
    ends.stream.close()
    assert len(ends.posted) == 1


def test_an_end_without_bytes_is_told() -> None:
    ends = Ends(body=True)
    ends.stream.write(b"some")
    ends.stream.write(b"", end=True)
    assert ends.posted == [protocol.chunk("s", b"some", end=False), protocol.chunk("s", b"", end=True)]


def test_whoever_waits_for_the_window_goes_on_with_credit_and_ends_with_a_failure() -> None:
    ends = Ends(body=True)
    outcomes: list[str] = []

    def upload() -> None:
        try:
            ends.stream.write(b"x" * (WINDOW_BYTES + 2 * CHUNK_BYTES))
        except StreamFailed as failed:
            outcomes.append(failed.code)

    thread = threading.Thread(target=upload)
    thread.start()
    thread.join(0.3)
    assert len(ends.posted) == WINDOW_BYTES // CHUNK_BYTES
    ends.stream.take(protocol.credit("s", CHUNK_BYTES))
    thread.join(0.3)
    assert len(ends.posted) == WINDOW_BYTES // CHUNK_BYTES + 1
    ends.stream.take(protocol.cancel("s", "TIMEOUT", "enough"))
    thread.join(5)
    assert outcomes == ["TIMEOUT"]


@pytest.mark.parametrize(
    "frames",
    [
        [HEAD, HEAD],
        [HEAD, WAITING],
        [{**HEAD, "status": 700}],
        [{**HEAD, "status": True}],
        [{**HEAD, "headers": [["A"]]}],
        [{**HEAD, "headers": [["A", 1]]}],
        [{**HEAD, "headers": [["A", "b"]] * 101}],
        [{**HEAD, "headers": [["A", "b" * 33_000]]}],
        [{**HEAD, "headers": None}],
        [protocol.chunk("s", b"before", end=False)],
        [HEAD, {"type": "chunk", "id": "s", "data": "not base64!", "end": False}],
        [protocol.credit("s", 1)],
        [{"type": "credit", "id": "s", "bytes": "1"}],
    ],
)
def test_a_malformed_frame_ends_the_stream_on_both_sides(frames: list[Frame]) -> None:
    ends = Ends()
    for frame in frames:
        ends.stream.take(frame)
    assert ends.posted[-1]["code"] == "PROTOCOL"
    assert ends.forgotten == [ends.stream]
    with pytest.raises(StreamFailed):
        Stream.read(ends.stream, 0)


def test_nothing_yet_is_no_failure() -> None:
    ends = Ends()
    with pytest.raises(NothingYet):
        ends.stream.head(0.01)
    ends.stream.take(HEAD)
    assert ends.stream.head(0).headers == [("A", "b")]


def test_a_device_that_still_waits_for_its_editor_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """As long as it says so; without a word the caller's patience is short."""
    monkeypatch.setattr(proxy, "HEAD_SECONDS", 0.3)
    ends, stop = Ends(), threading.Event()

    def tell() -> None:
        for _ in range(10):
            if stop.wait(0.1):
                return
            ends.stream.take(WAITING)
        ends.stream.take(HEAD)

    thread = threading.Thread(target=tell)
    thread.start()
    try:
        assert proxy._head(ends.stream).status == 200
    finally:
        stop.set()
        thread.join(5)
    silent = Ends()
    with pytest.raises(NothingYet):
        proxy._head(silent.stream)


HERE = Caller("here", "user:ada")


class Wire:
    """In place of a socket: what is written to the device."""

    def __init__(self) -> None:
        self.frames: list[Any] = []
        self.forgiven = 0

    def post(self, text: str) -> None:
        self.frames.append(protocol.parse(text))

    post_bulk = post

    def forgive(self, events: int) -> None:
        self.forgiven += events


def relay_of(**request: Any) -> tuple[Relay, Wire, list[Frame]]:
    wire, back = Wire(), list[Frame]()
    relay = Relay(wire)  # type: ignore[arg-type]
    relay.from_caller(HERE, protocol.http_request("s", {**REQUEST, **request}), back.append)
    return relay, wire, back


@pytest.mark.parametrize(
    ("frames", "fault"),
    [
        ([HEAD, HEAD], "a second head"),
        ([HEAD, WAITING], "a second head"),
        ([WAITING, protocol.chunk("s", b"x", end=False)], "a chunk before the head, or without data"),
        ([{**HEAD, "status": 101}], "101 for no upgrade"),
        ([protocol.chunk("s", b"x", end=False)], "a chunk before the head, or without data"),
        ([HEAD, {"type": "chunk", "id": "s", "data": 5}], "a chunk before the head, or without data"),
        ([HEAD, protocol.chunk("s", b"x" * (CHUNK_BYTES + 1), end=False)], "a chunk too large"),
        ([HEAD, *9 * [protocol.chunk("s", b"x" * CHUNK_BYTES, end=False)]], "beyond the window"),
        ([{"type": "credit", "id": "s", "bytes": -5}], "no credit"),
        ([{"type": "credit", "id": "s", "bytes": True}], "no credit"),
    ],
)
def test_a_device_that_breaks_the_protocol_loses_the_stream(frames: list[Frame], fault: str) -> None:
    relay, wire, back = relay_of()
    for frame in frames:
        assert relay.from_device(frame)
    assert (wire.frames[-1]["code"], wire.frames[-1]["error"]) == ("PROTOCOL", fault)
    assert back[-1]["code"] == "PROTOCOL"
    assert relay.callers == set()
    assert not relay.from_device(HEAD)


def test_credit_opens_the_window_by_as_much() -> None:
    relay, wire, back = relay_of()
    relay.from_device(HEAD)
    for _ in range(8):
        relay.from_device(protocol.chunk("s", b"x" * CHUNK_BYTES, end=False))
    relay.from_caller(HERE, protocol.credit("s", CHUNK_BYTES), back.append)
    relay.from_device(protocol.chunk("s", b"x" * CHUNK_BYTES, end=True))
    assert back[-1]["end"] is True
    assert [frame["type"] for frame in wire.frames] == ["http_request", "credit"]
    assert relay.callers == set()


def test_a_device_that_still_waits_may_say_so_before_it_answers() -> None:
    relay, wire, back = relay_of()
    for frame in (WAITING, WAITING, HEAD):
        relay.from_device(frame)
    assert back == [WAITING, WAITING, HEAD]
    assert len(wire.frames) == 1


def test_one_stream_too_many_is_told_as_such() -> None:
    relay, wire, back = relay_of()
    for number in range(MAX_STREAMS):
        asker = HERE._replace(actor=f"user:{number % 2}")
        relay.from_caller(asker, protocol.http_request(f"s{number}", REQUEST), back.append)
    assert [(frame["id"], frame["code"]) for frame in back] == [(f"s{MAX_STREAMS - 1}", "BUSY")]
    assert len(wire.frames) == MAX_STREAMS


def test_one_person_leaves_room_for_others() -> None:
    """From whatever processes he asks."""
    relay, wire, back = relay_of()
    for number in range(1, MAX_STREAMS_OF_ONE + 1):
        asker = HERE._replace(process=f"web{number % 3}")
        relay.from_caller(asker, protocol.http_request(f"s{number}", REQUEST), back.append)
    assert [(frame["id"], frame["code"]) for frame in back] == [(f"s{MAX_STREAMS_OF_ONE}", "BUSY")]
    other = HERE._replace(actor="user:eve")
    for number in range(MAX_STREAMS - MAX_STREAMS_OF_ONE):
        relay.from_caller(other, protocol.http_request(f"t{number}", REQUEST), back.append)
    assert len(back) == 1
    relay.from_device(protocol.cancel("s1", "CLOSED", ""))
    relay.from_caller(HERE, protocol.http_request("again", REQUEST), back.append)
    assert wire.frames[-1]["id"] == "again"


def test_a_lost_socket_is_told_to_every_caller_and_takes_no_more() -> None:
    relay, wire, back = relay_of()
    relay.lost()
    relay.from_caller(HERE, protocol.http_request("later", REQUEST), back.append)
    assert [(frame["id"], frame["code"]) for frame in back] == [("s", "CLOSED"), ("later", "OFFLINE")]
    assert len(wire.frames) == 1


def test_a_caller_that_died_is_told_to_the_device() -> None:
    relay, wire, _back = relay_of()
    relay.drop_callers({"elsewhere"}, "gone")
    assert relay.callers == {"here"}
    relay.drop_callers({"here"}, "gone")
    assert wire.frames[-1]["type"] == "cancel"
