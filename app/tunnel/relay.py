"""The streams of one device's connection: the end of the process that holds the tunnel.

It knows where each stream's frames go, here or in another process, and lets nothing of a device through that does not
keep to the windows: what waits on the way to a browser is bounded whatever the device does.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import structlog
from prometheus_client import Counter

from app.tunnel import protocol
from app.tunnel.protocol import CHUNK_BYTES, MAX_STREAMS, MAX_STREAMS_OF_ONE, STILL_WAITING, WINDOW_BYTES, Frame
from app.tunnel.socket import Closed, TunnelSocket

log = structlog.get_logger("tunnel")

VIOLATIONS = Counter("edgeflow_stream_violations_total", "Streams that a device broke the protocol of")

Back = Callable[[Frame], None]
BYTES_AN_EVENT = 1_024


class Caller(NamedTuple):
    """The process that asks, and for whom."""

    process: str
    actor: str


@dataclass(eq=False)
class _Route:
    """Where a stream's frames go. ``allowed``: bytes that the device may send."""

    caller: Caller
    back: Back
    upgrade: bool
    sent_all: bool
    received_all: bool = False
    answered: bool = False
    upgraded: bool = False
    allowed: int = WINDOW_BYTES

    @property
    def over(self) -> bool:
        ended = self.sent_all or self.received_all
        return ended if self.upgraded else self.sent_all and self.received_all


class Relay:
    """Between the callers of a device's editor and its socket."""

    def __init__(self, socket: TunnelSocket) -> None:
        self._socket = socket
        self._routes: dict[str, _Route] = {}
        self._lock = threading.Lock()
        self._lost = False

    @property
    def callers(self) -> set[str]:
        """The processes whose streams run here."""
        return {route.caller.process for route in list(self._routes.values())}

    def from_caller(self, caller: Caller, frame: Frame, back: Back) -> None:
        """Hand a frame on to the device; ``back`` takes what it answers. Those of streams that are over are dropped."""
        if frame["type"] == "http_request":
            self._open(caller, frame, back)
            return
        with self._lock:
            route = self._routes.get(frame["id"])
            if route is None:
                return
            if frame["type"] == "credit":
                route.allowed += frame["bytes"]
            route.sent_all = route.sent_all or frame.get("end") is True
            if route.over or frame["type"] == "cancel":
                del self._routes[frame["id"]]
        self._send(frame)

    def _open(self, caller: Caller, frame: Frame, back: Back) -> None:
        with self._lock:
            lost, busy = self._lost, self._busy(caller.actor)
            if not lost and not busy:
                self._routes[frame["id"]] = _Route(caller, back, frame["upgrade"], not frame["body"])
        if lost:
            back(protocol.cancel(frame["id"], "OFFLINE", "the device disconnected"))
        elif busy:
            back(protocol.cancel(frame["id"], "BUSY", "too much is asked of the device at once"))
        else:
            self._send(frame)

    def _busy(self, actor: str) -> bool:
        """Whether there is no room for another stream of theirs (the lock is held)."""
        own = sum(route.caller.actor == actor for route in self._routes.values())
        return len(self._routes) >= MAX_STREAMS or own >= MAX_STREAMS_OF_ONE

    def from_device(self, frame: Frame) -> bool:
        """Hand a frame on to whom it is for. False for one of no stream: late, or never opened."""
        stream_id = str(frame.get("id"))
        with self._lock:
            route = self._routes.get(stream_id)
            if route is None:
                return False
            fault = _fault(route, frame)
            if fault or route.over or frame["type"] == "cancel":
                del self._routes[stream_id]
        if fault:
            self._refuse(stream_id, route, fault)
            return True
        if frame["type"] == "chunk":
            self._socket.forgive(len(frame["data"]) // BYTES_AN_EVENT)  # the window is its pace
        route.back(frame)
        return True

    def drop(self, stream_id: str, error: str) -> None:
        """Frames of a stream may not arrive any more: tell the device, and the caller, if he is there."""
        with self._lock:
            route = self._routes.pop(stream_id, None)
        if route is not None:
            ending = protocol.cancel(stream_id, "CLOSED", error)
            self._send(ending)
            route.back(ending)

    def drop_callers(self, processes: set[str], error: str) -> None:
        """As ``drop``, for all streams of some processes."""
        for stream_id, route in list(self._routes.items()):
            if route.caller.process in processes:
                self.drop(stream_id, error)

    def lost(self) -> None:
        """The socket is gone: whoever waits learns it."""
        with self._lock:
            self._lost = True
            orphans, self._routes = self._routes, {}
        for stream_id, route in orphans.items():
            route.back(protocol.cancel(stream_id, "CLOSED", "the device disconnected"))

    def _refuse(self, stream_id: str, route: _Route, fault: str) -> None:
        VIOLATIONS.inc()
        log.warning("stream cancelled: a frame against the protocol", stream=stream_id, fault=fault)
        self._send(protocol.cancel(stream_id, "PROTOCOL", fault))
        route.back(protocol.cancel(stream_id, "PROTOCOL", "the device broke the protocol"))

    def _send(self, frame: Frame) -> None:
        try:
            if frame["type"] == "chunk":
                self._socket.post_bulk(protocol.encode(frame))
            else:
                self._socket.post(protocol.encode(frame))
        except Closed:
            return  # ``lost`` follows, and tells everybody


def _fault(route: _Route, frame: Frame) -> str | None:
    """What is wrong with a frame of a device, after it is counted (the lock is held)."""
    if frame["type"] == "http_response":
        return _take_head(route, frame)
    if frame["type"] == "credit":
        return None if type(frame.get("bytes")) is int and 0 < frame["bytes"] <= WINDOW_BYTES else "no credit"
    if frame["type"] == "chunk":
        return _take_chunk(route, frame)
    return None


def _take_head(route: _Route, frame: Frame) -> str | None:
    if route.answered:
        return "a second head"
    if frame.get("status") == STILL_WAITING:
        return None
    route.answered = True
    if frame.get("status") == 101:
        if not route.upgrade:
            return "101 for no upgrade"
        route.upgraded, route.sent_all = True, False
    return None


def _take_chunk(route: _Route, frame: Frame) -> str | None:
    data = frame.get("data")
    if not route.answered or not isinstance(data, str):
        return "a chunk before the head, or without data"
    size = len(data) // 4 * 3 - data[-2:].count("=")
    if size > CHUNK_BYTES:
        return "a chunk too large"
    route.allowed -= size
    if route.allowed < 0:
        return "beyond the window"
    route.received_all = frame.get("end") is True
    return None
