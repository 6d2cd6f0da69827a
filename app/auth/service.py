"""Users and their sessions. Neither belongs to a tenant: a user may be a member of many organizations."""

import base64
from datetime import timedelta
from typing import Any
from uuid import UUID

import structlog
from sqlalchemy import ColumnElement, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import IntegrityError

from app import clock, db, journal, limits
from app.auth import passwords
from app.auth.models import RefreshToken, Session, User
from app.errors import Conflict, Unauthorized, ValidationFailed
from app.tokens import derive, digest, new_token
from config.settings import settings

log = structlog.get_logger(__name__)

TAKEN = "a user with this e-mail address exists"
GRACE = timedelta(seconds=10)  # a client that lost the reply asks again within this


class RefreshTokenReused(Unauthorized):
    """A refresh token came a second time, too late for a lost reply: one of its two holders stole it."""

    keeps_changes = True


def create_user(email: str, password: str, name: str) -> User:
    """A new user. Raises Conflict when the address is taken."""
    values = {"email": email, "name": name, "password_hash": passwords.hashed(password)}
    user = db.session.scalar(insert(User).values(**values).on_conflict_do_nothing().returning(User))
    if user is None:
        raise Conflict(TAKEN)
    return user


def authenticate(email: str, password: str) -> User:
    """The user with this address and password. Raises Unauthorized, in the same time and words for unknown users."""
    stored = db.session.execute(select(User.id, User.password_hash).where(_has_address(email))).first()
    _count_guess(str(stored.id) if stored else email.lower())
    right = passwords.matches(password, stored.password_hash if stored else None)
    if stored is None or not right:
        log.info("sign-in refused", known=stored is not None)
        if stored is not None:
            _note_failure(stored.id)
        raise Unauthorized("wrong e-mail address or password")
    user = _locked(stored.id)
    if user.password_hash != stored.password_hash:  # changed while we were checking
        raise Unauthorized("wrong e-mail address or password")
    if passwords.outdated(user.password_hash):
        user.password_hash = passwords.hashed(password)
    return user


def open_session(user_id: UUID, org_id: UUID | None, *, user_agent: str | None, ip: str) -> tuple[Session, str]:
    """A sign-in that acts in ``org_id`` by default, and its first refresh token."""
    agent = user_agent[:400] if user_agent else None
    session = Session(user_id=user_id, org_id=org_id, user_agent=agent, ip=ip, expires_at=_refresh_end())
    db.session.add(session)
    db.session.flush()
    token = new_token("refresh")
    _store(session, token)
    _note(session, "auth.signed_in", "signed in", ip=ip)
    return session, token


def refresh(presented: str) -> tuple[Session, str]:
    """The session of a refresh token, and the next one in its place.

    Within 10 s of its use it gives the same successor again; later, somebody else holds it too, and the session ends
    (RFC 9700, 4.14.2). The row lock lines up requests that come at once. Raises Unauthorized.
    """
    found = db.session.execute(
        select(RefreshToken, Session, (RefreshToken.used_at < func.now() - GRACE).label("late"))
        .join(Session, Session.id == RefreshToken.session_id)
        .where(RefreshToken.token_hash == digest(presented), RefreshToken.expires_at > func.now(), _lives())
        .with_for_update(of=[RefreshToken, Session], key_share=True)
    ).first()
    if found is None:
        raise Unauthorized("this refresh token is not valid any more; sign in again")
    token, session, late = found
    if late:
        _revoke(Session.id == session.id, "refresh token reused")
        log.warning("refresh token reused", session_id=str(session.id))
        _note(session, "auth.refresh_reused", "a refresh token came twice: the session was ended", level="warning")
        raise RefreshTokenReused("this refresh token was used before; sign in again")
    successor = _successor(presented)
    if token.used_at is None:
        token.used_at = func.now()
        session.expires_at = _refresh_end()
        _store(session, successor)
    return session, successor


