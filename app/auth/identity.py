"""Who is calling: one statement for each kind of credential, which also tells the database the tenant.

The functions it calls belong to ``edgeflow_system`` and are the only way for a request to look across tenants.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import text

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

    @property
    def actor(self) -> str:
        """How records name the caller: ``user:ada@example.com``, ``api_key:ci``."""
        return f"{self.kind}:{self.name}"


_TELL = "set_config('app.org_id', coalesce(i.org_id::text, ''), true)"
_TELL_MEMBER = "set_config('app.org_id', coalesce(CASE WHEN i.role IS NOT NULL THEN i.org_id::text END, ''), true)"
_SESSION = text(f"SELECT i.*, {_TELL_MEMBER} FROM identify_session(:session, :user, :org) i")
_API_KEY = text(f"SELECT i.*, {_TELL} FROM identify_api_key(:hash) i")
_USED = text(
    "UPDATE api_keys SET last_used_at = now() "
    "WHERE id = (SELECT id FROM api_keys WHERE id = :id FOR NO KEY UPDATE SKIP LOCKED)"
)
_DEVICE = text(f"SELECT i.*, {_TELL} FROM identify_devices(CAST(:hashes AS bytea[])) i")


def by_session(session_id: UUID, user_id: UUID, org_id: UUID | None) -> Identity | None:
    """The user of a session that lives; ``org_id`` asks for another organization than the session's own.

    A stranger to the organization is told of none, so that nothing he calls can see its rows.
    """
    row = db.session.execute(_SESSION, {"session": session_id, "user": user_id, "org": org_id}).first()
    if row is None:
        return None
    role = Role(row.role) if row.role else None
    return _told(Identity("user", row.user_id, row.org_id if role else None, role, row.email, session_id))


def by_api_key(key: str) -> Identity | None:
    """The API key, if it lives. Notes its use, at most once a minute and without waiting for others who do."""
    row = db.session.execute(_API_KEY, {"hash": digest(key)}).first()
    if row is None:
        return None
    found = _told(Identity("api_key", row.id, row.org_id, Role(row.role), row.name))
    if row.stale:
        db.session.execute(_USED, {"id": row.id})
    return found


def by_device_key(key: str) -> Identity | None:
    """The device whose key this is, unless it is disabled."""
    row = db.session.execute(_DEVICE, {"hashes": [digest(key)]}).first()
    if row is None or row.disabled_at is not None:
        return None
    return _told(Identity("device", row.device_id, row.org_id, None, row.name))


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


def _told(identity: Identity) -> Identity:
    db.act_for(identity.org_id, told=True)
    return identity
