"""The Redis side of a process: one channel of its own, and publishes coalesced into pipelines.

Redis only carries messages; where a device is stands in PostgreSQL. So losing Redis loses no route, and a publish that
reaches nobody is known at once (PUBLISH tells the number of receivers).
"""

import threading
import time
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
REPOST_SECONDS, REPOST_BYTES = 5.0, 64 * 1024 * 1024


def channel(process: str) -> str:
    return f"edgeflow:gateway:{process}"


class Unsent(Exception):
    """Redis did not take a message, or cannot say whether it did."""


class Link:
    """Receives on this process's channel in a thread; sends from anywhere."""

    def __init__(self, process: str, receive: Callable[[Message], None]) -> None:
        self.process, self._receive = process, receive
        self._subscribed = threading.Event()
        self._unsent: list[_Outgoing] = []
        self._unsent_bytes = 0
        self._pause = threading.Event()
        self._outgoing: Batcher[_Outgoing] = Batcher("publish", self._publish, seconds=0, most=500)
        threading.Thread(target=self._post_again, name="tunnel-repost", daemon=True).start()
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
        """Publish without waiting. While nobody is there to receive it, or Redis is away, it is tried for a moment."""
        outgoing = _Outgoing(channel(process), orjson.dumps(message, default=str))
        outgoing.retry_until = time.monotonic() + REPOST_SECONDS
        self._outgoing.add(outgoing)

    def _publish(self, batch: list["_Outgoing"]) -> None:
        pipeline = client().pipeline(transaction=False)
        for outgoing in batch:
            pipeline.publish(outgoing.channel, outgoing.body)
        try:
            for outgoing, receivers in zip(batch, pipeline.execute(), strict=True):
                outgoing.receivers = receivers
        except (redis.RedisError, OSError) as error:
            log.warning("not published", messages=len(batch), error=str(error))
        finally:
            for outgoing in batch:
                outgoing.done.set()
        self._keep([outgoing for outgoing in batch if not outgoing.receivers])

    def _keep(self, unsent: list["_Outgoing"]) -> None:
        for outgoing in unsent:
            if outgoing.retry_until > time.monotonic() and self._unsent_bytes + len(outgoing.body) <= REPOST_BYTES:
                self._unsent.append(outgoing)
                self._unsent_bytes += len(outgoing.body)

    def _post_again(self) -> None:
        while True:
            self._pause.wait(RETRY_SECONDS)
            unsent, self._unsent, self._unsent_bytes = self._unsent, [], 0
            for outgoing in unsent:
                self._outgoing.add(outgoing)

    def _listen(self) -> None:
        pause = threading.Event()
        while True:
            try:
                self._subscribe()
            except (redis.RedisError, OSError) as error:
                log.warning("link to Redis lost", error=str(error))
            except Exception:  # whatever it was: without this thread the process cannot be reached
                log.exception("link to Redis lost")
            self._subscribed.clear()
            pause.wait(RETRY_SECONDS)

    def _subscribe(self) -> None:
        with listener() as connection, connection.pubsub(ignore_subscribe_messages=False) as subscription:
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
    __slots__ = ("body", "channel", "done", "receivers", "retry_until")

    def __init__(self, to: str, body: bytes) -> None:
        self.channel, self.body = to, body
        self.receivers: int | None = None
        self.retry_until = 0.0
        self.done = threading.Event()
