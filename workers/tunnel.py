"""Jobs of the tunnel: what devices are told after a commit."""

from uuid import UUID

from app import db
from app.devices import shadows
from app.errors import NotFound
from app.tunnel import service
from workers.base import actor, log


@actor("tunnel.push_shadow")
def push_shadow(org_id: str, device_id: str) -> None:
    """Tell a device its newest shadow; safe to repeat, since the document is read now."""
    try:
        with db.transaction(UUID(org_id)):
            service.push_shadow(UUID(org_id), UUID(device_id), shadows.document(UUID(org_id), UUID(device_id)))
    except NotFound:
        log.info("shadow not pushed: the device is gone", device_id=device_id)


@actor("tunnel.close")
def close(org_id: str, device_id: str, gateway: str, code: int, reason: str) -> None:
    """Close the tunnel of a device that was deleted or disabled."""
    del org_id  # the row may be gone; the gateway knows the device
    service.close(UUID(device_id), gateway, code, reason)
