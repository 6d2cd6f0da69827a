"""Bodies of organizations, members and invitations."""

from typing import Any

import orjson
from marshmallow import ValidationError, fields, validate

from app.api_schema import JsonObject, Name, Schema, Text, Time
from app.auth.schemas import EmailAddress, RoleName
from app.pagination import page_of

MAX_SETTINGS = 32 * 1024


def _is_small(value: Any) -> None:
    try:
        size = len(orjson.dumps(value))
    except orjson.JSONEncodeError:  # nested deeper than 254
        raise ValidationError("Nested too deep.") from None
    if size > MAX_SETTINGS:
        raise ValidationError(f"Larger than {MAX_SETTINGS // 1024} KiB.")


_SETTINGS = {"example": {"time_zone": "Europe/Vienna"}}


class OrganizationRead(Schema):
    id = fields.UUID()
    name = fields.String(metadata={"example": "Acme"})
    role = RoleName(metadata={"example": "owner", "description": "the caller's"})
    settings = JsonObject(metadata=_SETTINGS)
    created_at = Time()
    updated_at = Time()


class OrganizationUpdate(Schema):
    name = Name(metadata={"example": "Acme"})
    settings = JsonObject(validate=_is_small, metadata={**_SETTINGS, "description": "replaces the settings as a whole"})


class MemberRead(Schema):
    user_id = fields.UUID()
    email = fields.String(metadata={"example": "ada@example.com"})
    name = fields.String(metadata={"example": "Ada Lovelace"})
    role = RoleName(metadata={"example": "operator"})
    joined_at = Time()


class MemberUpdate(Schema):
    role = RoleName(required=True, metadata={"example": "admin", "description": "not above your own"})


class InvitationCreate(Schema):
    email = EmailAddress(required=True)
    role = RoleName(required=True, metadata={"example": "operator", "description": "not above your own"})


class InvitationRead(Schema):
    id = fields.UUID()
    email = fields.String(metadata={"example": "grace@example.com"})
    role = RoleName(metadata={"example": "operator"})
    invited_by = fields.UUID(allow_none=True)
    created_at = Time()
    expires_at = Time()


class InvitationCreated(InvitationRead):
    invitation_token = fields.String(metadata={"example": "invite_9xT…", "description": "shown only this once"})


class InvitationAccept(Schema):
    token = Text(required=True, validate=validate.Length(1, 200), metadata={"example": "invite_9xT…"})


OrganizationPage = page_of(OrganizationRead)
MemberPage = page_of(MemberRead)
InvitationPage = page_of(InvitationRead)
