"""Faults on demand: errors, delays and lost answers, before an effect or after it."""

import socket
from dataclasses import dataclass
from typing import Any

from flask import request

from tools.local_stripe import errors
from tools.local_stripe.store import Store

SOCKET = "local_stripe.socket"  # in the WSGI environment
_WORDS = {
    429: ("invalid_request_error", "Request rate limit exceeded.", "rate_limit"),
    400: ("invalid_request_error", "Invalid request, as asked for.", None),
    402: ("card_error", "Your card was declined.", "card_declined"),
    409: ("idempotency_error", "Another request with this key is in progress.", "idempotency_key_in_use"),
}


@dataclass(frozen=True)
class Fault:
    """``status``: the answer instead of the real one; 0 cuts the connection, None leaves the real one (delayed)."""

    status: int | None
    after_effect: bool = False
    seconds: float = 0

    def happen(self) -> None:
        """Raises what the client is to see."""
        if self.status is None:
            return
        if self.status == 0:
            hang_up()  # and what is raised reaches nobody
        type, message, code = _WORDS.get(self.status, ("api_error", "An unexpected error, as asked for.", None))
        raise errors.ParameterError(self.status or 500, type, message, code=code)


def plan(store: Store, wanted: dict[str, Any]) -> dict[str, Any]:
    """Take an order: ``{status, times, path?, method?, after_effect?, delay?}``; ``path`` is a beginning."""
    fault = {
        "status": wanted.get("status"),
        "times": int(wanted.get("times", 1)),
        "path": str(wanted.get("path", "/v1/")),
        "method": wanted.get("method"),
        "after_effect": bool(wanted.get("after_effect", False)),
        "delay": float(wanted.get("delay", 0)),
    }
    store.set("faults", [*store.setting("faults", []), fault])
    return fault


def take(store: Store, method: str, path: str) -> Fault | None:
    """The first fault that fits a request; it is used up by one."""
    faults = store.setting("faults", [])
    for fault in faults:
        if path.startswith(fault["path"]) and fault["method"] in (None, method):
            fault["times"] -= 1
            store.set("faults", [one for one in faults if one["times"] > 0])
            return Fault(fault["status"], fault["after_effect"], fault["delay"])
    return None


def hang_up() -> None:
    """Cut the client's connection without an answer."""
    request.environ[SOCKET].shutdown(socket.SHUT_RDWR)
