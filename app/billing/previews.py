"""What a change of plan would cost, were it made now: Stripe's word, and nothing is changed by asking."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import select

from app import db
from app.billing import plans, stripe_client, subscription
from app.billing.models import BillingAccount
from app.billing.stripe_client import Object, StripeDown, StripeRefused
from app.errors import Conflict, NotFound, ServiceUnavailable


@dataclass(frozen=True)
class Question:
    """``at_once``: a change that begins a new period, and is paid for now; others are settled with the next invoice."""

    customer: str
    subscription: str
    price: plans.Price
    at_once: bool
    period_end: datetime | None


def ask(org_id: UUID, plan: str) -> Question:
    """What to ask Stripe. Raises as ``subscription.admit_change`` does."""
    subscription.admit_change(org_id, plan)
    found = subscription.newest(org_id)
    customer = db.session.scalar(select(BillingAccount.customer_id).where(BillingAccount.org_id == org_id))
    wanted, held = plans.plans()[plan].price, plans.plan(found.plan).price if found else None
    if found is None or customer is None or wanted is None:
        raise NotFound("subscription")
    another_interval = held is not None and held.interval != wanted.interval
    at_once = another_interval and found.status != "trialing"
    return Question(customer, found.stripe_id, wanted, at_once, found.current_period_end)


def answer(asked: Question) -> dict[str, Any]:
    """``{amount_due_now, currency, lines, next_invoice: {amount_due, at}}``. No transaction may be open.

    Raises ServiceUnavailable or Conflict.
    """
    try:
        item = stripe_client.subscription(asked.subscription)["items"]["data"][0]["id"]
        invoice = stripe_client.preview_change(asked.customer, asked.subscription, item, asked.price.stripe_price)
    except StripeDown:
        raise ServiceUnavailable("Stripe does not answer; nothing was changed") from None
    except StripeRefused as refused:
        raise Conflict(f"Stripe refused: {refused.message}", stripe_code=refused.code) from None
    return shown(invoice, asked)


def shown(invoice: Object, asked: Question) -> dict[str, Any]:
    """A previewed invoice in the API's shape. Pure."""
    lines = [_line(line) for line in invoice["lines"]["data"]]
    ends = [line["period_end"] for line in lines if not line["proration"] and line["period_end"]]
    following = {"amount_due": invoice["amount_due"], "at": asked.period_end}
    if asked.at_once:
        following = {"amount_due": asked.price.amount, "at": max(ends, default=None)}
    return {
        "amount_due_now": invoice["amount_due"] if asked.at_once else 0,
        "currency": invoice["currency"],
        "lines": lines,
        "next_invoice": following,
    }


def _line(line: Object) -> dict[str, Any]:
    parent = line.get("parent") or {}
    details = parent.get("subscription_item_details") or parent.get("invoice_item_details") or {}
    period = line.get("period") or {}
    return {
        "description": line.get("description"),
        "quantity": line.get("quantity"),
        "amount": line["amount"],
        "proration": bool(details.get("proration")),
        "period_start": _moment(period.get("start")),
        "period_end": _moment(period.get("end")),
    }


def _moment(seconds: int | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)
