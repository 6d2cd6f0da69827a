"""An organization's account as the unit of work: claimed by a lease, fenced by its attempt, put off if Stripe is away.

No transaction is open while Stripe answers, so a worker may have been overtaken whenever it comes back: it renews its
lease before each call, and what it writes is written only if the attempt is still its own.
"""

from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import structlog
from prometheus_client import Counter
from sqlalchemy import text

from app import db
from app.jobs import enqueue
from config.settings import settings

log = structlog.get_logger(__name__)

LEASE_SECONDS = 30  # renewed before each call, which gives up after 20
FIRST_PAUSE, LONGEST_PAUSE = 2, 900
AT_ONCE = 200
"""Accounts that one look for due ones asks for: after a long absence of Stripe they come in portions."""
EXPIRE_HOURS = 23  # Stripe forgets keys and identifiers after 24; what may have been done then would be done twice

OVERTAKEN = Counter("edgeflow_billing_overtaken_total", "Times that a worker found its account taken over by another")


class Overtaken(Exception):
    """Another worker holds the account now: nothing of this one's may be written."""


@dataclass
class Operation:
    """One of the outbox. ``tries`` counts this one; ``spoiled`` how often the key of a step had to be given up.

    ``expired``: Stripe may have forgotten what it was asked by an earlier try, which nothing else would tell it.
    ``forgotten``: the same of an operation that can look what became of that.
    """

    id: UUID
    kind: str
    payload: dict[str, Any]
    tries: int
    expired: bool
    forgotten: bool = False
    spoiled: dict[str, int] = field(default_factory=dict)

    def key(self, step: str) -> str:
        """The Idempotency-Key of one of its calls: the same for every try."""
        given_up = self.spoiled.get(step, 0)
        return f"{self.id}:{step}" + (f":{given_up}" if given_up else "")


@dataclass
class Claimed:
    """An account that this worker may carry on; ``seen``: the reasons to look at Stripe that this look covers."""

    org_id: UUID
    attempt: int
    seen: int
    customer_id: str | None
    generation: int
    customer_deleted: bool
    trial_used: bool
    operations: list[Operation]


_DUE = """wanted > synced AND next_attempt_at <= now() AND (lease_until IS NULL OR lease_until <= now())"""
_CLAIM = text(f"""
WITH due AS (SELECT org_id FROM billing_accounts WHERE org_id = :org AND {_DUE} FOR UPDATE SKIP LOCKED)
UPDATE billing_accounts a SET attempt = a.attempt + 1, lease_until = now() + make_interval(secs => :lease)
FROM due WHERE a.org_id = due.org_id
RETURNING a.attempt, a.wanted, a.customer_id, a.generation, a.customer_deleted_at, a.trial_used_at
""")
# Reports of usage last: nobody waits for them.
_TAKE = text("""
UPDATE billing_operations SET tries = tries + 1
WHERE id IN (SELECT id FROM billing_operations WHERE org_id = :org AND state = 'queued'
             ORDER BY kind = :report, sequence LIMIT :most)
RETURNING id, sequence, kind, payload, tries, error, created_at <= now() - make_interval(hours => :hours) AS old
""")
METER_REPORT = "meter.report"
OPERATIONS_AT_ONCE = 20
"""After a long absence of Stripe there may be hundreds, of which each look has some: a job must come to its end."""


def claim(org_id: UUID) -> Claimed | None:
    """Take an account with everything that is to be done for it; None: nothing is due, or another worker has it."""
    row = db.session.execute(_CLAIM, {"org": org_id, "lease": LEASE_SECONDS}).first()
    if row is None:
        return None
    operations = _take(org_id)
    # Who has as many as there may be has perhaps more: then this look settles none of the reasons.
    seen = row.wanted if len(operations) < OPERATIONS_AT_ONCE else 0
    return Claimed(
        org_id, row.attempt, seen, row.customer_id, row.generation, row.customer_deleted_at is not None,
        row.trial_used_at is not None, operations,
    )  # fmt: skip


