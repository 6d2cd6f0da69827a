"""The Redis side of a process: one channel of its own, and publishes coalesced into pipelines.

Redis only carries messages; where a device is stands in PostgreSQL. So losing Redis loses no route, and a publish that
reaches nobody is known at once (PUBLISH tells the number of receivers).
"""

import threading
from collections.abc import Callable
from typing import Any

import orjson
import redis
import structlog

from app.redis import client, listener
from app.tunnel.batch import Batcher

log = structlog.get_logger(__name__)

Message = dict[str, Any]
RETRY_SECONDS = 0.5


def channel(process: str) -> str:
    return f"edgeflow:gateway:{process}"


class Unsent(Exception):
    """Redis did not take a message, or cannot say whether it did."""


class Link:
    """Receives on this process's channel in a thread; sends from anywhere."""

    def __init__(self, process: str, receive: Callable[[Message], None]) -> None:
        self.process, self._receive = process, receive
        self._subscribed = threading.Event()
        self._outgoing: Batcher[_Outgoing] = Batcher("publish", self._publish, seconds=0, most=500, failed=_fail)
        threading.Thread(target=self._listen, name="tunnel-link", daemon=True).start()

    def ready(self, timeout: float) -> bool:
        """Whether this process can be reached over Redis (waits up to ``timeout`` seconds for it)."""
        return self._subscribed.wait(timeout)

    def send(self, process: str, message: Message, timeout: float = 2.0) -> int:
        """Publish to a process; the number of receivers (0: that process is gone). Raises Unsent."""
        outgoing = _Outgoing(channel(process), orjson.dumps(message, default=str))
        self._outgoing.add(outgoing)
        if not outgoing.done.wait(timeout) or outgoing.receivers is None:
            raise Unsent(process)
        return outgoing.receivers

    def post(self, process: str, message: Message) -> None:
        """Publish without waiting; a loss is logged."""
        self._outgoing.add(_Outgoing(channel(process), orjson.dumps(message, default=str)))

    def _publish(self, batch: list["_Outgoing"]) -> None:
        pipeline = client().pipeline(transaction=False)
        for outgoing in batch:
            pipeline.publish(outgoing.channel, outgoing.body)
        for outgoing, receivers in zip(batch, pipeline.execute(), strict=True):
            outgoing.receivers = receivers
            outgoing.done.set()

    def _listen(self) -> None:
        pause = threading.Event()
        while True:
            try:
                self._subscribe()
            except (redis.RedisError, OSError) as error:
                log.warning("link to Redis lost", error=str(error))
            self._subscribed.clear()
            pause.wait(RETRY_SECONDS)

    def _subscribe(self) -> None:
        subscription = listener().pubsub(ignore_subscribe_messages=False)
        subscription.subscribe(channel(self.process))
        while True:
            message = subscription.get_message(timeout=5)
            if message is None:
                subscription.ping()
            elif message["type"] == "subscribe":
                self._subscribed.set()
            elif message["type"] == "message":
                self._take(message["data"])

    def _take(self, body: bytes) -> None:
        try:
            self._receive(orjson.loads(body))
        except Exception:
            log.exception("message of the link failed")


class _Outgoing:
    __slots__ = ("body", "channel", "done", "receivers")

    def __init__(self, to: str, body: bytes) -> None:
        self.channel, self.body = to, body
        self.receivers: int | None = None
        self.done = threading.Event()


def _fail(batch: list[_Outgoing], _error: Exception) -> None:
    for outgoing in batch:
        outgoing.done.set()
