"""Registration, sign-in, the profile and API keys."""

from typing import Any
from uuid import UUID

from flask import request
from flask.views import MethodView
from flask_jwt_extended import create_access_token

from app import limits
from app.api import PREFIX, Blueprint
from app.api_schema import joined
from app.auth import api_keys, schemas, service
from app.auth.models import Session
from app.auth.roles import Role
from app.billing import quotas
from app.organizations import service as organizations
from app.organizations.access import current, public, requires
from app.pagination import Page, PageQuery
from config.settings import settings

blp = Blueprint("auth", __name__, description="Registration, sign-in, profile, API keys")


@blp.route("/auth/register")
class Register(MethodView):
    @public
    @blp.arguments(schemas.RegistrationCreate)
    @blp.response(201, schemas.TokensRead)
    @blp.errors(402, 403, 404)
    def post(self, data: dict[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
        """Register a user with a new organization, or with the one that invited him, and sign in."""
        _count_attempt()
        user = service.create_user(data["email"], data["password"], data["name"])
        if "invitation_token" in data:
            org_id = organizations.accept(user.id, user.email, data["invitation_token"])
            quotas.claim(org_id, "members", adding=0)
        else:
            org_id = organizations.found(user.id, data["organization_name"])
        return _sign_in(user.id, org_id), {"Location": f"{PREFIX}/auth/profile"}


@blp.route("/auth/login")
class Login(MethodView):
    @public
    @blp.arguments(schemas.LoginCreate)
    @blp.response(200, schemas.TokensRead)
    @blp.errors(401)
    def post(self, data: dict[str, Any]) -> dict[str, Any]:
        """Sign in; the session acts in the organization that the user joined first."""
        _count_attempt()
        user = service.authenticate(**data)
        own = organizations.of_user(user.id)
        return _sign_in(user.id, own[0].id if own else None)


@blp.route("/auth/refresh")
class Refresh(MethodView):
    @public
    @blp.arguments(schemas.RefreshCreate)
    @blp.response(200, schemas.TokensRead)
    @blp.errors(401)
    def post(self, data: dict[str, Any]) -> dict[str, Any]:
        """Exchange a refresh token for a new pair; a used one that comes again ends the session."""
        _count_attempt()
        return _tokens(*service.refresh(data["refresh_token"]))


@blp.route("/auth/logout")
class Logout(MethodView):
    @requires(None, user=True, sensitive=True)
    @blp.response(204)
    def post(self) -> None:
        """Sign out: end this session."""
        service.end_session(current.session_id)


@blp.route("/auth/profile")
class Profile(MethodView):
    @requires(None, user=True, sensitive=True)
    @blp.response(200, schemas.ProfileRead)
    def get(self) -> dict[str, Any]:
        """Who is signed in, and the current organization."""
        return _profile()

    @requires(None, user=True, sensitive=True)
    @blp.arguments(schemas.ProfileUpdate)
    @blp.response(200, schemas.ProfileRead)
    @blp.errors(409)
    def put(self, data: dict[str, Any]) -> dict[str, Any]:
        """Change one's name or e-mail address; only the fields given change."""
        service.update_profile(current.identity.id, **data)
        return _profile()


@blp.route("/auth/change-password")
class ChangePassword(MethodView):
    @requires(None, user=True, sensitive=True)
    @blp.arguments(schemas.PasswordChange)
    @blp.response(204)
    def post(self, data: dict[str, Any]) -> None:
        """Change one's password; ends one's other sessions."""
        service.change_password(current.identity.id, current.session_id, **data)


@blp.route("/auth/api-keys")
class ApiKeys(MethodView):
    @requires(Role.ADMIN, sensitive=True)
    @blp.arguments(PageQuery, location="query")
    @blp.response(200, schemas.ApiKeyPage)
    def get(self, query: dict[str, Any]) -> Page:
        """List the organization's API keys."""
        return api_keys.browse(current.org, **query)

    # A key makes no keys: a stolen one could outlive its deletion.
    @requires(Role.ADMIN, user=True, sensitive=True)
    @blp.arguments(schemas.ApiKeyCreate)
    @blp.response(201, schemas.ApiKeyCreated)
    def post(self, data: dict[str, Any]) -> dict[str, Any]:
        """Make an API key; its secret is shown only in this answer."""
        key, secret = api_keys.create(current.org, current.user_id, current.role, **data)
        return joined(schemas.ApiKeyRead, key, key=secret)


@blp.route("/auth/api-keys/<uuid:key_id>")
class OneApiKey(MethodView):
    @requires(Role.ADMIN, sensitive=True)
    @blp.response(204)
    def delete(self, key_id: UUID) -> None:
        """Delete an API key; it opens nothing any more."""
        api_keys.remove(current.org, key_id)


def _count_attempt() -> None:
    limits.by_address("auth", settings().rate_limit_auth)


def _sign_in(user_id: UUID, org_id: UUID | None) -> dict[str, Any]:
    agent = request.headers.get("User-Agent")
    return _tokens(*service.open_session(user_id, org_id, user_agent=agent, ip=limits.address()))


def _tokens(session: Session, refresh_token: str) -> dict[str, Any]:
    return {
        "access_token": create_access_token(str(session.user_id), additional_claims={"sid": str(session.id)}),
        "refresh_token": refresh_token,
        "token_type": "Bearer",
        "expires_in": settings().access_token_seconds,
        "user": service.get_user(session.user_id),
        "organization": organizations.membership(session.user_id, session.org_id),
    }


def _profile() -> dict[str, Any]:
    user = service.get_user(current.identity.id)
    return joined(schemas.UserRead, user, organization=organizations.membership(user.id, current.identity.org_id))
