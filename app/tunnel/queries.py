"""The routing table in PostgreSQL, set-wise: who is admitted, who is heard, who has gone.

A gateway serves every organization, so these run as the role that sees all of them; each write carries its epoch.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import text

from app import db
from app.auth.identity import Beside
from app.tokens import digest
from app.tunnel.protocol import Connect
from config.settings import settings


@dataclass(frozen=True)
class Admitted:
    """A device that may connect: its tenant, the epoch of this connection, and who held it before."""

    org_id: UUID
    device_id: UUID
    epoch: int
    shadow_version: int
    replaced_gateway: str | None
    has_work: bool


class Denied(Enum):
    """Why a device with a right key is not admitted."""

    DISABLED = "disabled"
    REPLACED = "a newer connection of it came first"


Departure = tuple[UUID, int, str]
"""A connection that ended: device, epoch, reason."""


@dataclass(frozen=True)
class Heard:
    """What a gateway tells of one of its connections: seconds since it was heard, and its counters."""

    device_id: UUID
    epoch: int
    silent_seconds: float
    in_flight: int
    bytes_in: int
    bytes_out: int
    rtt_ms: float | None


_ADMIT = text("""
WITH given AS (
    SELECT * FROM unnest(CAST(:devices AS uuid[]), CAST(:hashes AS bytea[]), CAST(:versions AS text[]),
                         CAST(:protocols AS int[]), CAST(:capabilities AS text[]), CAST(:addresses AS text[]))
        AS g (device_id, key_hash, agent_version, protocol, capabilities, remote_addr)
), known AS (
    SELECT g.*, d.org_id, d.disabled_at
    FROM given g
    JOIN device_keys k ON k.key_hash = g.key_hash AND k.device_id = g.device_id
        AND (k.expires_at IS NULL OR k.expires_at > now())
    JOIN devices d ON d.org_id = k.org_id AND d.id = k.device_id
), old AS (
    SELECT c.device_id, c.gateway FROM connections c JOIN known USING (device_id) WHERE c.disconnected_at IS NULL
), new AS (
    INSERT INTO connections (org_id, device_id, epoch, gateway, protocol, remote_addr)
    SELECT org_id, device_id, nextval('tunnel_epochs'), :gateway, protocol, NULLIF(remote_addr, '')
    FROM known WHERE disabled_at IS NULL ORDER BY device_id
    ON CONFLICT (device_id) DO UPDATE SET
        epoch = excluded.epoch, gateway = excluded.gateway, protocol = excluded.protocol,
        remote_addr = excluded.remote_addr, connected_at = now(), last_seen_at = now(), disconnected_at = NULL,
        disconnect_reason = NULL, in_flight = 0, bytes_in = 0, bytes_out = 0, rtt_ms = NULL
    WHERE connections.epoch < excluded.epoch
    RETURNING device_id, epoch
), told AS (
    UPDATE devices d SET agent_version = k.agent_version, protocol = k.protocol,
        capabilities = string_to_array(k.capabilities, ' ')
    FROM known k
    WHERE d.org_id = k.org_id AND d.id = k.device_id AND k.disabled_at IS NULL
      AND (d.agent_version, d.protocol, d.capabilities)
          IS DISTINCT FROM (k.agent_version, k.protocol, string_to_array(k.capabilities, ' '))
), noted AS (
    INSERT INTO log_entries (org_id, device_id, level, source, kind, message, fields)
    SELECT k.org_id, device_id, 1, 'platform', 'device.connected',
        CASE WHEN o.gateway IS NULL THEN 'connected' ELSE 'connected, in place of an older connection' END,
        jsonb_build_object('epoch', n.epoch, 'protocol', k.protocol, 'agent_version', k.agent_version,
                           'address', NULLIF(k.remote_addr, ''), 'replaced', o.gateway IS NOT NULL)
    FROM new n JOIN known k USING (device_id) LEFT JOIN old o USING (device_id)
)
SELECT known.device_id, known.org_id, known.disabled_at, new.epoch, old.gateway AS replaced,
    coalesce(s.version, 0) AS shadow_version,
    EXISTS (SELECT FROM executions e WHERE e.device_id = known.device_id AND e.state IN ('queued', 'in_progress'))
        AS has_work
