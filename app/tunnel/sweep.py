"""Connections that nobody will close: their gateway died, or the device has been silent for too long.

Set-wise, over all tenants: wants a system transaction.
"""

from typing import Any, cast

from sqlalchemy import CursorResult, text

from app import db
from app.processes import DEAD_AFTER_SECONDS
from app.tunnel.queries import LOG_DISCONNECTED
from config.settings import settings

# Looked up first, so that the update below has conditions on the connection's row only and checks them anew after
# a lock: a device that meanwhile came back through a living gateway stays connected.
# A gateway without a row ended in good order, or has only just begun: its newest connections wait for its heartbeat.
_LOST_GATEWAYS = text(
    """
    SELECT c.gateway FROM connections c
    LEFT JOIN processes p ON p.id::text = c.gateway AND p.kind = 'web'
    WHERE c.disconnected_at IS NULL
    GROUP BY c.gateway
    HAVING coalesce(max(p.heartbeat_at), max(c.connected_at)) < now() - make_interval(secs => :dead_after)
    """
)

# Rows that are locked are being written by a gateway that lives: the next sweep looks at them again.
_CLOSE = f"""
    WITH ended AS (
        UPDATE connections SET disconnected_at = now(), disconnect_reason = :reason, in_flight = 0
        WHERE device_id IN (
            SELECT device_id FROM connections WHERE disconnected_at IS NULL AND {{condition}} FOR UPDATE SKIP LOCKED
        )
        RETURNING org_id, device_id, epoch, disconnect_reason
    )
    {LOG_DISCONNECTED}"""
_CLOSE_LOST = text(_CLOSE.format(condition="gateway = ANY (:gateways)"))
_CLOSE_SILENT = text(_CLOSE.format(condition="last_seen_at < now() - make_interval(secs => :silent_after)"))


def sweep() -> dict[str, int]:
    """Mark lost and silent connections as closed; how many of each."""
    gateways = db.session.scalars(_LOST_GATEWAYS, {"dead_after": DEAD_AFTER_SECONDS}).all()
    lost = _close(_CLOSE_LOST, reason="gateway lost", gateways=list(gateways)) if gateways else 0
    silent = _close(_CLOSE_SILENT, reason="silent", silent_after=settings().offline_after)
    return {"gateway lost": lost, "silent": silent}


def _close(statement: Any, **values: Any) -> int:
    done = db.session.execute(statement, values)
    return cast(CursorResult[Any], done).rowcount