def end_session(session_id: UUID) -> None:
    """Sign out: tokens of this session are worth nothing from the next request on."""
    _revoke(Session.id == session_id, "signed out")
    _note(db.session.get_one(Session, session_id), "auth.signed_out", "signed out")


def get_user(user_id: UUID) -> User:
    return db.session.scalars(select(User).where(User.id == user_id)).one()


def update_profile(user_id: UUID, *, current_password: str | None = None, **changes: Any) -> User:
    """Change name or address; another address wants the password. Raises ValidationFailed or Conflict."""
    user = _locked(user_id)
    if changes.get("email", user.email) != user.email:
        _demand_password(user, current_password)
    try:
        with db.session.begin_nested():
            for name, value in changes.items():
                setattr(user, name, value)
    except IntegrityError:
        raise Conflict(TAKEN) from None
    return user


def change_password(user_id: UUID, session_id: UUID, current_password: str, new_password: str) -> None:
    """Change the password and end the user's other sessions. Raises ValidationFailed."""
    user = _locked(user_id)
    _demand_password(user, current_password)
    user.password_hash = passwords.hashed(new_password)
    _revoke((Session.user_id == user_id) & (Session.id != session_id), "password changed")
    db.session.flush()
    _note(db.session.get_one(Session, session_id), "auth.password_changed", "password changed")


def _note(session: Session, kind: str, words: str, *, level: str = "info", **fields: Any) -> None:
    """Tell the session's own organization; the transaction acts for it from here on."""
    if session.org_id is None:
        return
    db.act_for(session.org_id)
    user = get_user(session.user_id)
    about = {"user_id": user.id, "session_id": session.id, **fields}
    journal.note(session.org_id, kind, f"{user.email}: {words}", level=level, **about)


def _note_failure(user_id: UUID) -> None:
    """Not by this request: a known user's would take longer than a stranger's, and tell them apart."""
    about = {"user_id": user_id, "ip": limits.address()}
    journal.later(
        journal.Note(None, "auth.failed", "a sign-in with a wrong password", "warning", user_id=user_id, fields=about)
    )


def _has_address(email: str) -> ColumnElement[bool]:
    return func.lower(User.email) == func.lower(email)


def _lives() -> ColumnElement[bool]:
    return Session.revoked_at.is_(None) & (Session.expires_at > func.now())


def _locked(user_id: UUID) -> User:
    """The user, locked against a change of password until this transaction ends."""
    statement = select(User).where(User.id == user_id).with_for_update(key_share=True)
    return db.session.scalars(statement, execution_options={"populate_existing": True}).one()


def _demand_password(user: User, password: str | None) -> None:
    """400, not 401: the session is good, and a client would drop it."""
    _count_guess(str(user.id))
    if password is None or not passwords.matches(password, user.password_hash):
        raise ValidationFailed(details={"current_password": ["Not the current password."]})


def _count_guess(account: str) -> None:
    """Guesses at one account are limited wherever they come from; counted before the check, so hits tell nothing.

    ``account``: the user's id, since PostgreSQL takes more spellings for the same address than Python does (İ and i);
    for an unknown user the address.
    """
    limits.hit("login", digest(account).hex(), settings().rate_limit_auth)


def _revoke(which: ColumnElement[bool], reason: str) -> None:
    values = {"revoked_at": func.now(), "revoked_reason": reason}
    db.session.execute(update(Session).where(which, Session.revoked_at.is_(None)).values(**values))


def _store(session: Session, token: str) -> None:
    db.session.add(RefreshToken(token_hash=digest(token), session_id=session.id, expires_at=_refresh_end()))
    db.session.flush()


def _successor(presented: str) -> str:
    """Derived, not random: the grace can answer it again although only its hash is stored."""
    return "refresh_" + base64.urlsafe_b64encode(derive(presented, "refresh-successor")).decode().rstrip("=")


def _refresh_end() -> Any:
    return clock.now() + timedelta(days=settings().refresh_token_days)
