"""The Redis side of a process: one channel of its own on one connection, and one pipe that all publishes share.

Redis only carries messages; where a device is stands in PostgreSQL. So losing Redis loses no route, and a publish that
reaches nobody is known at once (PUBLISH tells the number of receivers).
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import orjson
import redis
import structlog

from app.redis import REQUEST_TIMEOUT, Pipe, listener

log = structlog.get_logger(__name__)

Message = dict[str, Any]
NAME = "edgeflow-link"  # what Redis lists its two connections as
RETRY_SECONDS = 0.5
REPOST_SECONDS, REPOST_BYTES = 5.0, 64 * 1024 * 1024


def channel(process: str) -> str:
    return f"edgeflow:gateway:{process}"


class Unsent(Exception):
    """Redis did not take a message, or cannot say whether it did."""


class Link:
    """Receives on this process's channel in a thread; sends from anywhere."""

    def __init__(self, process: str, receive: Callable[[Message], None], cut: Callable[[], None]) -> None:
        """``cut`` is called when messages to this process may have been lost."""
        self.process, self._receive, self._cut = process, receive, cut
        self._subscribed = threading.Event()
        self._unsent: list[_Outgoing] = []
        self._unsent_bytes = 0
        self._pause = threading.Event()
        self._pipe = Pipe(NAME, REQUEST_TIMEOUT)
        threading.Thread(target=self._post_again, name="tunnel-repost", daemon=True).start()
        threading.Thread(target=self._listen, name="tunnel-link", daemon=True).start()

    def ready(self, timeout: float) -> bool:
        """Whether this process can be reached over Redis (waits up to ``timeout`` seconds for it)."""
        return self._subscribed.wait(timeout)

    def send(self, process: str, message: Message, timeout: float = 2.0) -> int:
        """Publish to a process; the number of receivers (0: that process is gone). Raises Unsent."""
        body = orjson.dumps(message, default=str)
        try:
            receivers: int = self._pipe.call("PUBLISH", channel(process), body, timeout=timeout)
        except redis.RedisError as error:
            log.warning("not published", error=str(error))
            raise Unsent(process) from error
        return receivers

    def post(self, process: str, message: Message) -> None:
        """Publish without waiting. While nobody is there to receive it, or Redis is away, it is tried for a moment."""
        body = orjson.dumps(message, default=str)
        self._publish(_Outgoing(channel(process), body, time.monotonic() + REPOST_SECONDS))

    def tell(self, process: str, message: Message, failed: Callable[[], None]) -> None:
        """Publish without waiting, once: messages of one process to another come in order, or ``failed`` is called."""

        def told(receivers: Any) -> None:
            if isinstance(receivers, Exception) or not receivers:
                failed()

        self._pipe.post("PUBLISH", channel(process), orjson.dumps(message, default=str), told=told)

    def _publish(self, outgoing: "_Outgoing") -> None:
        def told(receivers: Any) -> None:
            if isinstance(receivers, Exception):
                log.warning("not published", error=str(receivers))
            if isinstance(receivers, Exception) or not receivers:
                self._keep(outgoing)

        self._pipe.post("PUBLISH", outgoing.channel, outgoing.body, told=told)

    def _keep(self, unsent: "_Outgoing") -> None:
        if unsent.retry_until > time.monotonic() and self._unsent_bytes + len(unsent.body) <= REPOST_BYTES:
            self._unsent.append(unsent)
            self._unsent_bytes += len(unsent.body)

    def _post_again(self) -> None:
        while True:
            self._pause.wait(RETRY_SECONDS)
            unsent, self._unsent, self._unsent_bytes = self._unsent, [], 0
            for outgoing in unsent:
                self._publish(outgoing)

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
        with listener(NAME) as connection, connection.pubsub(ignore_subscribe_messages=False) as subscription:
            subscription.subscribe(channel(self.process))
            while True:
                message = subscription.get_message(timeout=5)
                if message is None:
                    subscription.ping()
                elif message["type"] == "subscribe":
                    self._subscribed.set()
                    self._cut()  # the library subscribes again by itself when its connection broke
                elif message["type"] == "message":
                    self._take(message["data"])

    def _take(self, body: bytes) -> None:
        try:
            self._receive(orjson.loads(body))
        except Exception:
            log.exception("message of the link failed")


@dataclass(slots=True)
class _Outgoing:
    channel: str
    body: bytes
    retry_until: float
