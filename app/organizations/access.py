"""Who may do what: credentials to an identity, the identity's role, and the current tenant of a request."""

import time
from collections.abc import Callable
from functools import wraps
from typing import Any, NamedTuple, TypeVar, cast
from uuid import UUID

import jwt
from flask import current_app, g, request
from flask.globals import request_ctx

from app import limits, log_context
from app.auth import identity as identities
from app.auth.identity import Beside, Identity
from app.auth.roles import Role
from app.errors import Forbidden, NotFound, Unauthorized, ValidationFailed
from app.replay import run_once
from config.settings import settings

F = TypeVar("F", bound=Callable[..., Any])

REQUIRED_CLAIMS = ["exp", "iat", "iss", "aud", "sub", "sid", "type"]
VERIFIED_TOKENS = 10_000
NO_MEMBER = "you are not a member of that organization"


class Claims(NamedTuple):
    """What an access token says: whose it is, and until when (Unix time)."""

    session_id: UUID
    user_id: UUID
    expires_at: float


_verified: dict[str, Claims] = {}
"""By token: a signature that was right stays right, so only the time is looked at again. The session's row says on each
request whether the token still opens anything."""


class Current:
    """The caller of the request under way, as routes see him."""

    @property
    def identity(self) -> Identity:
        return cast(Identity, g.identity)

    @property
    def org(self) -> UUID:
        return cast(UUID, self.identity.org_id)

    @property
    def actor(self) -> str:
        return self.identity.actor

    @property
    def role(self) -> Role:
        return cast(Role, self.identity.role)

    @property
    def user_id(self) -> UUID | None:
        return self.identity.id if self.identity.kind == "user" else None

    @property
    def session_id(self) -> UUID:
        """The user's sign-in; only where ``requires`` says ``user``."""
        return cast(UUID, self.identity.session_id)

    @property
    def device_id(self) -> UUID | None:
        return self.identity.id if self.identity.kind == "device" else None

    @property
    def beside(self) -> Any:
        """What ``requires(beside=…)`` asked for."""
        return self.identity.beside


current = Current()


def requires(
    role: Role | None,
    *,
    device: bool = False,
    user: bool = False,
    sensitive: bool = False,
    beside: Callable[..., Beside] | None = None,
) -> Callable[[F], F]:
    """Only callers with at least this role in the current organization; None: anybody who is signed in, also a user
    who is no member any more of the organization that he signed in to.

    The current organization is that of the path's ``organization_id``, else of ``X-Organization-Id``, else the
    session's or key's own.
    ``device``: a device key is welcome too (the route checks that it speaks of itself). ``user``: a person who is
    signed in, no API key. ``sensitive``: counted by user, stricter, instead of by organization. ``beside``: what to
    look up together with the caller, made from the path's values; ``current.beside`` has it.
    Raises Unauthorized, Forbidden or RateLimited.
    """

    def decorate(view: F) -> F:
        @wraps(view)
        def checked(*args: Any, **kwargs: Any) -> Any:
            asked = beside(**(request.view_args or {})) if beside else None
            caller = authenticate(asked)
            admit(caller, role, device=device, user=user)
            _count(caller, sensitive)
            return run_once(caller, lambda: view(*args, **kwargs))

        checked._apidoc = {**getattr(view, "_apidoc", {}), "access": str(role or "any")}  # type: ignore[attr-defined]
        return cast(F, checked)

    return decorate


def public(view: F) -> F:
    """A route that needs no credentials (a guard test lists them)."""

    @wraps(view)
    def open_to_all(*args: Any, **kwargs: Any) -> Any:
        return run_once(None, lambda: view(*args, **kwargs))

    open_to_all._apidoc = {**getattr(view, "_apidoc", {}), "public": True}  # type: ignore[attr-defined]
    return cast(F, open_to_all)


