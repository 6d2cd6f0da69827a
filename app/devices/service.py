"""Devices: register, list, change, delete; and what other rooms ask about them."""

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import ColumnElement, Select, delete, false, func, or_, select, true

from app import db, journal, rows
from app.billing import quotas
from app.devices import bounds, queries, shadow, status
from app.devices import drift as drifting
from app.devices.models import Connection, Device, DeviceKey, Shadow
from app.errors import NotFound
from app.jobs import enqueue
from app.pagination import Page, paginate
from app.tokens import digest, new_token

CODE_LIFE = timedelta(hours=24)
CLOSE_DISABLED = 4003  # the tunnel's close code for a device that is disabled or deleted


def create(
    org_id: UUID,
    *,
    name: str,
    type: str = "generic",
    tags: Sequence[str] = (),
    metadata: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Register a device. Its ``api_key`` and ``provisioning_code`` are in this answer and never again.

    Raises TooLarge or ValidationFailed for unreasonable metadata, and QuotaExceeded.
    """
    bounds.check("metadata", metadata or {})
    quotas.claim(org_id, "devices")
    key, code = new_token("device"), new_token("code")
    device = Device(
        id=uuid4(),
        org_id=org_id,
        name=name,
        type=type,
        tags=_unique(tags),
        metadata_=metadata or {},
        provisioning_hash=digest(code),
        provisioning_expires_at=func.now() + CODE_LIFE,
    )
    db.session.add(device)
    db.session.flush()
    db.session.add(DeviceKey(org_id=org_id, device_id=device.id, key_hash=digest(key)))
    db.session.add(Shadow(org_id=org_id, device_id=device.id))
    db.session.flush()
    journal.note(org_id, "device.created", f"device {name} created", device_id=device.id)
    row = queries.one(queries.described(org_id, Device.provisioning_expires_at), device.id)
    return {**row._mapping, "api_key": key, "provisioning_code": code}


def list_devices(
    org_id: UUID,
    *,
    limit: int,
    offset: int,
    sort: str | None = None,
    status: str | None = None,
    tag: Sequence[str] = (),
    q: str | None = None,
    drift: bool | None = None,
) -> Page:
    """A page of devices. Raises ValidationFailed.

    ``tag``: all of them; ``q``: in name, tags or serial number, or how the id begins; ``drift``: whether a flow
    there differs from what was deployed.
    """
    query = queries.filtered(queries.described(org_id), state=status, tags=tag, q=q, drift=drift)
    return paginate(query, limit=limit, offset=offset, sort=sort, by=queries.sortable(), default="-created_at")


def describe(org_id: UUID, device_id: UUID) -> dict[str, Any]:
    """A device with all fields of its answer, and where it differs from what was deployed. Raises NotFound."""
    row = queries.one(queries.described(org_id), device_id)
    return {**row._mapping, "drift": drifting.of_device(device_id)}


def live_status(org_id: UUID, device_id: UUID) -> dict[str, Any]:
    """What is known of a device this moment; ``flows_running`` is null unless it reports them. Raises NotFound."""
    found = dict(queries.one(queries.live_status(org_id), device_id)._mapping)
    desired, reported = found.pop("desired") or {}, found.pop("reported") or {}
    running = reported.get("flows_running")
    return {
        **found,
        "gateway": found["gateway"] if found["connected"] else None,
        "flows_running": running if isinstance(running, int) and not isinstance(running, bool) else None,
        "shadow_sync": shadow.sync_state(desired, reported),
    }


def update(org_id: UUID, device_id: UUID, **changes: Any) -> dict[str, Any]:
    """Change the fields given (``metadata`` is replaced whole). Disabling closes the tunnel.

    Raises NotFound, TooLarge and ValidationFailed.
    """
    bounds.check("metadata", changes.get("metadata", {}))
    device = get(org_id, device_id, lock=True)
    if "disabled" in changes:
        _set_disabled(device, changes.pop("disabled"))
    if "tags" in changes:
        changes["tags"] = _unique(changes["tags"])
    for name, value in changes.items():
        setattr(device, "metadata_" if name == "metadata" else name, value)
    db.session.flush()
    return describe(org_id, device_id)


def remove(org_id: UUID, device_id: UUID) -> None:
    """Delete a device with its keys: its tunnel closes, and running deployments go on without it. Raises NotFound."""
    device = get(org_id, device_id, lock=True)
    _close_tunnel(device, "device deleted")
    journal.note(org_id, "device.deleted", f"device {device.name} deleted", device_id=device_id)
    db.session.execute(delete(Device).where(Device.org_id == org_id, Device.id == device_id))
    enqueue("rollouts.device_removed", org_id, device_id)


def get(org_id: UUID, device_id: UUID, *, lock: bool = False) -> Device:
    """The device, locked for this transaction if asked. Raises NotFound."""
    query = select(Device).where(Device.org_id == org_id, Device.id == device_id)
    return rows.one(query, "device", lock=lock)


def reachable(org_id: UUID, device_id: UUID) -> tuple[Device, Connection | None]:
    """The device, and its connection if a command can reach it now. Raises NotFound."""
    reach = (Connection.org_id == Device.org_id) & (Connection.device_id == Device.id)
    query = select(Device, Connection).outerjoin(Connection, reach & status.live() & Device.disabled_at.is_(None))
    row = db.session.execute(query.where(Device.org_id == org_id, Device.id == device_id)).first()
    if row is None:
        raise NotFound("device")
    return row[0], row[1]


def last_seen_at(org_id: UUID, device_id: UUID) -> datetime | None:
    """When the device was last heard from; None if it never connected."""
    query = select(Connection.last_seen_at).where(Connection.org_id == org_id, Connection.device_id == device_id)
    return db.session.scalar(query)


def select_targets(
    org_id: UUID,
    *,
    device_ids: Collection[UUID] | None = None,
    tags: Sequence[str] | None = None,
    all: bool = False,
) -> Select[UUID]:
    """A query for the ids of the devices named, or with any of the tags, or all. Disabled ones are among them."""
    wanted: list[ColumnElement[bool]] = [true() if all else false()]
    if device_ids:
        wanted.append(Device.id.in_(device_ids))
    if tags:
        wanted.append(Device.tags.overlap(list(tags)))
    return select(Device.id).where(Device.org_id == org_id, or_(*wanted))


def _set_disabled(device: Device, disabled: bool) -> None:
    if disabled and device.disabled_at is None:
        device.disabled_at = db.session.scalar(select(func.now()))
        _close_tunnel(device, "device disabled")
        journal.note(device.org_id, "device.disabled", f"device {device.name} disabled", device_id=device.id)
    elif not disabled and device.disabled_at is not None:
        device.disabled_at = None
        journal.note(device.org_id, "device.enabled", f"device {device.name} enabled", device_id=device.id)


def _close_tunnel(device: Device, reason: str) -> None:
    query = select(Connection.gateway).where(
        Connection.org_id == device.org_id, Connection.device_id == device.id, Connection.disconnected_at.is_(None)
    )
    enqueue("tunnel.close", device.org_id, device.id, db.session.scalar(query), CLOSE_DISABLED, reason)


def _unique(tags: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(tags))
