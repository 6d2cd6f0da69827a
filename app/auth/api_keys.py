"""API keys: an organization's credentials for programs."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import delete, select

from app import clock, db, journal
from app.auth.models import ApiKey
from app.auth.roles import Role
from app.errors import Forbidden, NotFound, ValidationFailed
from app.pagination import Page, paginate
from app.tokens import digest, new_token

SORTABLE = {
    "id": ApiKey.id,
    "name": ApiKey.name,
    "created_at": ApiKey.created_at,
    "expires_at": ApiKey.expires_at,
    "last_used_at": ApiKey.last_used_at,
}
SHOWN = len("edgeflow_") + 7


def browse(org_id: UUID, *, limit: int, offset: int, sort: str | None = None) -> Page:
    """The organization's keys; expired ones too, until they are deleted."""
    query = select(ApiKey).where(ApiKey.org_id == org_id)
    return paginate(query, limit=limit, offset=offset, sort=sort, by=SORTABLE, default="-created_at")


def create(
    org_id: UUID, maker: UUID | None, maker_role: Role, *, name: str, role: Role, expires_at: datetime | None = None
) -> tuple[ApiKey, str]:
    """A new key and its secret, of which only the HMAC is stored. Raises Forbidden or ValidationFailed."""
    if not maker_role.includes(role):
        raise Forbidden(f"a key cannot have the role {role}: yours is {maker_role}")
    if expires_at is not None and expires_at <= clock.now():
        raise ValidationFailed(details={"expires_at": ["Must be in the future."]})
    secret = new_token("edgeflow")
    values: dict[str, Any] = {"name": name, "role": str(role), "created_by": maker, "expires_at": expires_at}
    key = ApiKey(org_id=org_id, key_hash=digest(secret), prefix=secret[:SHOWN], **values)
    db.session.add(key)
    db.session.flush()
    db.session.refresh(key)
    journal.note(org_id, "api_key.created", f"API key {name} created", key_id=key.id, role=str(role))
    return key, secret


def remove(org_id: UUID, key_id: UUID) -> None:
    """Delete a key: it opens nothing from the next request on. Raises NotFound."""
    statement = delete(ApiKey).where(ApiKey.org_id == org_id, ApiKey.id == key_id).returning(ApiKey.name)
    name = db.session.scalar(statement)
    if name is None:
        raise NotFound("API key")
    journal.note(org_id, "api_key.deleted", f"API key {name} deleted", key_id=key_id)
