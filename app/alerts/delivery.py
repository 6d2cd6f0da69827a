"""Messages on their way: claimed by a lease, sent while no transaction is open, recorded if the lease still holds.

At least once, under an id that stays the same; once, as long as no worker dies between sending and recording. Messages
of one rule and channel go in the order in which they were planned, so that none says "firing" after "resolved".
"""

import threading
import time
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import structlog
from prometheus_client import Counter
from sqlalchemy import text

from app import db
from app.alerts import channels
from app.alerts.channels import email, webhook
from app.alerts.channels.outcome import Outcome
from config.settings import settings

log = structlog.get_logger(__name__)

LEASE_SECONDS = 60  # a look-up of a name may take 30 s, the rest of a webhook 10
SEND_WITHIN = 10  # seconds of the lease, after which a worker that stood still leaves the message to another
GIVE_UP_SECONDS = 24 * 3600
FIRST_PAUSE, LONGEST_PAUSE = 10, 3600
AT_ONCE = 3  # messages of one organization under way: receivers that do not answer hold up nobody else's
TURN_SECONDS = 20.0  # after which a job makes room for other organizations'

NOTIFICATIONS = Counter("edgeflow_notifications_total", "Tries to deliver a notification", ["channel", "outcome"])


@dataclass(frozen=True)
class Claimed:
    """A message that this worker may send until ``send_before`` (of ``time.monotonic()``); ``attempt`` fences it."""

    id: UUID
    attempt: int
    channel: channels.Stored | None
    payload: dict[str, Any]
    send_before: float


def pause_after(failures: int) -> int:
    """Seconds until the next try after so many failures in a row: 10, 20, 40 … 3,600."""
    return int(min(FIRST_PAUSE * 2 ** min(failures - 1, 20), LONGEST_PAUSE))


def deliver(org_id: UUID) -> bool:
    """Send what is due of an organization, one after the other; True: there may be more. No transaction may be open."""
    until = time.monotonic() + TURN_SECONDS
    with _Slot() as free:
        while free and time.monotonic() < until:
            with db.transaction(org_id):
                claimed = claim(org_id)
            if claimed is None:
                return False
            began = time.monotonic()
            outcome = send(claimed)
            with db.transaction(org_id):
                record(org_id, claimed, outcome, round((time.monotonic() - began) * 1000))
    return free


