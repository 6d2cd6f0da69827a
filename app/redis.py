"""Redis: one client per use. Calls on the request path give up after 0.2 s and have a fallback."""

from functools import cache

import redis

from config.settings import settings

REQUEST_TIMEOUT = 0.2


@cache
def client() -> redis.Redis:
    """For the request path: short time-outs, and a pool that waits for a free connection instead of overflowing."""
    pool = redis.BlockingConnectionPool.from_url(
        settings().redis_url,
        max_connections=32,
        timeout=REQUEST_TIMEOUT,
        socket_timeout=REQUEST_TIMEOUT,
        socket_connect_timeout=REQUEST_TIMEOUT,
        health_check_interval=15,
    )
    return redis.Redis(connection_pool=pool)


def listener() -> redis.Redis:
    """For a subscription: waits for messages, notices a dead link by keepalive."""
    return redis.Redis.from_url(
        settings().redis_url, socket_connect_timeout=2, socket_keepalive=True, health_check_interval=10
    )
