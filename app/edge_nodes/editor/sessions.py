"""Editor sessions: a ticket that opens one, a cookie that is asked on every request, and all that ends them.

What a session may depends on what its owner may at this moment: it is looked up, in one statement, each time.
"""

import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import text

from app import db, journal
from app.auth.identity import Identity
from app.auth.roles import Role
from app.clock import now
from app.edge_nodes.editor.models import EditorSession
from app.tokens import digest
from config.settings import settings

TICKET_SECONDS = 60
LIFE_HOURS = 12


class NoSession(Exception):
    """A cookie or ticket that opens nothing (any more); the words are for the person."""


@dataclass(frozen=True)
class Access:
    """A session that lives, and where its device is. ``gateway`` is None while the device is not connected."""

    id: UUID
    cookie_hash: bytes
    org_id: UUID
    device_id: UUID
    actor: str
    role: Role
    gateway: str | None
    capabilities: tuple[str, ...]

    @property
    def read_only(self) -> bool:
        return not self.role.includes(Role.OPERATOR)


_FIND = """
SELECT i.id, i.cookie_hash, i.org_id, i.device_id, i.actor, i.role, i.ended, i.noted,
    CASE WHEN i.heard_at > now() - make_interval(secs => :offline_after) THEN i.gateway END, i.capabilities
FROM identify_editors(CAST(:hashes AS bytea[])) i
"""
_BY_COOKIE = text(f"""{_FIND}
WHERE i.device_id = :device AND i.opened AND i.cookie_hash = ANY (CAST(:hashes AS bytea[]))
ORDER BY i.ended <> '' LIMIT 1""")
_BY_TICKET = text(f"""{_FIND}
WHERE i.device_id = :device AND NOT i.opened AND i.ticket_hash = ANY (CAST(:hashes AS bytea[])) AND i.ended = ''""")
_OPEN = text("""
UPDATE editor_sessions SET cookie_hash = :cookie, opened_at = now(), last_used_at = now(),
    expires_at = now() + make_interval(hours => :hours)
WHERE id = :id AND opened_at IS NULL AND ticket_expires_at > now()
RETURNING id
""")
_STATES = text(f"{_FIND} WHERE i.cookie_hash = ANY (CAST(:hashes AS bytea[]))")
# One that was idle for too long has ended: what it did until then counts, and does not bring it back.
_USED = text("""
UPDATE editor_sessions e SET bytes_in = e.bytes_in + u.bytes_in, bytes_out = e.bytes_out + u.bytes_out,
    last_used_at = CASE WHEN e.last_used_at > now() - interval '30 minutes' THEN now() ELSE e.last_used_at END
FROM unnest(CAST(:ids AS uuid[]), CAST(:bytes_in AS bigint[]), CAST(:bytes_out AS bigint[]))
    AS u (id, bytes_in, bytes_out)
WHERE e.id = u.id AND e.closed_at IS NULL
""")
# Who opened it may be gone as well as the device. The entry of the opening still knows both; it was written in the
# transaction that set ``opened_at``, and so has its time, by which it is found.
_END = """
, closed AS (
    UPDATE editor_sessions e SET closed_at = now(), close_reason = o.ended FROM over o
    WHERE e.id = o.id AND e.closed_at IS NULL
    RETURNING e.id, e.org_id, e.device_id, e.opened_at, o.actor, o.ended, e.bytes_in, e.bytes_out,
        extract(epoch FROM now() - e.opened_at)::bigint AS seconds
)
INSERT INTO log_entries (org_id, device_id, level, source, kind, message, fields)
SELECT c.org_id, coalesce(c.device_id, opened.device_id), 1, 'platform', 'editor.closed', 'editor closed: ' || c.ended,
    jsonb_build_object('editor_session_id', c.id, 'actor', coalesce(c.actor, opened.fields->>'by'), 'reason', c.ended,
                       'seconds', c.seconds, 'bytes_in', c.bytes_in, 'bytes_out', c.bytes_out)
FROM closed c LEFT JOIN log_entries opened ON opened.org_id = c.org_id AND opened.time = c.opened_at
    AND opened.kind = 'editor.opened' AND opened.fields->>'editor_session_id' = c.id::text
"""
_END_OF = text(f"""
WITH over AS (
    SELECT i.id, i.actor, i.ended FROM identify_editors(CAST(:hashes AS bytea[])) i
    WHERE i.ended <> '' AND NOT i.noted AND i.opened
) {_END}""")
# Not those just used: the process that holds their streams ends them within a second, and knows their last bytes.
_END_ALL = text(f"""
WITH over AS (
    SELECT i.id, i.actor, i.ended
    FROM editor_sessions e CROSS JOIN LATERAL identify_editors(ARRAY[e.cookie_hash]) i
    WHERE e.opened_at IS NOT NULL AND e.closed_at IS NULL AND i.id = e.id AND i.ended <> ''
      AND e.last_used_at < now() - CASE i.ended WHEN 'idle' THEN interval '32 minutes' ELSE interval '30 seconds' END
) {_END}""")