def authenticate(beside: Beside | None = None) -> Identity:
    """The caller of this request, from its ``Authorization`` or ``X-API-Key`` header. Raises Unauthorized."""
    found = _from_headers(beside)
    if found is None:
        limits.by_address("failed-auth", settings().rate_limit_ip)
        raise Unauthorized()
    found = _addressed(found)
    g.identity = found
    log_context.bind(org_id=found.org_id, actor=found.actor)
    return found


def admit(identity: Identity, role: Role | None, *, device: bool = False, user: bool = False) -> None:
    """Raises Forbidden unless this identity may use a route that wants ``role``."""
    if identity.kind == "device":
        if not device:
            raise Forbidden("a device key cannot be used here")
        return
    if user and identity.kind != "user":
        raise Forbidden("this needs a signed-in user, not an API key")
    if role is None:
        return
    if identity.role is None:
        raise Forbidden(NO_MEMBER)
    if not identity.role.includes(role):
        raise Forbidden(f"this needs the role {role}; yours is {identity.role}")


def _count(caller: Identity, sensitive: bool) -> None:
    if caller.kind == "device":
        return
    if sensitive or caller.org_id is None:
        limits.hit("user", caller.id, settings().rate_limit_user)
    else:
        limits.hit("org", caller.org_id, settings().rate_limit_org)


def _from_headers(beside: Beside | None) -> Identity | None:
    headers = request_ctx.request.headers
    key = headers.get("X-API-Key")
    scheme, _, token = headers.get("Authorization", "").partition(" ")
    if key:
        return _from_key(key, beside)
    if scheme.lower() == "bearer" and token:
        return _from_token(token.strip(), beside)
    return None


def _from_key(key: str, beside: Beside | None) -> Identity | None:
    found = identities.by_device_key(key) if key.startswith("device_") else identities.by_api_key(key, beside)
    wanted = _wanted_organization()
    if found and found.kind == "api_key" and wanted not in (None, found.org_id):
        raise Forbidden("this API key belongs to another organization")
    return found


def _from_token(token: str, beside: Beside | None) -> Identity | None:
    claims = _claims(token)
    if claims is None:
        return None
    wanted = _wanted_organization()
    found = identities.by_session(claims.session_id, claims.user_id, wanted, beside)
    if found and wanted and found.role is None:
        raise Forbidden(NO_MEMBER)
    return found


def _addressed(found: Identity) -> Identity:
    """The caller as he stands in the organization that the path names, if it names one. Raises NotFound."""
    wanted = (request.view_args or {}).get("organization_id")
    if wanted in (None, found.org_id) or found.kind == "device":
        return found
    there = identities.by_session(found.session_id, found.id, wanted) if found.session_id else None
    if there is None or there.role is None:
        raise NotFound("organization")
    return there


def _claims(token: str) -> Claims | None:
    """The claims of one of our unexpired access tokens, else None.

    Not by flask-jwt-extended: it takes a token without exp, and one without type for an access token.
    """
    known = _verified.get(token)
    if known is not None:
        return known if known.expires_at > time.time() else None
    claims = _verify(token)
    if claims is not None:
        if len(_verified) >= VERIFIED_TOKENS:
            _verified.clear()
        _verified[token] = claims
    return claims


def _verify(token: str) -> Claims | None:
    config = current_app.config
    try:
        claims: dict[str, Any] = jwt.decode(
            token,
            config["JWT_SECRET_KEY"],
            algorithms=config["JWT_DECODE_ALGORITHMS"],
            audience=config["JWT_DECODE_AUDIENCE"],
            issuer=config["JWT_DECODE_ISSUER"],
            options={"require": REQUIRED_CLAIMS},
        )
        told = Claims(UUID(claims["sid"]), UUID(claims["sub"]), claims["exp"])
    except (jwt.PyJWTError, ValueError, TypeError, AttributeError):
        return None
    return told if claims["type"] == "access" else None


def _wanted_organization() -> UUID | None:
    raw = request.headers.get("X-Organization-Id")
    if not raw:
        return None
    try:
        return UUID(raw)
    except ValueError:
        raise ValidationFailed(details={"X-Organization-Id": ["Not a valid UUID."]}) from None
