"""The outbox: what is to be done at Stripe, stored before anybody tries, and the answer to whoever waits for it."""

import base64
import time
from functools import cache
from typing import Any
from uuid import UUID, uuid4

import orjson
from cryptography.fernet import Fernet
from sqlalchemy import text

from app import db, errors
from app.errors import AppError, BillingNotConfigured, Conflict, NotFound, ServiceUnavailable
from app.jobs import enqueue
from app.tokens import derive
from app.watch import watcher
from config.settings import settings

CHANGES_SUBSCRIPTION = "subscription."
WAIT_SECONDS = 25.0

_SUBMIT = text("""
INSERT INTO billing_operations (id, org_id, kind, payload, actor)
VALUES (:id, :org, :kind, CAST(:payload AS jsonb), :actor)
""")
_UNDER_WAY = text("""
SELECT EXISTS (SELECT FROM billing_operations
               WHERE org_id = :org AND state = 'queued' AND starts_with(kind, :changes))
""")
# At once, whatever was put off: somebody waits for it.
_WANTED_NOW = text("""
INSERT INTO billing_accounts (org_id, wanted) VALUES (:org, 1)
ON CONFLICT (org_id) DO UPDATE SET wanted = billing_accounts.wanted + 1,
    next_attempt_at = least(billing_accounts.next_attempt_at, now())
""")
_OUTCOME = text("SELECT state, result, error FROM billing_operations WHERE org_id = :org AND id = :id")


def submit(org_id: UUID, kind: str, payload: dict[str, Any], actor: str | None) -> UUID:
    """Store an operation (kinds: ``performers``) in the caller's transaction; a worker performs it after the commit.

    Raises BillingNotConfigured, and Conflict while another operation that changes the subscription is under way.
    """
    if not settings().sells:
        raise BillingNotConfigured
    db.session.execute(_WANTED_NOW, {"org": org_id})  # locks the account, so that two are told of each other
    changes = {"org": org_id, "changes": CHANGES_SUBSCRIPTION}
    if kind.startswith(CHANGES_SUBSCRIPTION) and db.session.scalar(_UNDER_WAY, changes):
        raise Conflict("the subscription is being changed; try again when that is done")
    operation_id = uuid4()
    values = {"id": operation_id, "org": org_id, "kind": kind, "payload": db.as_json(payload), "actor": actor}
    db.session.execute(_SUBMIT, values)
    enqueue("billing.work", org_id)
    return operation_id


def wait(org_id: UUID, operation_id: UUID, seconds: float = WAIT_SECONDS) -> dict[str, Any]:
    """The result of a committed operation. No transaction may be open: it waits for Stripe.

    Raises the AppError that the operation failed with; ServiceUnavailable (``outcome: pending``) if it has not ended
    within ``seconds``: it goes on, and its result shows in what is read later.
    """
    until = time.monotonic() + seconds
    with watcher.waiting("billing_operations", operation_id) as wake:
        while (left := until - time.monotonic()) > 0 and not watcher.closing:
            # The trigger tells; a look every second is for what it told while its connection was lost.
            wake.wait(min(left, 1.0))
            wake.clear()
            row = db.session.execute(_OUTCOME, {"org": org_id, "id": operation_id}).first()
            db.commit()
            if row is None:
                raise NotFound("operation")
            if row.state == "failed":
                raise failure(row.error or {})
            if row.state == "done":
                return opened(row.result or {})
    raise ServiceUnavailable("Stripe has not answered yet; what was asked for goes on", outcome="pending")


def sealed(plain: dict[str, Any]) -> dict[str, str]:
    """A result as it is stored: it may hold a link or a secret that is worth money."""
    return {"sealed": seal(orjson.dumps(plain)).decode()}


def opened(stored: dict[str, Any]) -> dict[str, Any]:
    """What ``sealed`` was given."""
    if "sealed" not in stored:
        return stored
    plain: dict[str, Any] = orjson.loads(unseal(stored["sealed"].encode()))
    return plain


def seal(plain: bytes) -> bytes:
    return _cipher().encrypt(plain)


def unseal(stored: bytes) -> bytes:
    """Raises cryptography's InvalidToken for what another secret key has sealed."""
    return _cipher().decrypt(stored)


@cache
def _cipher() -> Fernet:
    return Fernet(base64.urlsafe_b64encode(derive("", "billing")))


def told(error: AppError) -> dict[str, Any]:
    """An error as it is stored."""
    return {"type": type(error).__name__, "message": error.message, "extra": error.extra}


def failure(stored: dict[str, Any]) -> AppError:
    """The error that ``told`` was given."""
    kind = getattr(errors, stored.get("type", ""), None)
    if not (isinstance(kind, type) and issubclass(kind, AppError)):
        kind = AppError
    made = kind.__new__(kind)
    AppError.__init__(made, stored.get("message", "the operation failed"), **stored.get("extra", {}))
    return made
