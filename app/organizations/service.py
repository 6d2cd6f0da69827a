"""Organizations, their members, and invitations."""

from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import ColumnElement, Row, Select, column, delete, func, literal, literal_column, select, update
from sqlalchemy.dialects.postgresql import insert

from app import clock, db, journal
from app.auth.models import User
from app.auth.roles import Role
from app.errors import Conflict, Forbidden, NotFound
from app.organizations.models import Invitation, Membership, Organization
from app.pagination import Page, paginate
from app.tokens import digest, new_token

INVITATION_LIFE = timedelta(days=7)

_OWN = ("id", "name", "role", "settings", "created_at", "updated_at", "joined_at")
_OWN_COLUMNS: Any = [column(name) for name in _OWN]
_MEMBER: Any = (
    User.id.label("user_id"),
    User.email,
    User.name,
    Membership.role,
    Membership.created_at.label("joined_at"),
)
_MEMBER_SORT = {"id": User.id, "email": User.email, "name": User.name, "joined_at": Membership.created_at}
_INVITATION_SORT = {
    "id": Invitation.id,
    "email": Invitation.email,
    "created_at": Invitation.created_at,
    "expires_at": Invitation.expires_at,
}


def found(user_id: UUID, name: str) -> UUID:
    """A new organization with its owner; the transaction acts for it from here on."""
    org_id = uuid4()
    db.act_for(org_id)
    db.session.add(Organization(id=org_id, name=name))
    db.session.flush()
    db.session.add(Membership(org_id=org_id, user_id=user_id, role=Role.OWNER))
    db.session.flush()
    return org_id


def of_user(user_id: UUID) -> list[Row[Any]]:
    """A user's organizations with his role in each, the one he joined first at the head."""
    return list(db.session.execute(_own(user_id).order_by(column("joined_at"), column("id"))))


def membership(user_id: UUID, org_id: UUID | None) -> Row[Any] | None:
    """One of a user's organizations with his role there; None when he is no member (any more)."""
    return db.session.execute(_own(user_id).where(column("id") == org_id)).one_or_none()


def browse_of_user(user_id: UUID, *, limit: int, offset: int, sort: str | None = None) -> Page:
    """A user's organizations, across tenants."""
    by: Any = {name: column(name) for name in ("id", "name", "created_at", "joined_at")}
    return paginate(_own(user_id), limit=limit, offset=offset, sort=sort, by=by, default="joined_at")


def browse_of_key(org_id: UUID, role: Role, *, limit: int, offset: int, sort: str | None = None) -> Page:
    """The one organization of an API key."""
    by = {"id": Organization.id, "name": Organization.name, "created_at": Organization.created_at}
    by["joined_at"] = Organization.created_at
    return paginate(_seen_as(org_id, role), limit=limit, offset=offset, sort=sort, by=by, default="name")


def get(org_id: UUID, role: Role) -> Row[Any]:
    """The organization as a holder of ``role`` sees it."""
    return db.session.execute(_seen_as(org_id, role)).one()


def change(org_id: UUID, **changes: Any) -> None:
    """Change name or settings; the settings are replaced as a whole."""
    if changes:
        values = {**changes, "updated_at": func.now()}
        db.session.execute(update(Organization).where(Organization.id == org_id).values(**values))


def members(org_id: UUID, *, limit: int, offset: int, sort: str | None = None) -> Page:
    return paginate(_members(org_id), limit=limit, offset=offset, sort=sort, by=_MEMBER_SORT, default="joined_at")


def change_role(org_id: UUID, own: Role, user_id: UUID, role: Role) -> Row[Any]:
    """Give a member another role. Raises NotFound, Forbidden, or Conflict for the last owner."""
    member = _locked_member(org_id, user_id)
    _demand_reach(own, Role(member.role))
    _demand_reach(own, role)
    if role != Role.OWNER:
        _demand_another_owner(member)
    before, member.role = member.role, str(role)
    db.session.flush()
    changed = db.session.execute(_members(org_id).where(User.id == user_id)).one()
    if before != member.role:
        words = f"{changed.email} is {role} now"
        journal.note(org_id, "member.role_changed", words, user_id=user_id, role=str(role), previous_role=before)
    return changed


def remove_member(org_id: UUID, own: Role, user_id: UUID, *, leaves: bool) -> None:
    """Remove a member, or let one leave. Raises NotFound, Forbidden, or Conflict for the last owner."""
    if not (leaves or own.includes(Role.ADMIN)):
        raise Forbidden(f"this needs the role {Role.ADMIN}; yours is {own}")
    member = _locked_member(org_id, user_id)
    if not leaves:
        _demand_reach(own, Role(member.role))
    _demand_another_owner(member)
    email = db.session.scalar(select(User.email).where(User.id == user_id))
    journal.note(org_id, "member.removed", f"{email} {'has left' if leaves else 'was removed'}", user_id=user_id)
    db.session.delete(member)
    db.session.flush()


def invitations(org_id: UUID, *, limit: int, offset: int, sort: str | None = None) -> Page:
    """Invitations that nobody has accepted, expired ones too."""
    query = select(Invitation).where(Invitation.org_id == org_id, Invitation.accepted_at.is_(None))
    return paginate(query, limit=limit, offset=offset, sort=sort, by=_INVITATION_SORT, default="-created_at")


