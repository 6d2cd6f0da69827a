"""Usage, told to Stripe's meters: each settled hour of an organization once, as events that a repeat does not double.

An event's identifier makes it safe to repeat for a day. Later the meter is asked first what it has of that hour, and
what it has already is not told again: rather too little is billed than the same twice.

Meters add up whole numbers, so time online is told in seconds; a price by the hour transforms the quantity at Stripe
(``transform_quantity``: divide by 3600).
"""

from datetime import datetime
from functools import cache
from typing import Any
from uuid import UUID

import structlog
from sqlalchemy import text

from app import db
from app.billing import stripe_client
from app.billing.accounts import METER_REPORT
from app.billing.stripe_client import StripeRefused
from app.billing.work import Work
from app.errors import Conflict
from app.jobs import enqueue
from config.settings import settings

log = structlog.get_logger(__name__)

METERS = {
    "edgeflow_device_seconds": "device_seconds",
    "edgeflow_commands": "commands",
    "edgeflow_deployments": "deployments",
    "edgeflow_points": "points",
}
"""Event name of the meter to column of ``usage_hours``."""

# Two that look at once would both find an hour unasked.
_ALONE = text("SELECT pg_advisory_xact_lock(hashtextextended('meter.report', 0))")
# An hour is due two hours after its end, once nothing waits any more that arrived in it. Not before there was an
# account, nor so long ago that the outbox has forgotten what became of it (30 days; Stripe takes nothing after 35).
_SUBMIT = text("""
WITH waiting AS (
    SELECT coalesce(min(received_at), now()) AS since FROM telemetry_inbox
), due AS (
    SELECT u.org_id, u.hour
    FROM usage_hours u JOIN billing_accounts a ON a.org_id = u.org_id CROSS JOIN waiting
    WHERE u.reported_at IS NULL AND a.customer_id IS NOT NULL AND a.customer_deleted_at IS NULL
      AND u.hour <= least(now() - interval '3 hours', waiting.since - interval '1 hour')
      AND u.hour >= greatest(date_trunc('hour', a.created_at, 'UTC'), now() - interval '28 days')
      AND u.device_seconds + u.commands + u.deployments + u.points > 0
      AND NOT EXISTS (
          SELECT FROM billing_operations b
          WHERE b.org_id = u.org_id AND b.created_at > u.hour AND b.kind = :kind
            AND CAST(b.payload ->> 'hour' AS timestamptz) = u.hour)
), asked AS (
    INSERT INTO billing_operations (id, org_id, kind, payload)
    SELECT gen_random_uuid(), org_id, :kind, jsonb_build_object(
        'hour', to_char(hour AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"+00:00"'))
    FROM due ORDER BY org_id, hour
)
UPDATE billing_accounts a SET wanted = a.wanted + 1
FROM (SELECT DISTINCT org_id FROM due) d WHERE a.org_id = d.org_id
RETURNING a.org_id
""")


def submit() -> int:
    """Put the hours that are due into the outbox, set-wise; how many organizations that concerns.

    Wants a system transaction. An hour that failed there is not asked for again.
    """
    if not settings().sells:
        return 0
    db.session.execute(_ALONE)
    concerned = db.session.scalars(_SUBMIT, {"kind": METER_REPORT}).all()
    for org_id in concerned:
        enqueue("billing.work", org_id)
    return len(concerned)


_HOUR = text("""
SELECT device_seconds, commands, deployments, points FROM usage_hours
WHERE org_id = :org AND hour = :hour AND reported_at IS NULL
""")


def report(work: Work) -> dict[str, Any]:
    """Tell the meters what an hour's usage was; who is no customer any more has nothing to be billed.

    The hour counts as reported when the operation is written down as done (``performers.write``).
    Raises Conflict when a meter refused; the others have been told.
    """
    claimed, hour = work.claimed, datetime.fromisoformat(work.operation.payload["hour"])
    with db.transaction(claimed.org_id):
        used = db.session.execute(_HOUR, {"org": claimed.org_id, "hour": hour}).first()
    told = dict[str, int]()
    if used is not None and claimed.customer_id and not claimed.customer_deleted:
        told = {name: number for name, column in METERS.items() if (number := getattr(used, column))}
    known = _known(work, hour, told) if told and work.operation.forgotten else set[str]()
    refused = [name for name, number in told.items() if name not in known and not _tell(work, name, number, hour)]
    if refused:
        raise Conflict(f"Stripe refused usage of the meters {', '.join(refused)}", meters=refused)
    return {"reported": told}


def _known(work: Work, hour: datetime, told: dict[str, int]) -> set[str]:
    """The meters that have something of the hour, by a try whose answer was lost more than a day ago.

    A younger try may not be in their sums yet, but its identifier is still known.
    """
    start, known = int(hour.timestamp()), set[str]()
    # Several may have had the name: one that was deactivated, and its successor.
    for meter in work.ask(stripe_client.meters):
        if (name := meter["event_name"]) not in told:
            continue
        total = work.ask(stripe_client.meter_total, meter["id"], work.claimed.customer_id, start, start + 3600)
        if total:
            known.add(name)
            log.warning(
                "usage had been told before", org_id=work.claimed.org_id, meter=name, hour=hour, value=told[name],
                stripe_has=total,
            )  # fmt: skip
    return known


def _tell(work: Work, name: str, value: int, hour: datetime) -> bool:
    """Whether Stripe has it now, by this call or one before."""
    try:
        work.do(
            name, stripe_client.create_meter_event, name=name, value=value, timestamp=int(hour.timestamp()),
            identifier=identifier(work.claimed.org_id, hour, name), customer_id=work.claimed.customer_id,
        )  # fmt: skip
    except StripeRefused as refused:
        if refused.code == "duplicate_meter_event":
            return True
        _log_refusal(name, refused.code, refused.message)
        return False
    return True


def identifier(org_id: UUID, hour: datetime, name: str) -> str:
    """What Stripe knows an event by; at most 100 characters."""
    return f"{org_id}-{hour:%Y%m%dT%H}-{name}"


@cache
def _log_refusal(name: str, code: str | None, message: str) -> None:
    """Once by each process: a meter that is missing at Stripe refuses every hour of everybody."""
    log.error("stripe refused usage: is there such a meter?", meter=name, code=code, error=message)
