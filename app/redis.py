"""Redis: one client per use. Calls on the request path give up after 0.2 s and have a fallback."""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import redis
import structlog
from redis.backoff import NoBackoff
from redis.retry import Retry

from config.settings import settings

log = structlog.get_logger(__name__)

REQUEST_TIMEOUT = 0.2
# For a connection that broke while it lay idle. The library's own (three more, seconds apart, also after each time-out)
# would hold a request up for longer than its caller waits.
ONCE_MORE = Retry(NoBackoff(), 1, supported_errors=(redis.ConnectionError,))


@cache
def client() -> redis.Redis:
    """For the request path: short time-outs, and a pool that waits for a free connection instead of overflowing."""
    return pooled(REQUEST_TIMEOUT, health_check_interval=15)


def pooled(seconds: float, **options: Any) -> redis.Redis:
    """A client that gives up after ``seconds``, whether it waits for a free connection, to connect or for an answer."""
    pool = redis.BlockingConnectionPool.from_url(
        settings().redis_url,
        max_connections=32,
        timeout=seconds,
        socket_timeout=seconds,
        socket_connect_timeout=seconds,
        retry=ONCE_MORE,
        **options,
    )
    return redis.Redis(connection_pool=pool)


def listener(name: str | None = None) -> redis.Redis:
    """For a subscription: waits for messages, notices a dead link by keepalive. ``name``: what Redis lists it as.

    One that is cut is made again at once: callers take a gateway whose channel nobody hears for a dead one.
    """
    return redis.Redis.from_url(
        settings().redis_url, socket_connect_timeout=2, socket_keepalive=True, health_check_interval=10,
        client_name=name, retry=ONCE_MORE,
    )  # fmt: skip


Part = str | bytes | float
Told = Callable[[Any], None]
PIPED_AT_ONCE = 500


class Pipe:
    """Commands of all callers of this process on one connection: what comes together is written together.

    A thread of its own exchanges them, so each costs its caller a wait and not a round trip of his own. A connection
    that broke while it lay idle is made again once; then, and past ``seconds``, callers are told.
    ``name``: what Redis lists the connection as.
    """

    def __init__(self, name: str, seconds: float) -> None:
        self._seconds = seconds
        self._waiting: deque[_Call] = deque()  # filled by many threads, emptied by one
        self._wake = threading.Event()
        self._connection: Any = pooled(seconds, client_name=name).connection_pool.make_connection()
        threading.Thread(target=self._run, name=name, daemon=True).start()

    def call(self, *command: Part, timeout: float | None = None) -> Any:
        """The answer to one command. Raises redis.RedisError: also for an answer that is an error."""
        (answer,) = self.call_many([command], timeout=timeout)
        return answer

    def call_many(self, commands: Sequence[tuple[Part, ...]], *, timeout: float | None = None) -> list[Any]:
        """The answers to several commands, in one wait. Raises as ``call`` does, for any of them."""
        done = threading.Event()
        calls = [_Call(command, lambda _answer: None) for command in commands]
        if not calls:
            return []
        calls[-1].told = lambda _answer: done.set()  # answers come in order
        self._add(*calls)
        if not done.wait(timeout or self._seconds):
            raise redis.TimeoutError("no answer in time")
        for call in calls:
            if isinstance(call.answer, Exception):
                raise call.answer
        return [call.answer for call in calls]

    def post(self, *command: Part, told: Told) -> None:
        """Send without waiting; ``told`` gets the answer, or the error, in the pipe's thread."""
        self._add(_Call(command, told))

    def _add(self, *calls: "_Call") -> None:
        self._waiting.extend(calls)
        self._wake.set()

    def _run(self) -> None:
        while True:
            self._wake.wait()
            self._wake.clear()
            while self._waiting:
                self._carry_out([self._waiting.popleft() for _ in range(min(PIPED_AT_ONCE, len(self._waiting)))])

    def _carry_out(self, calls: list["_Call"]) -> None:
        try:
            answers = ONCE_MORE.call_with_retry(lambda: self._exchange(calls), lambda _error: self._hang_up())
        except Exception as error:  # whatever it was: its callers are told, and the thread goes on
            self._hang_up()
            answers = [error if isinstance(error, redis.RedisError) else redis.ConnectionError(str(error))] * len(calls)
        for call, answer in zip(calls, answers, strict=True):
            call.settle(answer)

    def _exchange(self, calls: list["_Call"]) -> list[Any]:
        self._connection.send_packed_command(self._connection.pack_commands([call.command for call in calls]))
        return [self._answer() for _ in calls]

    def _answer(self) -> Any:
        try:
            return self._connection.read_response()
        except redis.ResponseError as error:
            return error

    def _hang_up(self) -> None:
        self._connection.disconnect()


class _Call:
    __slots__ = ("answer", "command", "told")

    def __init__(self, command: tuple[Part, ...], told: Told) -> None:
        self.command, self.told = command, told
        self.answer: Any = None

    def settle(self, answer: Any) -> None:
        """Tell who asked. What goes wrong there is theirs: it must not end the pipe."""
        self.answer = answer
        try:
            self.told(answer)
        except Exception:
            log.exception("answer not taken")


@cache
def pipe() -> Pipe:
    """The request path's pipe of this process, started at first use (after the web server has forked)."""
    return Pipe("edgeflow-requests", REQUEST_TIMEOUT)
