"""Provisioning: an agent trades its code and its hardware for a device's id and a key."""

import hashlib
from datetime import timedelta
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import delete, func, or_, select, text, update

from app import db, journal
from app.billing import quotas
from app.devices import bounds
from app.devices.models import Device, DeviceKey
from app.errors import Unauthorized
from app.tokens import digest, new_token

# A reply that was lost, or two agents that raced: whoever holds an older key has this long to come again.
FORMER_KEY_LIFE = timedelta(minutes=10)

IDENTIFYING = ("serial", "serial_number", "cpu_serial", "machine_id", "uuid", "mac", "mac_address")

_IDENTIFY = text("SELECT device_id, org_id FROM identify_provisioning(:hash)")


def provision(provisioning_code: str, hardware_info: dict[str, Any], network_info: dict[str, Any]) -> dict[str, Any]:
    """Bind the code to this hardware, and answer the device's id with a fresh key, which does not end by itself.

    The code must be used for the first time within 24 h. The hardware that it is bound to may come again at any time
    (agents lose their key at restart) and gets the same device; former keys end 10 minutes later.
    Raises Unauthorized, in the same words whether the code is unknown, expired, or bound to other hardware;
    TooLarge and ValidationFailed for unreasonable objects; QuotaExceeded for the first use of a code while there are
    more devices than the plan includes (the code stays as it is).
    """
    bounds.check("hardware_info", hardware_info)
    bounds.check("network_info", network_info)
    device = _device_of(provisioning_code)
    print_of_caller = fingerprint(hardware_info, network_info)
    if device is None or device.disabled_at is not None or not _admits(device, print_of_caller):
        raise Unauthorized("the provisioning code is unknown, expired, or bound to other hardware")
    if device.provisioned_at is None:
        quotas.claim(device.org_id, "devices", adding=0)
    device.fingerprint = print_of_caller
    again = " again" if device.provisioned_at else ""
    device.provisioned_at = func.now()
    device.hardware_info, device.network_info = hardware_info, network_info
    key = _fresh_key(device.org_id, device.id)
    words = f"device {device.name} provisioned{again}"
    journal.note(device.org_id, "device.provisioned", words, device_id=device.id)
    return {"device_id": device.id, "api_key": key}


def fingerprint(hardware: dict[str, Any], network: dict[str, Any]) -> bytes:
    """A digest of what stays the same when an agent starts again on the same hardware.

    Serial numbers and the like; for want of them the network card's address (all that a v1 agent tells); for want of
    that, too, the texts about the board. Numbers are left out: a v1 agent's ``ram_mb`` is its own heap, for instance.
    """
    for info in (hardware, network):
        if found := {key: info[key] for key in IDENTIFYING if info.get(key)}:
            return _digest(found)
    return _digest({key: value for key, value in hardware.items() if isinstance(value, str)})


def _digest(value: dict[str, Any]) -> bytes:
    return hashlib.sha256(orjson.dumps(value, option=orjson.OPT_SORT_KEYS)).digest()


def _device_of(code: str) -> Device | None:
    """The code's device, locked, so that of two first uses one binds and the other compares."""
    found = db.session.execute(_IDENTIFY, {"hash": digest(code)}).first()
    if found is None:
        return None
    db.act_for(found.org_id)
    query = select(Device).where(Device.org_id == found.org_id, Device.id == found.device_id)
    return db.session.scalar(query.with_for_update())


def _admits(device: Device, print_of_caller: bytes) -> bool:
    if device.fingerprint is not None:
        return bytes(device.fingerprint) == print_of_caller
    in_time = Device.provisioning_expires_at > func.now()
    return bool(db.session.scalar(select(in_time).where(Device.org_id == device.org_id, Device.id == device.id)))


def _fresh_key(org_id: UUID, device_id: UUID) -> str:
    key, end = new_token("device"), func.now() + FORMER_KEY_LIFE
    mine = (DeviceKey.org_id == org_id, DeviceKey.device_id == device_id)
    db.session.execute(delete(DeviceKey).where(*mine, DeviceKey.expires_at < func.now()))
    later = or_(DeviceKey.expires_at.is_(None), DeviceKey.expires_at > end)
    db.session.execute(update(DeviceKey).where(*mine, later).values(expires_at=end))
    db.session.add(DeviceKey(org_id=org_id, device_id=device_id, key_hash=digest(key)))
    db.session.flush()
    return key
