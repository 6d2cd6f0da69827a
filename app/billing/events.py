"""What Stripe tells by itself: an event is a reason to look at its customer anew; nothing else it says is believed.

So the order, the number and the age of events do not matter. What never arrived is asked for once a day.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import orjson
import structlog
from prometheus_client import Counter
from sqlalchemy import text

from app import db
from app.billing import accounts, stripe_client
from app.billing.stripe_client import BadSignature
from app.clock import now
from app.errors import BillingNotConfigured, ValidationFailed
from app.jobs import enqueue
from config.settings import settings

log = structlog.get_logger(__name__)

MARGIN = timedelta(days=3)
"""So far before the newest known event one is looked for that never came: days without a sweep are made up for."""
OLDEST = timedelta(days=30)
"""Stripe tells of no older ones."""

EVENTS = Counter("edgeflow_stripe_events_total", "Events of Stripe that came", ["source", "outcome"])


@dataclass(frozen=True)
class Event:
    """What of an event matters: that it came, and whom it is about."""

    id: str
    type: str
    customer_id: str | None
    created_at: datetime


def take(raw_body: bytes, signature_header: str) -> bool:
    """Take an event from the webhook, in the request's transaction; whether it was new and about a customer of ours.

    ``raw_body``: the bytes that were signed. Raises ValidationFailed for a signature that is not Stripe's or too old,
    and for what is no event; BillingNotConfigured.
    """
    if not settings().sells:
        raise BillingNotConfigured
    try:
        stripe_client.check_signature(raw_body, signature_header)
    except BadSignature as error:
        EVENTS.labels("webhook", "bad signature").inc()
        log.warning("event refused", error=str(error))
        raise ValidationFailed("the signature is not valid") from None
    event = _read(raw_body)
    outcome = _note(event)
    EVENTS.labels("webhook", outcome).inc()
    log.info("stripe event", event_id=event.id, type=event.type, customer=event.customer_id, outcome=outcome)
    return outcome == "taken"


def _read(raw_body: bytes) -> Event:
    try:
        return understood(orjson.loads(raw_body))
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, OSError):
        raise ValidationFailed("this is no event of Stripe's") from None


def understood(told: dict[str, Any]) -> Event:
    """An event as Stripe writes it. Raises KeyError, TypeError, ValueError for anything else."""
    if told["object"] != "event" or not isinstance(told["id"], str) or not isinstance(told["type"], str):
        raise ValueError("no event")
    return Event(
        told["id"], told["type"], customer_of(told["data"]["object"]), datetime.fromtimestamp(told["created"], UTC)
    )


def customer_of(about: dict[str, Any]) -> str | None:
    """The customer that an object belongs to, or is."""
    found = about.get("id") if about.get("object") == "customer" else about.get("customer")
    if isinstance(found, dict):  # told in full
        found = found.get("id")
    return found if isinstance(found, str) and found else None


_ACCOUNT_OF = text("SELECT billing_account_of(:customer)")
_STORE = text("""
INSERT INTO stripe_events (id, org_id, type, customer_id, source, created_at)
VALUES (:id, :org, :type, :customer, 'webhook', :created_at) ON CONFLICT (id) DO NOTHING RETURNING 1
""")


def _note(event: Event) -> str:
    """Store an event and the wish to look at its customer: ``taken``, ``known``, ``unknown customer``, ``ignored``."""
    if event.customer_id is None:
        return "ignored"
    org_id: UUID | None = db.session.scalar(_ACCOUNT_OF, {"customer": event.customer_id})
    db.act_for(org_id)
    values = {
        "id": event.id, "org": org_id, "type": event.type, "customer": event.customer_id,
        "created_at": event.created_at,
    }  # fmt: skip
    if not db.session.scalar(_STORE, values):
        return "known"
    if org_id is None:
        return "unknown customer"
    accounts.want(org_id)
    return "taken"


_NEWEST = text("SELECT max(created_at) FROM stripe_events")
_STORE_MISSED = text("""
INSERT INTO stripe_events (id, org_id, type, customer_id, source, created_at)
SELECT e.id, a.org_id, e.type, e.customer_id, 'sweep', e.created_at
FROM unnest(CAST(:ids AS text[]), CAST(:types AS text[]), CAST(:customers AS text[]),
            CAST(:created_at AS timestamptz[])) AS e (id, type, customer_id, created_at)
LEFT JOIN billing_accounts a ON a.customer_id = e.customer_id
ON CONFLICT (id) DO NOTHING RETURNING org_id
""")
_WANT_MANY = text("UPDATE billing_accounts SET wanted = wanted + 1 WHERE org_id = ANY (:orgs)")


def sweep() -> int:
    """Take the events of the last days that never arrived; how many. No transaction may be open. Raises StripeDown."""
    if not settings().sells:
        return 0
    with db.transaction(system=True):
        newest = db.session.scalar(_NEWEST)
    since = max((newest or now()) - MARGIN, now() - OLDEST) if newest else now() - OLDEST
    missed = 0
    for page in stripe_client.event_pages(int(since.timestamp())):
        missed += _take_missed(understood(one) for one in page)
    if missed:
        log.warning("events had never arrived", events=missed)
    return missed


def _take_missed(events: Iterable[Event]) -> int:
    about = [event for event in events if event.customer_id is not None]
    values = {
        "ids": [event.id for event in about],
        "types": [event.type for event in about],
        "customers": [event.customer_id for event in about],
        "created_at": [event.created_at for event in about],
    }
    with db.transaction(system=True):
        stored = list(db.session.scalars(_STORE_MISSED, values))
        orgs = {org_id for org_id in stored if org_id is not None}
        db.session.execute(_WANT_MANY, {"orgs": list(orgs)})
        for org_id in orgs:
            enqueue("billing.work", org_id)
    EVENTS.labels("sweep", "taken").inc(len(stored))
    return len(stored)
