"""The streams of this process: opened to devices that are here, or over the link to the process that holds them.

The link keeps the order of what one process sends. Where it may have lost something (it was cut, nobody listened) the
streams that went over it are cancelled: bytes that are missing in the middle would be worse than an end.
"""

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

import structlog

from app.tunnel import protocol
from app.tunnel.link import Message
from app.tunnel.protocol import Frame
from app.tunnel.relay import Caller, Relay
from app.tunnel.streams import Stream

if TYPE_CHECKING:
    from app.tunnel.hub import Hub

log = structlog.get_logger(__name__)

WATCH_SECONDS = 1.0
READY_SECONDS = 2.0


class Exchange:
    """Both ends in this process: callers' streams, and the relays of the devices that it holds."""

    def __init__(self, hub: "Hub") -> None:
        self._hub = hub
        self._streams: dict[str, tuple[Stream, str]] = {}
        """By id, with the gateway."""
        self._pause = threading.Event()
        threading.Thread(target=self._watch, name="tunnel-streams", daemon=True).start()

    def open(self, device_id: UUID, gateway: str, actor: str, request: Frame) -> Stream:
        """Ask a device's editor for somebody. ``request``: ``method``, ``target``, ``headers``, ``body``, ``upgrade``.

        What goes wrong comes as StreamFailed of the stream's methods.
        """
        stream_id = str(uuid4())
        caller, here = Caller(self._hub.id, actor), gateway == self._hub.id
        post = self._post_here(device_id, caller) if here else self._post_there(device_id, gateway, caller)
        stream = Stream(stream_id, request, post, self._forget)
        self._streams[stream_id] = stream, gateway
        if here or self._hub.link.ready(READY_SECONDS):
            post(protocol.http_request(stream_id, request))
        else:
            stream.fail("OFFLINE", "the message bus is away")  # nobody could tell us the answer
        return stream

    def close(self) -> None:
        """End all streams: this process ends."""
        for stream, _gateway in list(self._streams.values()):
            stream.cancel("CLOSED", "the gateway restarts")

    def arrived(self, message: Message) -> None:
        """A caller in another process sends a frame to a device of this one."""
        caller, device, frame = Caller(*message["from"]), UUID(message["device"]), message["frame"]
        relay = self._hub.relay(device)

        def failed() -> None:
            if relay:
                relay.drop(frame["id"], "the caller cannot be reached")

        def back(answer: Frame) -> None:
            self._hub.link.tell(caller.process, {"t": "stream_back", "frame": answer}, failed)

        self._hand_over(relay, caller, frame, back)

    def returned(self, message: Message) -> None:
        """A frame came back from a device in another process."""
        self._returned(message["frame"])

    def cut(self) -> None:
        """The link was lost for a moment, and with it nobody knows which frames."""
        for stream, gateway in list(self._streams.values()):
            if gateway != self._hub.id:
                stream.cancel("CLOSED", "the message bus was lost")
        for relay in self._hub.relays():
            relay.drop_callers(relay.callers - {self._hub.id}, "the message bus was lost")

    def _post_here(self, device_id: UUID, caller: Caller) -> Callable[[Frame], None]:
        relay = self._hub.relay(device_id)
        return lambda frame: self._hand_over(relay, caller, frame, self._returned)

    def _post_there(self, device_id: UUID, gateway: str, caller: Caller) -> Callable[[Frame], None]:
        def post(frame: Frame) -> None:
            def failed() -> None:
                self._returned(protocol.cancel(frame["id"], "CLOSED", "the device's gateway cannot be reached"))

            message = {"t": "stream", "device": device_id, "from": [*caller], "frame": frame}
            self._hub.link.tell(gateway, message, failed)

        return post

    def _hand_over(self, relay: Relay | None, caller: Caller, frame: Frame, back: Callable[[Frame], None]) -> None:
        if relay:
            relay.from_caller(caller, frame, back)
        elif frame["type"] == "http_request":
            back(protocol.cancel(frame["id"], "OFFLINE", "the device is offline"))

    def _returned(self, frame: Frame) -> None:
        known = self._streams.get(frame["id"])
        if known:
            known[0].take(frame)

    def _forget(self, stream: Stream) -> None:
        self._streams.pop(stream.id, None)

    def _watch(self) -> None:
        """A process that was killed says nothing: notice that its channel has no listener."""
        suspected: set[str] = set()
        while not self._pause.wait(WATCH_SECONDS):
            try:
                missing = self._hub.calls.dead(self._peers())
                self._drop(missing & suspected)  # once may be a process that resubscribes
                suspected = missing
            except Exception:  # without this thread streams to dead processes would stand for ever
                log.exception("streams not watched")

    def _peers(self) -> set[str]:
        gateways = {gateway for _stream, gateway in list(self._streams.values())}
        return gateways.union(*(relay.callers for relay in self._hub.relays())) - {self._hub.id}

    def _drop(self, dead: set[str]) -> None:
        if not dead:
            return
        for stream, gateway in list(self._streams.values()):
            if gateway in dead:
                stream.fail("CLOSED", "the device's gateway has gone")
        for relay in self._hub.relays():
            relay.drop_callers(dead, "the caller has gone")
