"""Redis: one client per use. Calls on the request path give up after 0.2 s and have a fallback."""

import threading
from functools import cache
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from config.settings import settings

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


def listener() -> redis.Redis:
    """For a subscription: waits for messages, notices a dead link by keepalive."""
    return redis.Redis.from_url(
        settings().redis_url, socket_connect_timeout=2, socket_keepalive=True, health_check_interval=10
    )


class Pipe:
    """Commands of all callers of this process on one connection: what comes together is written together.

    A thread of its own exchanges them, so each costs its caller a wait and not a round trip of his own. A connection
    that broke while it lay idle is made again once; then, and past ``seconds``, callers are told.
    """

    def __init__(self, name: str, seconds: float) -> None:
        self._seconds = seconds
        self._waiting: list[_Call] = []
        self._wake = threading.Event()
        self._connection: Any = pooled(seconds).connection_pool.make_connection()
        threading.Thread(target=self._run, name=name, daemon=True).start()

    def call(self, *command: str | bytes | float) -> Any:
        """The answer to one command. Raises redis.RedisError: also for an answer that is an error."""
        call = _Call(command)
        self._waiting.append(call)
        self._wake.set()
        if not call.done.wait(self._seconds):
            raise redis.TimeoutError("no answer in time")
        if isinstance(call.answer, Exception):
            raise call.answer
        return call.answer

    def _run(self) -> None:
        while True:
            self._wake.wait()
            self._wake.clear()
            calls, self._waiting = self._waiting, []
            if calls:
                self._carry_out(calls)

    def _carry_out(self, calls: list["_Call"]) -> None:
        try:
            answers = ONCE_MORE.call_with_retry(lambda: self._exchange(calls), lambda _error: self._hang_up())
        except Exception as error:  # whatever it was: its callers are told, and the thread goes on
            self._hang_up()
            answers = [error if isinstance(error, redis.RedisError) else redis.ConnectionError(str(error))] * len(calls)
        for call, answer in zip(calls, answers, strict=True):
            call.answer = answer
            call.done.set()

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
    __slots__ = ("answer", "command", "done")

    def __init__(self, command: tuple[str | bytes | float, ...]) -> None:
        self.command = command
        self.answer: Any = None
        self.done = threading.Event()


@cache
def pipe() -> Pipe:
    """The request path's pipe of this process, started at first use (after the web server has forked)."""
    return Pipe("redis-pipe", REQUEST_TIMEOUT)
