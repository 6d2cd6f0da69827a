"""Who is calling: one statement for each kind of credential, which also tells the database the tenant.

The functions it calls belong to ``edgeflow_system`` and are the only way for a request to look across tenants.
"""

from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from typing import Any
from uuid import UUID

from sqlalchemy import TextClause, text

from app import db
from app.auth.roles import Role
from app.tokens import digest


@dataclass(frozen=True)
class Identity:
    """A caller. ``role`` and ``org_id`` are None when a user does not belong to the organization asked for.

    ``kind``: ``user``, ``api_key`` or ``device``; ``id``: of the user, the key or the device.
    """

    kind: str
    id: UUID
    org_id: UUID | None
    role: Role | None
    name: str
    session_id: UUID | None = None
    beside: Any = field(default=None, repr=False, compare=False)
    """What was looked up in the same statement."""

    @property
    def actor(self) -> str:
        """How records name the caller: ``user:ada@example.com``, ``api_key:ci``."""
        return f"{self.kind}:{self.name}"


@dataclass(frozen=True)
class Beside:
    """One more value to look up in the statement that finds the caller: two round trips less for a frequent request.

    ``sql`` is a SELECT of that value. It may name the caller's organization, ``who.org_id``, and runs under the
    row-level security of that organization.
    """

    sql: str
    values: dict[str, Any]


_TELL = "set_config('app.org_id', coalesce(i.org_id::text, ''), true)"
_TELL_MEMBER = "set_config('app.org_id', coalesce(CASE WHEN i.role IS NOT NULL THEN i.org_id::text END, ''), true)"
_SESSION = text(
    f"SELECT i.user_id, i.email, i.org_id, i.role, {_TELL_MEMBER} FROM identify_session(:session, :user, :org) i"
)
_API_KEY = text(f"SELECT i.id, i.org_id, i.role, i.name, i.stale, {_TELL} FROM identify_api_key(:hash) i")
# Its first use in an hour is for the logs.
_USED = text("""
WITH old AS (
    SELECT id, last_used_at FROM api_keys WHERE id = :id FOR NO KEY UPDATE SKIP LOCKED
), used AS (
    UPDATE api_keys k SET last_used_at = now() FROM old WHERE k.id = old.id
    RETURNING k.id, k.org_id, k.name, old.last_used_at AS before
)
INSERT INTO log_entries (org_id, level, source, kind, message, fields)
SELECT org_id, 1, 'platform', 'api_key.used', 'API key ' || name || ' used', jsonb_build_object('key_id', id)
FROM used WHERE before IS NULL OR before < date_trunc('hour', now())
""")
_DEVICE = text(
    f"SELECT i.device_id, i.org_id, i.name, i.disabled_at, {_TELL} FROM identify_devices(CAST(:hashes AS bytea[])) i"
)


def by_session(session_id: UUID, user_id: UUID, org_id: UUID | None, beside: Beside | None = None) -> Identity | None:
    """The user of a session that lives; ``org_id`` asks for another organization than the session's own.

    A stranger to the organization is told of none, so that nothing he calls can see its rows.
    """
    row, found = _find(_SESSION, {"session": session_id, "user": user_id, "org": org_id}, beside)
    if row is None:
        return None
    user, email, org, given, *_ = row
    role = Role(given) if given else None
    return _told(Identity("user", user, org if role else None, role, email, session_id, found), beside)


def by_api_key(key: str, beside: Beside | None = None) -> Identity | None:
    """The API key, if it lives. Notes its use, at most once a minute and without waiting for others who do."""
    row, found = _find(_API_KEY, {"hash": digest(key)}, beside)
    if row is None:
        return None
    key_id, org_id, role, name, stale, *_ = row
    identity = _told(Identity("api_key", key_id, org_id, Role(role), name, beside=found), beside)
    if stale:
        db.session.execute(_USED, {"id": key_id})
    return identity


def by_device_key(key: str) -> Identity | None:
    """The device whose key this is, unless it is disabled."""
    row, _found = _find(_DEVICE, {"hashes": [digest(key)]}, None)
    if row is None:
        return None
    device_id, org_id, name, disabled_at, *_ = row
    return None if disabled_at else _told(Identity("device", device_id, org_id, None, name), None)


def _find(who: TextClause, values: dict[str, Any], beside: Beside | None) -> tuple[Any, Any]:
    """The caller's row, in the request's transaction, or in a statement of its own together with what is beside it."""
    if beside is None:
        return db.session.execute(who, values).first(), None
    row = db.look_up(_together(who, beside.sql), {**values, **beside.values})
    return row, row[-1] if row else None


@cache
def _together(who: TextClause, beside: str) -> TextClause:
    """Materialized: the tenant is set when the caller's row is made, before anything beside it is looked up."""
    return text(f"WITH who AS MATERIALIZED ({who.text}) SELECT who.*, ({beside}) FROM who")


@dataclass(frozen=True)
class KnownDevice:
    """What a device key names; ``disabled_at`` is set for a device that may not connect."""

    org_id: UUID
    device_id: UUID
    name: str
    disabled_at: datetime | None


def devices_by_keys(keys: list[str]) -> dict[str, KnownDevice]:
    """Many device keys in one statement, for a storm of connects; unknown keys are absent."""
    hashes = {digest(key): key for key in keys}
    statement = text("SELECT * FROM identify_devices(CAST(:hashes AS bytea[]))")
    rows: Any = db.session.execute(statement, {"hashes": list(hashes)})
    return {
        hashes[bytes(row.key_hash)]: KnownDevice(row.org_id, row.device_id, row.name, row.disabled_at) for row in rows
    }


def _told(identity: Identity, beside: Beside | None) -> Identity:
    db.act_for(identity.org_id, told=beside is None)
    return identity
