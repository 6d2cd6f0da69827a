"""Redis: one client per use. Calls on the request path give up after 0.2 s and have a fallback."""

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
