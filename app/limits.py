"""Rate limits: by address on every route, by user on auth and profile, by organization (10×) on the rest.

Moving windows in Redis; while Redis is away each process counts in its own memory, so limits grow looser, never open.
Devices are not counted by address: a whole fleet may stand behind one, and a valid device is never answered 429.
"""

import time
from functools import cache, partial
from typing import Any, cast
from uuid import UUID

import redis
import structlog
from flask import Flask, Request, current_app, request
from flask.globals import request_ctx
from flask_limiter import Limiter
from flask_limiter.constants import ExemptionScope
from limits import RateLimitItem, parse
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter

from app.errors import RateLimited
from app.permits import Acquire, Permits
from app.redis import ONCE_MORE, REQUEST_TIMEOUT, pipe
from config.settings import settings

log = structlog.get_logger(__name__)

AWAY_SECONDS = 1.0  # how long Redis is left alone once it has not answered
CALLERS = 10_000  # whose permits are remembered


def address() -> str:
    """The caller's address; proxies are believed only as far as the configured hops."""
    return request.remote_addr or "unknown"


def _is_device(asked: Request) -> bool:
    """What says it is a device, where devices go: those routes count whoever is not one as a failed sign-in."""
    return "device_id" in (asked.view_args or ()) and asked.headers.get("X-API-Key", "").startswith("device_")


limiter = Limiter(key_func=address, strategy="moving-window")

_local = MovingWindowRateLimiter(MemoryStorage())
_item = cache(parse)
_away_until = 0.0
_permits: dict[tuple[str, str, str | UUID], tuple[Permits, Acquire]] = {}


def count_addresses(app: Flask) -> None:
    """Count every request of ``app`` by its address, except those of exempt routes.

    The extension's own check of each request costs more than all else that a request does, so it hooks nothing in (it
    finds itself there); ours asks the same storage.
    """
    app.extensions["limiter"] = {limiter}
    limiter.init_app(app)
    _permits.clear()
    app.before_request(_count_address)


def _count_address() -> None:
    asked = request_ctx.request
    rule = asked.url_rule
    if limiter.enabled and rule is not None and _counted(rule.endpoint, rule.websocket) and not _is_device(asked):
        hit("application", address(), settings().rate_limit_ip)


@cache
def _counted(endpoint: str, websocket: bool) -> bool:
    """Whether a route's callers are counted by address. Not: devices that connect, who show their key only in the first
    frame; and probes, which tell an operator or a load balancer what is wrong just when there is too much of something.
    """
    blueprint = endpoint.rpartition(".")[0] or None
    exempt = limiter.limit_manager.exemption_scope(current_app, endpoint, blueprint) & ExemptionScope.APPLICATION
    return not (exempt or websocket or blueprint == "health")


def hit(scope: str, key: str | UUID, rule: str) -> None:
    """Count one use of ``scope`` by ``key``. Raises RateLimited past ``rule`` (``"60 per minute"``)."""
    global _away_until
    if not limiter.enabled:
        return
    strategy = limiter.limiter if time.monotonic() >= _away_until else _local
    try:
        allowed = _hit_redis(rule, scope, key) if strategy is not _local else _local.hit(_item(rule), scope, str(key))
    except (redis.RedisError, OSError) as error:
        log.warning("limits counted in memory", error=str(error))
        strategy, _away_until = _local, time.monotonic() + AWAY_SECONDS
        allowed = strategy.hit(_item(rule), scope, str(key))
    if not allowed:
        item = _item(rule)
        raise _exceeded(item, strategy.get_window_stats(item, scope, str(key)).reset_time)


def _hit_redis(rule: str, scope: str, key: str | UUID) -> bool:
    known = _permits.get((rule, scope, key))
    if known is None:
        if len(_permits) >= CALLERS:
            _permits.clear()
        item, storage = _item(rule), cast(Any, limiter.storage)
        name = storage.prefixed_key(item.key_for(scope, str(key)))
        known = Permits(item.amount, item.get_expiry()), partial(_acquire, item, name)
        _permits[rule, scope, key] = known
    permits, acquire = known
    return permits.use(acquire)


def _acquire(item: RateLimitItem, name: str, count: int) -> bool:
    """What the library's strategy does, by its own script, but over the connection that all requests share."""
    storage: Any = limiter.storage
    script = storage.lua_acquire_moving_window
    arguments = (1, name, time.time(), item.amount, item.get_expiry(), count)
    try:
        return bool(pipe().call("EVALSHA", script.sha, *arguments))
    except redis.exceptions.NoScriptError:
        return bool(pipe().call("EVAL", script.script, *arguments))


def by_address(scope: str, rule: str) -> None:
    """Count one use by the caller's address."""
    hit(scope, address(), rule)


def _exceeded(item: RateLimitItem, reset_at: float) -> RateLimited:
    """With ``Retry-After`` and the ``RateLimit`` header fields (IETF draft)."""
    wait = max(1, round(reset_at - time.time()))
    headers = {
        "Retry-After": str(wait),
        "RateLimit": f"limit={item.amount}, remaining=0, reset={wait}",
        "RateLimit-Policy": f"{item.amount};w={item.get_expiry()}",
    }
    return RateLimited(f"too many requests; try again in {wait} s", headers=headers)


def storage_options() -> dict[str, Any]:
    return {"socket_timeout": REQUEST_TIMEOUT, "socket_connect_timeout": REQUEST_TIMEOUT, "retry": ONCE_MORE}