FROM known
LEFT JOIN new USING (device_id)
LEFT JOIN old USING (device_id)
LEFT JOIN shadows s ON s.device_id = known.device_id
""")


class Outdated(Exception):
    """This process stood still while it admitted devices: they may be elsewhere by now, and nothing was taken over."""


def admit(
    gateway: str, asked: list[tuple[Connect, str | None]], outdated: Callable[[], bool]
) -> dict[UUID, Admitted | Denied]:
    """Authenticate connects and take over their devices, in one statement. Each device at most once in ``asked``.

    Absent: unknown device or key. Raises Outdated, without effect, if ``outdated()`` when all but the commit is done.
    """
    connects = [connect for connect, _address in asked]
    values = {
        "devices": [connect.device_id for connect in connects],
        "hashes": [digest(connect.api_key) for connect in connects],
        "versions": [connect.version for connect in connects],
        "protocols": [connect.protocol for connect in connects],
        "capabilities": [" ".join(connect.capabilities) for connect in connects],
        "addresses": [address or "" for _connect, address in asked],
        "gateway": gateway,
    }
    with db.transaction(system=True) as session:
        rows = session.execute(_ADMIT, values).all()
        if outdated():
            raise Outdated
    return {row.device_id: _admitted(row) for row in rows}


def _admitted(row: Any) -> Admitted | Denied:
    if row.disabled_at is not None:
        return Denied.DISABLED
    if row.epoch is None:
        return Denied.REPLACED
    return Admitted(row.org_id, row.device_id, row.epoch, row.shadow_version, row.replaced, row.has_work)


# One that had been given up and lives after all is connected again.
_HEARD = text("""
WITH told AS (
    SELECT * FROM unnest(CAST(:devices AS uuid[]), CAST(:epochs AS bigint[]), CAST(:silent AS float8[]),
                         CAST(:in_flight AS int[]), CAST(:bytes_in AS bigint[]), CAST(:bytes_out AS bigint[]),
                         CAST(:rtt_ms AS float8[]))
        AS h (device_id, epoch, silent, in_flight, bytes_in, bytes_out, rtt_ms)
), back AS (
    SELECT c.device_id FROM connections c JOIN told USING (device_id, epoch) WHERE c.disconnected_at IS NOT NULL
), kept AS (
    UPDATE connections c SET
        last_seen_at = now() - make_interval(secs => h.silent), in_flight = h.in_flight, bytes_in = h.bytes_in,
        bytes_out = h.bytes_out, rtt_ms = h.rtt_ms, disconnected_at = NULL, disconnect_reason = NULL
    FROM told h JOIN devices d ON d.id = h.device_id AND d.disabled_at IS NULL
    WHERE c.device_id = h.device_id AND c.epoch = h.epoch
    RETURNING c.org_id, c.device_id, c.epoch
), noted AS (
    INSERT INTO log_entries (org_id, device_id, level, source, kind, message, fields)
    SELECT org_id, device_id, 1, 'platform', 'device.connected', 'connected after all',
        jsonb_build_object('epoch', epoch)
    FROM kept JOIN back USING (device_id)
)
SELECT device_id FROM kept
""")


def heard(connections: list[Heard]) -> set[UUID]:
    """Write what a gateway knows of its connections; the devices it may keep (others moved, are gone or disabled)."""
    values = {
        "devices": [one.device_id for one in connections],
        "epochs": [one.epoch for one in connections],
        "silent": [one.silent_seconds for one in connections],
        "in_flight": [one.in_flight for one in connections],
        "bytes_in": [one.bytes_in for one in connections],
        "bytes_out": [one.bytes_out for one in connections],
        "rtt_ms": [one.rtt_ms for one in connections],
    }
    with db.transaction(system=True) as session:
        return set(session.scalars(_HEARD, values))


LOG_DISCONNECTED = """
INSERT INTO log_entries (org_id, device_id, level, source, kind, message, fields)
SELECT org_id, device_id, CASE WHEN disconnect_reason IN ('silent', 'gateway lost') THEN 2 ELSE 1 END,
    'platform', 'device.disconnected', 'disconnected: ' || disconnect_reason,
    jsonb_build_object('reason', disconnect_reason, 'epoch', epoch)
FROM ended
"""
"""``ended``: the connections that the same statement has closed."""

_GONE = text(f"""
WITH ended AS (
    UPDATE connections c SET disconnected_at = now(), disconnect_reason = g.reason, in_flight = 0
    FROM unnest(CAST(:devices AS uuid[]), CAST(:epochs AS bigint[]), CAST(:reasons AS text[]))
        AS g (device_id, epoch, reason)
    WHERE c.device_id = g.device_id AND c.epoch = g.epoch AND c.disconnected_at IS NULL
    RETURNING c.org_id, c.device_id, c.epoch, c.disconnect_reason
)
{LOG_DISCONNECTED}""")


def gone(connections: list[Departure]) -> None:
    """Record disconnects; an older epoch changes nothing of a newer connection, a repeated one nothing at all."""
    devices, epochs, reasons = zip(*connections, strict=True)
    with db.transaction(system=True) as session:
        session.execute(_GONE, {"devices": list(devices), "epochs": list(epochs), "reasons": list(reasons)})


@dataclass(frozen=True)
class Route:
    """Where a device of the caller's organization is. ``gateway`` is None for one that never connected."""

    disabled: bool
    reachable: bool
    gateway: str | None
    capabilities: list[str]
    last_seen_at: str | None
    """RFC 3339, UTC."""


_ROUTE = """
SELECT json_build_array(
    d.disabled_at IS NOT NULL,
    coalesce(c.disconnected_at IS NULL AND c.last_seen_at > now() - make_interval(secs => :offline_after), false),
    c.gateway, d.capabilities,
    to_char(c.last_seen_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24\\:MI\\:SS.US"Z"'))::text
FROM devices d LEFT JOIN connections c ON c.device_id = d.id
WHERE d.org_id = who.org_id AND d.id = :device
"""


def route_beside(device_id: UUID, **_others: Any) -> Beside:
    """A device's route, to be looked up together with the caller; ``route`` reads what comes."""
    return Beside(_ROUTE, {"device": device_id, "offline_after": settings().offline_after})


def route(found: str | None) -> Route | None:
    """What ``route_beside`` found; None when there is no such device for the caller."""
    return Route(*orjson.loads(found)) if found else None