def _take(org_id: UUID) -> list[Operation]:
    values = {"org": org_id, "report": METER_REPORT, "most": OPERATIONS_AT_ONCE, "hours": EXPIRE_HOURS}
    taken = db.session.execute(_TAKE, values).all()
    return [
        Operation(
            one.id, one.kind, one.payload, one.tries,
            expired=one.old and one.kind != METER_REPORT,
            # A report may wait longer than Stripe keeps keys and identifiers: its meters tell what they have.
            forgotten=one.old and one.kind == METER_REPORT and one.tries > 1,
            spoiled=dict((one.error or {}).get("spoiled", {})),
        )
        for one in sorted(taken, key=lambda one: (one.kind == METER_REPORT, one.sequence))
    ]  # fmt: skip


_RENEW = text("""
UPDATE billing_accounts SET lease_until = now() + make_interval(secs => :lease)
WHERE org_id = :org AND attempt = :attempt RETURNING 1
""")


def renew(claimed: Claimed) -> None:
    """Have the lease for one more call, in a transaction of its own. Raises Overtaken."""
    with db.transaction(claimed.org_id):
        _fenced(_RENEW, claimed, lease=LEASE_SECONDS)


_KEEP_CUSTOMER = text("""
UPDATE billing_accounts SET customer_id = :customer, generation = :generation, customer_deleted_at = NULL
WHERE org_id = :org AND attempt = :attempt RETURNING 1
""")


def keep_customer(claimed: Claimed, customer_id: str) -> None:
    """Write down the customer that was just made, so that its events are known. Raises Overtaken."""
    generation = claimed.generation + claimed.customer_deleted
    with db.transaction(claimed.org_id):
        _fenced(_KEEP_CUSTOMER, claimed, customer=customer_id, generation=generation)
    claimed.customer_id, claimed.generation, claimed.customer_deleted = customer_id, generation, False


_HOLD = text("SELECT 1 FROM billing_accounts WHERE org_id = :org AND attempt = :attempt FOR UPDATE")


def hold(claimed: Claimed) -> None:
    """Lock the account until the current transaction ends, as its one writer. Raises Overtaken."""
    _fenced(_HOLD, claimed)


_RELEASE = text("""
UPDATE billing_accounts SET lease_until = NULL, failures = 0, error = NULL, next_attempt_at = now(),
    synced = greatest(synced, :seen), synced_at = now()
WHERE org_id = :org AND attempt = :attempt RETURNING wanted > synced
""")


def release(claimed: Claimed) -> None:
    """Give back an account that is as Stripe says; if there was a new reason meanwhile, it is looked at again."""
    if _fenced(_RELEASE, claimed, seen=claimed.seen):
        enqueue("billing.work", claimed.org_id)


_POSTPONE = text("""
UPDATE billing_accounts SET lease_until = NULL, failures = failures + 1, error = :error,
    next_attempt_at = now() + make_interval(secs =>
        least(:first * power(2, least(failures, 20)), :longest) * (0.75 + random() / 2))
WHERE org_id = :org AND attempt = :attempt RETURNING extract(epoch FROM next_attempt_at - now())
""")


def postpone(claimed: Claimed, why: str) -> None:
    """Give back an account that is to be tried again later: after 2, 4, 8 … 900 seconds, give or take a quarter."""
    seconds = _fenced(_POSTPONE, claimed, error=why[:500], first=FIRST_PAUSE, longest=LONGEST_PAUSE)
    log.warning("billing put off", org_id=claimed.org_id, error=why, seconds=round(seconds, 1))


def _fenced(statement: Any, claimed: Claimed, **values: Any) -> Any:
    row = db.session.execute(statement, {"org": claimed.org_id, "attempt": claimed.attempt, **values}).first()
    if row is None:
        OVERTAKEN.inc()
        raise Overtaken(f"account {claimed.org_id}, attempt {claimed.attempt}")
    return row[0]


_WANT = text("UPDATE billing_accounts SET wanted = wanted + 1 WHERE org_id = :org")


def want(org_id: UUID) -> None:
    """Note a reason to look at Stripe anew, in the current transaction; a worker looks after its commit.

    An account that is put off stays so: what Stripe tells while it does not answer is seen with the next look.
    """
    db.session.execute(_WANT, {"org": org_id})
    enqueue("billing.work", org_id)


_DUE_ACCOUNTS = text(f"SELECT org_id FROM billing_accounts WHERE {_DUE} ORDER BY next_attempt_at LIMIT :most")


def due() -> list[UUID]:
    """The accounts with something to do, whatever became of their job; in a system transaction."""
    if not settings().sells:
        return []
    return list(db.session.scalars(_DUE_ACCOUNTS, {"most": AT_ONCE}))
