"""One command to one device, and its honest outcome."""

from collections.abc import Callable
from typing import Any
from uuid import UUID

from sqlalchemy import text

from app import db
from app.auth.identity import Identity
from app.clock import rfc3339
from app.edge_nodes.editor import origin as editors
from app.edge_nodes.editor import sessions
from app.errors import (
    AppError,
    BadDeviceResponse,
    DeviceDisconnected,
    DeviceError,
    DeviceOffline,
    DeviceTimeout,
    InvalidState,
    NotFound,
    NotSupportedByDevice,
    ServiceUnavailable,
)
from app.tunnel import bus
from app.tunnel.link import Unsent
from app.tunnel.protocol import Answer
from app.tunnel.queries import Route

_FAILURES: dict[str, type[AppError]] = {
    "DEVICE_TIMEOUT": DeviceTimeout,
    "DEVICE_DISCONNECTED": DeviceDisconnected,
    "NOT_SUPPORTED_BY_DEVICE": NotSupportedByDevice,
    "BAD_DEVICE_RESPONSE": BadDeviceResponse,
}


def ask(
    org_id: UUID,
    device_id: UUID,
    route: Route | None,
    action: str,
    payload: dict[str, Any],
    *,
    timeout: float,
    release: Callable[[], None],
) -> Any:
    """Send a command and answer the device's data. ``release`` ends the transaction before the wait begins.

    ``route``: the device's, as the organization sees it (``tunnel.queries``).

    Never sent twice by us. Raises NotFound, InvalidState (disabled), DeviceOffline, DeviceTimeout, DeviceDisconnected,
    DeviceError, BadDeviceResponse, NotSupportedByDevice or ServiceUnavailable; the last ones tell the ``outcome``.
    """
    reached = reach(route)
    release()
    try:
        answer = bus.call(device_id, str(reached.gateway), action, payload, timeout)
    except Unsent:
        raise ServiceUnavailable("the message bus is briefly unavailable", outcome="unknown") from None
    return _data(answer, reached)


def editor_url(who: Identity, device_id: UUID, route: Route | None) -> dict[str, Any]:
    """``{"url", "state", "expires_at"}``: a link to the device's editor, for whoever asks. Raises as ``ask`` does, and
    EditorNotConfigured."""
    if "http_proxy" not in reach(route).capabilities:
        raise NotSupportedByDevice("the device's agent offers no editor")
    origin = editors.url_of(device_id)
    ticket, expires_at = sessions.create(who, device_id)
    return {"url": f"{origin}/__edgeflow/open?ticket={ticket}", "state": "ready", "expires_at": rfc3339(expires_at)}


def reach(route: Route | None) -> Route:
    """The route to a device that can be reached. Raises NotFound, InvalidState or DeviceOffline."""
    if route is None:
        raise NotFound("device")
    if route.disabled:
        raise InvalidState("the device is disabled", current_state="disabled", allowed_actions=["enable"])
    if not route.reachable:
        raise _offline(route)
    return route


def configure(
    org_id: UUID,
    device_id: UUID,
    route: Route | None,
    given: dict[str, Any],
    *,
    timeout: float,
    release: Callable[[], None],
) -> Any:
    """Record connection settings, then send them. Raises as ``ask`` does; nothing is recorded for a deaf device."""
    if "configure" not in reach(route).capabilities:
        raise NotSupportedByDevice("the device's agent does not know configure")
    db.session.execute(
        text("UPDATE devices SET settings = settings || CAST(:given AS jsonb), updated_at = now() WHERE id = :id"),
        {"given": db.as_json(given), "id": device_id},
    )
    return ask(org_id, device_id, route, "configure", {"settings": given}, timeout=timeout, release=release)


def _data(answer: Answer, route: Route) -> Any:
    if answer.ok:
        return answer.data
    if answer.code == "DEVICE_OFFLINE":
        raise _offline(route)
    message = answer.error or "the device answered with an error"
    if answer.code == "FLOW_NOT_FOUND":
        raise NotFound("flow on the device", device_error=message)
    failure = _FAILURES.get(answer.code or "")
    if failure is None:
        raise DeviceError(message, device_code=answer.code)
    extra: dict[str, Any] = {} if answer.outcome == "done" else {"outcome": answer.outcome}
    raise failure(message, **extra)


def _offline(route: Route) -> DeviceOffline:
    seen = route.last_seen_at
    return DeviceOffline("the device is offline", headers={"Retry-After": "30"}, last_seen_at=seen, outcome="not_sent")
