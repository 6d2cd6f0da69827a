"""Webhooks: one signed POST, no redirect, an answer that is bounded in size and time.

The signature is as Stripe's: HMAC-SHA256 over ``<timestamp>.<body>``, so that a recorded request cannot be sent again
later without being noticed.
"""

import hashlib
import hmac
import time
from functools import cache
from typing import Any

import httpcore
import httpx
import orjson

from app.alerts.channels import Webhook, guard, words
from app.alerts.channels.outcome import Outcome
from config.settings import settings

SECONDS = 10.0  # for all of it: connecting, sending, and the answer's head
BODY_SECONDS = 1.0  # longer nobody waits for the rest of an answer, which decides nothing
MOST_BYTES = 64 * 1024  # of an answer are read
GONE = 410


def send(hook: Webhook, delivery_id: str, payload: dict[str, Any]) -> Outcome:
    """POST one notification; 2xx is delivered. Never raises for what the target does, and never tells its address."""
    body = orjson.dumps({"text": words.slack(payload)} if hook.format == "slack" else payload)
    headers = {"Content-Type": "application/json", "User-Agent": "EdgeFlow", "X-EdgeFlow-Delivery": delivery_id}
    if hook.secret:
        headers |= signature(hook.secret, int(time.time()), body)
    try:
        return _judged(_post(hook.url, headers, body))
    except guard.Refused as error:
        return Outcome(str(error), permanent=True)
    except httpx.InvalidURL:
        return Outcome("the address is not valid", permanent=True)
    except httpcore.TimeoutException:
        return Outcome(f"no answer within {SECONDS:g} s")
    except (httpcore.NetworkError, httpcore.ProtocolError, OSError) as error:
        return Outcome(_reason(error))


def signature(secret: str, timestamp: int, body: bytes) -> dict[str, str]:
    """The headers by which a receiver knows who sent ``body``, and when (seconds since 1970)."""
    signed = hmac.new(secret.encode(), f"{timestamp}.".encode() + body, hashlib.sha256).hexdigest()
    return {"X-EdgeFlow-Timestamp": str(timestamp), "X-EdgeFlow-Signature": f"v1={signed}"}


def _post(url: str, headers: dict[str, str], body: bytes) -> int:
    """The status of the answer. Each POST has a connection of its own, which is checked; no proxy comes between."""
    target = httpx.URL(url)  # knows international names, which httpcore does not
    backend = guard.GuardedBackend(
        private=settings().webhook_private, deadline=time.monotonic() + SECONDS, most_bytes=MOST_BYTES
    )
    address = httpcore.URL(scheme=target.raw_scheme, host=target.raw_host, port=target.port, target=target.raw_path)
    with (
        httpcore.ConnectionPool(ssl_context=_trusted(), network_backend=backend, keepalive_expiry=0) as pool,
        pool.stream("POST", address, headers=list(headers.items()), content=body) as answer,
    ):
        backend.deadline = min(backend.deadline, time.monotonic() + BODY_SECONDS)
        _read_out(answer)
        return answer.status


def _read_out(answer: httpcore.Response) -> None:
    """A polite end: some receivers report a connection that closes before they have answered in full."""
    try:
        for _part in answer.iter_stream():
            pass
    except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException):
        return  # what counts is the status, and that has come


@cache
def _trusted() -> Any:
    return httpx.create_ssl_context()


def _judged(status: int) -> Outcome:
    if 200 <= status < 300:
        return Outcome(status_code=status)
    if 300 <= status < 400:
        return Outcome(f"answered {status}: redirects are not followed", status)
    return Outcome(f"answered {status}", status, permanent=status == GONE)


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())[:200]
    return f"not delivered: {text or type(error).__name__}"
