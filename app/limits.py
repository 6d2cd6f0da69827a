"""Rate limits: by address on every route, by user on auth and profile, by organization (10×) on the rest.

Moving windows in Redis; while Redis is away each process counts in its own memory, so limits grow looser, never open.
Devices are not counted by address: a whole fleet may stand behind one, and a valid device is never answered 429.
"""

import time
from functools import cache
from typing import Any

import redis
import structlog
from flask import request
from flask_limiter import Limiter, RateLimitExceeded
from limits import RateLimitItem, parse
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter

from app.errors import RateLimited
from app.redis import ONCE_MORE, REQUEST_TIMEOUT
from config.settings import settings

log = structlog.get_logger(__name__)


def address() -> str:
    """The caller's address; proxies are believed only as far as the configured hops."""
    return request.remote_addr or "unknown"


def _is_device() -> bool:
    """What says it is a device, where devices go: those routes count whoever is not one as a failed sign-in."""
    names_one = "device_id" in (request.view_args or {})
    return names_one and request.headers.get("X-API-Key", "").startswith("device_")


def _not_counted() -> bool:
    """Devices; connecting ones too, who show their key only in the first frame; and probes, which tell an operator or a
    load balancer what is wrong just when there is too much of something."""
    rule = request.url_rule
    return _is_device() or request.blueprint == "health" or (rule is not None and rule.websocket)


limiter = Limiter(
    key_func=address,
    strategy="moving-window",
    in_memory_fallback_enabled=True,
    application_limits=[lambda: settings().rate_limit_ip],
    application_limits_exempt_when=_not_counted,
)

_local = MovingWindowRateLimiter(MemoryStorage())
_rule = cache(parse)


def hit(scope: str, key: str, rule: str) -> None:
    """Count one use of ``scope`` by ``key``. Raises RateLimited past ``rule`` (``"60 per minute"``)."""
    if not limiter.enabled:
        return
    item = _rule(rule)
    strategy = limiter.limiter
    try:
        allowed = strategy.hit(item, scope, key)
    except (redis.RedisError, OSError):
        strategy = _local
        allowed = strategy.hit(item, scope, key)
    if not allowed:
        raise _exceeded(item, strategy.get_window_stats(item, scope, key).reset_time)


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


def default_exceeded(error: RateLimitExceeded) -> RateLimited:
    """The extension's own error, when the default limit is passed, as one of ours."""
    breached = limiter.current_limit
    item = error.limit.limit if error.limit else _rule(settings().rate_limit_ip)
    return _exceeded(item, breached.reset_at if breached else time.time() + item.get_expiry())


def storage_options() -> dict[str, Any]:
    return {"socket_timeout": REQUEST_TIMEOUT, "socket_connect_timeout": REQUEST_TIMEOUT, "retry": ONCE_MORE}