class _Slot:
    """Half of a process's threads may wait for receivers: the others stay for the platform's own work.

    Who gets none goes away; the message is still due and is asked for again within seconds.
    """

    _lock = threading.Lock()
    _taken = 0

    def __enter__(self) -> bool:
        with _Slot._lock:
            self._got = _Slot._taken < max(1, settings().worker_threads // 2)
            _Slot._taken += self._got
        return self._got

    def __exit__(self, *_error: object) -> None:
        with _Slot._lock:
            _Slot._taken -= self._got


_DUE = """n.state IN ('queued', 'sending') AND n.next_attempt_at <= now() AND NOT EXISTS (
    SELECT FROM notifications e WHERE e.rule_id = n.rule_id AND e.state IN ('queued', 'sending')
      AND e.channel->>'id' = n.channel->>'id' AND (e.created_at, e.id) < (n.created_at, n.id))"""
_CLAIM = text(f"""
WITH due AS (
    SELECT n.id, n.state FROM notifications n
    WHERE n.org_id = :org AND {_DUE}
      AND (SELECT count(*) FROM notifications WHERE org_id = :org AND state = 'sending' AND next_attempt_at > now())
          < :at_once
    ORDER BY n.next_attempt_at LIMIT 1 FOR UPDATE SKIP LOCKED
), lost AS (
    INSERT INTO notification_attempts (org_id, notification_id, attempt, error, ms)
    SELECT n.org_id, n.id, n.attempt, 'it is not known whether it arrived: the worker that sent it ended', 0
    FROM due JOIN notifications n USING (id) WHERE due.state = 'sending'
)
UPDATE notifications n SET state = 'sending', attempt = n.attempt + 1,
    lease_until = now() + make_interval(secs => :lease), next_attempt_at = now() + make_interval(secs => :lease)
FROM due, alert_rules r WHERE n.id = due.id AND r.id = n.rule_id
RETURNING n.id, n.attempt, n.channel, n.payload, r.channels
""")


# Claims that do not see each other would together take more than may be under way.
_ONE_BY_ONE = text("SELECT pg_advisory_xact_lock(hashtextextended('deliveries of ' || CAST(:org AS text), 0))")


def claim(org_id: UUID) -> Claimed | None:
    """Take the message that has been due for longest; None: there is none, or enough are under way."""
    send_before = time.monotonic() + SEND_WITHIN
    values = {"org": org_id, "lease": LEASE_SECONDS, "at_once": AT_ONCE}
    db.session.execute(_ONE_BY_ONE, {"org": str(org_id)})
    row = db.session.execute(_CLAIM, values).first()
    if row is None:
        return None
    # As the rule has it now: an address that was set right is used at once, a channel that was removed is left alone.
    channel = next((one for one in row.channels if one["id"] == row.channel.get("id")), None)
    return Claimed(row.id, row.attempt, channel, row.payload, send_before)


def send(claimed: Claimed) -> Outcome:
    """Tell the channel. Raises nothing that a channel or a receiver can cause."""
    if time.monotonic() > claimed.send_before:
        return Outcome("the worker stood still before it sent")
    channel = claimed.channel
    if channel is None:
        return Outcome("the channel was removed from the rule", permanent=True)
    said = {"id": str(claimed.id), **claimed.payload}
    try:
        if channel["type"] == "email":
            return email.send(channel["to"], str(claimed.id), said)
        return webhook.send(channels.opened(channel), str(claimed.id), said)
    except channels.Unreadable as error:
        return Outcome(str(error), permanent=True)
    except Exception as error:  # else it would be tried for ever, ahead of all that follow; its text may hold a secret
        log.error("notification not sent", notification_id=claimed.id, error=type(error).__name__)
        return Outcome(f"not sent: {type(error).__name__}")


_NOTE_ATTEMPT = text("""
INSERT INTO notification_attempts (org_id, notification_id, attempt, status_code, error, ms)
SELECT org_id, id, :attempt, :status_code, :error, :ms FROM notifications WHERE id = :id
""")
_RECORD = text("""
UPDATE notifications n SET state = next.state, error = :error, lease_until = NULL, failures = :failures,
    next_attempt_at = CASE WHEN next.state = 'queued' THEN now() + make_interval(secs => :pause) END,
    finished_at = CASE WHEN next.state <> 'queued' THEN now() END
FROM (
    SELECT id, CASE WHEN :delivered THEN 'delivered'
        WHEN :permanent OR now() + make_interval(secs => :pause) > queued_at + make_interval(secs => :give_up)
        THEN 'failed' ELSE 'queued' END AS state
    FROM notifications WHERE id = :id AND attempt = :attempt AND state = 'sending' FOR UPDATE
) next
WHERE n.id = next.id
RETURNING n.state
""")
_FAILURES = text("SELECT failures FROM notifications WHERE id = :id")


def record(org_id: UUID, claimed: Claimed, outcome: Outcome, ms: int) -> str | None:
    """Note a try and what follows from it: the message's new state; None if another worker has taken it over."""
    failures = (db.session.scalar(_FAILURES, {"id": claimed.id}) or 0) + (not outcome.delivered)
    values = {
        "id": claimed.id,
        "attempt": claimed.attempt,
        "status_code": outcome.status_code,
        "error": outcome.error or outcome.note,
        "ms": ms,
        "delivered": outcome.delivered,
        "permanent": outcome.permanent,
        "failures": failures,
        "pause": 0 if outcome.delivered else pause_after(failures),
        "give_up": GIVE_UP_SECONDS,
    }
    db.session.execute(_NOTE_ATTEMPT, values)
    state = db.session.scalar(_RECORD, values)
    kind = claimed.channel["type"] if claimed.channel else "removed"
    NOTIFICATIONS.labels(kind, state or "taken over").inc()
    log.info(
        "notification",
        org_id=org_id, notification_id=claimed.id, channel=kind, attempt=claimed.attempt, state=state or "taken over",
        status=outcome.status_code, error=outcome.error,
    )  # fmt: skip
    return state


_DUE_ORGANIZATIONS = text(f"SELECT DISTINCT n.org_id FROM notifications n WHERE {_DUE}")


def due() -> list[UUID]:
    """The organizations with messages to send, whatever became of their job; in a system transaction."""
    return list(db.session.scalars(_DUE_ORGANIZATIONS))