def create(who: Identity, device_id: UUID) -> tuple[str, datetime]:
    """A ticket for a device's editor, and when it expires; for whoever calls, in his transaction."""
    ticket, expires_at = secrets.token_urlsafe(32), now() + timedelta(seconds=TICKET_SECONDS)
    owner = {"user_id": who.id, "session_id": who.session_id} if who.kind == "user" else {"api_key_id": who.id}
    made = EditorSession(
        org_id=who.org_id, device_id=device_id, ticket_hash=digest(ticket), ticket_expires_at=expires_at,
        expires_at=expires_at, **owner,
    )  # fmt: skip
    db.session.add(made)
    db.session.flush()
    return ticket, expires_at


def redeem(ticket: str, device_id: UUID) -> str:
    """Trade a ticket, once, for the value of a cookie. Raises NoSession."""
    cookie = secrets.token_urlsafe(32)
    found = _access(db.look_up(_BY_TICKET, _values([digest(ticket)], device=device_id)))
    if found is None:
        raise NoSession("the link was used already, or is too old")
    with db.transaction(found.org_id) as session:
        values = {"id": found.id, "cookie": digest(cookie), "hours": LIFE_HOURS}
        if session.execute(_OPEN, values).first() is None:
            raise NoSession("the link was used already, or is too old")
        journal.note(found.org_id, "editor.opened", "editor opened", device_id=device_id,
                     editor_session_id=str(found.id), by=found.actor, role=str(found.role))  # fmt: skip
    return cookie


def identify(cookies: list[str], device_id: UUID) -> Access:
    """The session that one of some cookies opens for this device. Raises NoSession.

    A sibling's page can set cookies for this origin too, so there may be several; those of others open nothing here.
    """
    hashes = [digest(cookie) for cookie in cookies]
    row = db.look_up(_BY_COOKIE, _values(hashes, device=device_id)) if hashes else None
    found = _access(row)
    if found is None:
        raise NoSession(f"the session has ended: {row[6]}" if row else "there is no session")
    return found


def states(hashes: list[bytes]) -> dict[UUID, Access]:
    """Those of some sessions, by the HMACs of their cookies, that still live."""
    with db.transaction() as session:
        rows = session.execute(_STATES, _values(hashes)).all()
    found = (_access(tuple(row)) for row in rows)
    return {one.id: one for one in found if one}


def used(usage: dict[UUID, tuple[int, int]]) -> None:
    """Add bytes (from the device, to the device) to sessions: they were used just now."""
    if usage:
        values = {
            "ids": list(usage),
            "bytes_in": [one[0] for one in usage.values()],
            "bytes_out": [one[1] for one in usage.values()],
        }
        with db.transaction(system=True) as session:
            session.execute(_USED, values)


def end(hashes: list[bytes]) -> None:
    """Record the end of those of some sessions that have ended, and tell the journal, once.

    For the process that held their last streams, and has written what these used. Others leave it to ``end_all``.
    """
    with db.transaction(system=True) as session:
        session.execute(_END_OF, {"hashes": hashes})


def end_all() -> int:
    """As ``end``, for all sessions; how many. In the caller's transaction, which must see all tenants."""
    done: Any = db.session.execute(_END_ALL)
    return int(done.rowcount)


def _values(hashes: list[bytes], **more: Any) -> dict[str, Any]:
    return {"hashes": hashes, "offline_after": settings().offline_after, **more}


def _access(row: tuple[Any, ...] | None) -> Access | None:
    if row is None or row[6]:
        return None
    session_id, cookie_hash, org_id, device_id, actor, role, _ended, _noted, gateway, capabilities = row
    return Access(
        session_id, bytes(cookie_hash or b""), org_id, device_id, actor, Role(role), gateway, tuple(capabilities)
    )