def invite(org_id: UUID, own: Role, invited_by: UUID | None, *, email: str, role: Role) -> tuple[Invitation, str, bool]:
    """Offer membership to an address; an open invitation to it is replaced, its token void.

    Answers the invitation, its token, of which only the HMAC is stored, and whether there is one more open now.
    Raises Forbidden or Conflict.
    """
    _demand_reach(own, role)
    if db.session.scalar(select(_members(org_id).where(_same(User.email, email)).exists())):
        raise Conflict("this user is a member already")
    open_to_it = (Invitation.org_id == org_id, _same(Invitation.email, email), Invitation.accepted_at.is_(None))
    db.session.execute(delete(Invitation).where(*open_to_it, Invitation.expires_at <= func.now()))
    token = new_token("invite")
    offer = {
        "email": email,
        "role": str(role),
        "token_hash": digest(token),
        "invited_by": invited_by,
        "created_at": clock.now(),
        "expires_at": clock.now() + INVITATION_LIFE,
    }
    statement = insert(Invitation).values(org_id=org_id, **offer)
    still_open: list[Any] = [Invitation.org_id, func.lower(Invitation.email)]
    statement = statement.on_conflict_do_update(
        index_elements=still_open, index_where=Invitation.accepted_at.is_(None), set_={**offer, "id": uuid4()}
    )
    journal.note(org_id, "member.invited", f"{email} was invited", role=str(role))
    # Only a row that was updated has an xmax: the one open invitation is the former one, replaced.
    made: Any = statement.returning(Invitation, literal_column("xmax = 0").label("is_new"))
    invitation, is_new = db.session.execute(made).one()
    return invitation, token, is_new


def withdraw(org_id: UUID, invitation_id: UUID) -> None:
    """Delete an open invitation. Raises NotFound."""
    which = (Invitation.org_id == org_id, Invitation.id == invitation_id, Invitation.accepted_at.is_(None))
    if db.session.scalar(delete(Invitation).where(*which).returning(Invitation.id)) is None:
        raise NotFound("invitation")


def accept(user_id: UUID, email: str, token: str) -> UUID:
    """Join the organization of an invitation; the transaction acts for it from here on.

    Raises NotFound (unknown, expired, withdrawn or used), Forbidden (another's) or Conflict (a member already).
    """
    named = db.session.execute(
        select(column("org_id")).select_from(func.identify_invitation(digest(token)).table_valued("id", "org_id"))
    ).scalar()
    if named is None:
        raise NotFound("invitation")
    org_id = UUID(str(named))
    db.act_for(org_id)
    invitation = _locked_invitation(org_id, token)
    if invitation.email.lower() != email.lower():
        raise Forbidden("this invitation is for another e-mail address")
    _join(org_id, user_id, invitation.role)
    invitation.accepted_at = clock.now()
    db.session.flush()
    journal.note(org_id, "member.joined", f"{email} has joined", user_id=user_id, role=invitation.role)
    return org_id


def _own(user_id: UUID) -> Select[Any]:
    return select(*_OWN_COLUMNS).select_from(func.organizations_of(user_id).table_valued(*_OWN))


def _seen_as(org_id: UUID, role: Role) -> Select[Any]:
    shown: Any = (Organization.id, Organization.name, Organization.settings, Organization.created_at)
    columns: Any = (*shown, Organization.updated_at, literal(str(role)).label("role"))
    return select(*columns).where(Organization.id == org_id)


def _members(org_id: UUID) -> Select[Any]:
    return select(*_MEMBER).join(Membership, Membership.user_id == User.id).where(Membership.org_id == org_id)


def _same(stored: Any, email: str) -> ColumnElement[bool]:
    return func.lower(stored) == func.lower(email)


def _locked_member(org_id: UUID, user_id: UUID) -> Membership:
    """A member, with the organization's row locked first: of two owners who demote each other, one must come second."""
    db.session.execute(select(Organization.id).where(Organization.id == org_id).with_for_update(key_share=True))
    member = db.session.scalar(select(Membership).where(Membership.org_id == org_id, Membership.user_id == user_id))
    if member is None:
        raise NotFound("member")
    return member


def _locked_invitation(org_id: UUID, token: str) -> Invitation:
    """The open invitation, locked: a second acceptance waits and finds none."""
    which = (Invitation.org_id == org_id, Invitation.token_hash == digest(token), Invitation.accepted_at.is_(None))
    invitation = db.session.scalar(select(Invitation).where(*which).with_for_update())
    if invitation is None:
        raise NotFound("invitation")
    return invitation


def _demand_reach(own: Role, role: Role) -> None:
    """Nobody hands out or touches a role above his own: only owners make, change or remove owners."""
    if not own.includes(role):
        raise Forbidden(f"this needs the role {role}; yours is {own}")


def _demand_another_owner(member: Membership) -> None:
    """Raises Conflict if this member is the organization's only owner. Wants the organization locked."""
    others = select(Membership.user_id).where(
        Membership.org_id == member.org_id, Membership.role == Role.OWNER, Membership.user_id != member.user_id
    )
    if member.role == Role.OWNER and db.session.scalar(others.limit(1)) is None:
        raise Conflict("the last owner cannot leave or be demoted")


def _join(org_id: UUID, user_id: UUID, role: str) -> None:
    statement = insert(Membership).values(org_id=org_id, user_id=user_id, role=role).on_conflict_do_nothing()
    if db.session.scalar(statement.returning(Membership.user_id)) is None:
        raise Conflict("you are a member already")
