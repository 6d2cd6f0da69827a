"""Bodies of sign-in, profile and API keys."""

from typing import Any

from marshmallow import ValidationError, fields, validate, validates_schema

from app.api_schema import Name, Schema, Text, Time
from app.auth.roles import Role
from app.pagination import page_of


class EmailAddress(fields.Email):
    """An e-mail address without blanks around it, as it was typed; comparisons ignore case."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(validate=validate.Length(max=254), **kwargs)

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> str:
        address: str = super()._deserialize(value, attr, data, **kwargs)
        return address.strip()


class RoleName(fields.Enum):
    """One of the roles."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(Role, by_value=True, **kwargs)

    def _serialize(self, value: Any, attr: str | None, obj: Any, **kwargs: Any) -> str | None:
        return None if value is None else str(value)


def _password(least: int, **kwargs: Any) -> Text:
    metadata = {"example": "correct horse battery", "format": "password"}
    return Text(required=True, load_only=True, validate=validate.Length(least, 1024), metadata=metadata, **kwargs)


_NAME = {"example": "Ada Lovelace"}
_REFRESH = {"example": "refresh_Vb0…", "description": "single use; the answer holds the next one"}


class RegistrationCreate(Schema):
    email = EmailAddress(required=True)
    password = _password(10)
    name = Name(required=True, metadata=_NAME)
    organization_name = Name(metadata={"example": "Acme", "description": "needed without an invitation"})
    invitation_token = Text(
        validate=validate.Length(1, 200),
        metadata={"example": "invite_9xT…", "description": "joins the inviting organization in place of making one"},
    )

    @validates_schema
    def _has_an_organization(self, data: dict[str, Any], **_kwargs: Any) -> None:
        if "invitation_token" not in data and "organization_name" not in data:
            raise ValidationError("Missing data for required field.", "organization_name")


class LoginCreate(Schema):
    email = EmailAddress(required=True)
    password = _password(1)


class RefreshCreate(Schema):
    refresh_token = Text(required=True, validate=validate.Length(1, 200), metadata=_REFRESH)


class UserRead(Schema):
    id = fields.UUID()
    email = fields.String(metadata={"example": "ada@example.com"})
    name = fields.String(metadata=_NAME)
    created_at = Time()
    updated_at = Time()


class CurrentOrganizationRead(Schema):
    """The organization that a session acts in, and the user's role there."""

    id = fields.UUID()
    name = fields.String(metadata={"example": "Acme"})
    role = RoleName(metadata={"example": "owner"})
    created_at = Time()


class TokensRead(Schema):
    access_token = fields.String(metadata={"example": "eyJhbGciOiJIUzI1NiIs…"})
    refresh_token = fields.String(metadata=_REFRESH)
    token_type = fields.String(metadata={"example": "Bearer"})
    expires_in = fields.Integer(metadata={"example": 900, "description": "seconds that the access token lives"})
    user = fields.Nested(UserRead)
    organization = fields.Nested(CurrentOrganizationRead, allow_none=True)


class ProfileRead(UserRead):
    organization = fields.Nested(CurrentOrganizationRead, allow_none=True)


class ProfileUpdate(Schema):
    name = Name(metadata=_NAME)
    email = EmailAddress(metadata={"description": "another address wants the current password"})
    current_password = Text(validate=validate.Length(1, 1024), load_only=True, metadata={"format": "password"})


class PasswordChange(Schema):
    current_password = _password(1)
    new_password = _password(10)


class ApiKeyCreate(Schema):
    name = Name(required=True, metadata={"example": "ci"})
    role = RoleName(required=True, metadata={"example": "operator", "description": "not above your own"})
    expires_at = Time(
        allow_none=True,
        metadata={"description": "without it the key lives until it is deleted", "example": "2099-01-01T00:00:00Z"},
    )


class ApiKeyRead(Schema):
    id = fields.UUID()
    name = fields.String(metadata={"example": "ci"})
    role = RoleName(metadata={"example": "operator"})
    prefix = fields.String(metadata={"example": "edgeflow_k3Jq9aZ", "description": "how the key begins"})
    created_by = fields.UUID(allow_none=True, metadata={"description": "the user who made it"})
    created_at = Time()
    expires_at = Time(allow_none=True)
    last_used_at = Time(allow_none=True, metadata={"description": "to the minute"})


class ApiKeyCreated(ApiKeyRead):
    key = fields.String(metadata={"example": "edgeflow_k3Jq9aZ…", "description": "shown only this once"})


ApiKeyPage = page_of(ApiKeyRead)
