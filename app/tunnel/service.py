"""The organization's live tunnels, as PostgreSQL knows them, and notices to the gateways that hold them."""

from typing import Any
from uuid import UUID

from sqlalchemy import and_, select

from app import db
from app.devices.models import Connection, Device
from app.devices.status import live
from app.pagination import Page, paginate
from app.tunnel import bus

_BY = {
    "connected_at": Connection.connected_at,
    "last_seen_at": Connection.last_seen_at,
    "device_name": Device.name,
    "id": Device.id,
}


def connections(org_id: UUID, *, limit: int, offset: int, sort: str | None = None) -> Page:
    """The organization's connected devices. Raises ValidationFailed for an unknown ``sort``."""
    query: Any = (
        select(
            Connection.device_id, Device.name.label("device_name"), Connection.connected_at, Connection.last_seen_at,
            Connection.gateway, Connection.epoch.label("session"), Connection.protocol, Connection.remote_addr,
            Connection.in_flight, Connection.bytes_in, Connection.bytes_out, Connection.rtt_ms,
        )
        .join(Device, and_(Device.org_id == Connection.org_id, Device.id == Connection.device_id))
        .where(Connection.org_id == org_id, live())
    )  # fmt: skip
    return paginate(query, limit=limit, offset=offset, sort=sort, by=_BY, default="-connected_at")


def push_shadow(org_id: UUID, device_id: UUID, document: dict[str, Any]) -> bool:
    """Tell a connected device its shadow; False when it is offline (it asks when it connects)."""
    gateway = db.session.scalar(
        select(Connection.gateway).where(Connection.org_id == org_id, Connection.device_id == device_id, live())
    )
    if gateway is None:
        return False
    fields = {key: document[key] for key in ("version", "desired", "delta")}
    bus.notify(gateway, {"t": "shadow", "device": device_id, **fields})
    return True


def close(device_id: UUID, gateway: str, code: int, reason: str) -> None:
    """Close a device's tunnel wherever it is."""
    bus.notify(gateway, {"t": "close", "device": device_id, "code": code, "reason": reason})
