"""Commands whose caller waits: sent to the gateway that holds the device, answered honestly whatever happens."""

import threading
import time
from typing import TYPE_CHECKING, Any
from uuid import UUID

import redis
import structlog

from app import ids, log_context
from app.redis import client
from app.tunnel import protocol
from app.tunnel.link import Unsent, channel
from app.tunnel.protocol import Answer

if TYPE_CHECKING:
    from app.tunnel.hub import Hub

log = structlog.get_logger(__name__)

WATCH_SECONDS = 1.0
GRACE_SECONDS = 2.0


class _Waiting:
    def __init__(self, gateway: str, deadline: float) -> None:
        self.gateway, self.deadline = gateway, deadline
        self.answer: Answer | None = None
        self.done = threading.Event()

    def settle(self, answer: Answer) -> None:
        self.answer = self.answer or answer
        self.done.set()


class Calls:
    """The callers of this process that wait for a device."""

    def __init__(self, hub: "Hub") -> None:
        self._hub = hub
        self._waiting: dict[str, _Waiting] = {}
        threading.Thread(target=self._watch, name="tunnel-calls", daemon=True).start()

    def call(self, device_id: UUID, gateway: str, action: str, payload: dict[str, Any], timeout: float) -> Answer:
        """Send one command and wait for its answer, at most ``timeout`` seconds. Raises Unsent when Redis is away."""
        command_id = ids.command_id()
        waiting = self._waiting[command_id] = _Waiting(gateway, time.monotonic() + timeout + GRACE_SECONDS)
        request_id = log_context.fields().get("request_id")
        command = {"t": "command", "id": command_id, "device": str(device_id), "action": action, "payload": payload,
                   "timeout": timeout, "from": self._hub.id, "rid": request_id}  # fmt: skip
        try:
            if gateway == self._hub.id:
                self._hub.deliver(device_id, command, waiting.settle)
            elif not self._publish(gateway, command):
                return protocol.offline()
            waiting.done.wait()  # without a timer of its own: the watch ends it, should its gateway not
            answer = waiting.answer or protocol.timed_out(sent=True)
            log_context.bind(command_id=command_id, outcome=(answer.code or "ok")[:100])
            return answer
        finally:
            del self._waiting[command_id]

    def answered(self, command_id: str, answer: Answer) -> None:
        """An answer came over Redis; one that nobody waits for any more is dropped."""
        waiting = self._waiting.get(command_id)
        if waiting:
            waiting.settle(answer)

    def _publish(self, gateway: str, command: dict[str, Any]) -> int:
        if not self._hub.link.ready(GRACE_SECONDS):
            raise Unsent(gateway)  # nobody could tell us the answer
        return self._hub.link.send(gateway, command)

    def _watch(self) -> None:
        """A gateway that was killed answers nobody: notice that its channel has no listener, and say so at once."""
        pause = threading.Event()
        suspected: set[str] = set()
        while True:
            pause.wait(WATCH_SECONDS)
            self._expire()
            gateways = {one.gateway for one in list(self._waiting.values())} - {self._hub.id}
            missing = self.dead(gateways)
            for gateway in missing & suspected:  # once may be a gateway that resubscribes
                for one in list(self._waiting.values()):
                    if one.gateway == gateway:
                        one.settle(protocol.disconnected(sent=True))
            suspected = missing

    def _expire(self) -> None:
        """The gateway that holds the device answers in time, if only that the device did not: this one has not."""
        moment = time.monotonic()
        for one in list(self._waiting.values()):
            if one.deadline <= moment:
                one.settle(protocol.timed_out(sent=True))

    def dead(self, gateways: set[str]) -> set[str]:
        """Those of some processes that nobody listens for; none while Redis cannot tell."""
        if not gateways:
            return set()
        started = time.monotonic()
        try:
            listeners: Any = client().pubsub_numsub(*(channel(gateway) for gateway in gateways))
        except (redis.RedisError, OSError) as error:
            log.info("gateways not checked", error=str(error), seconds=round(time.monotonic() - started, 2))
            return set()
        counts = {name.decode(): count for name, count in listeners}
        return {gateway for gateway in gateways if counts.get(channel(gateway)) == 0}
