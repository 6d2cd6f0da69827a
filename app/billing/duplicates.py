"""One subscription for each organization: pages that could make another are closed, what was bought twice goes back.

A page of Stripe's stays open for a day, and nothing there forbids to complete two of them side by side. Whichever
subscription began first is kept. Only what was sold here is touched: an operator may add others at Stripe by hand.
"""

from typing import Any
from uuid import UUID

import structlog

from app import journal
from app.billing import money, stripe_client
from app.billing.models import OVER, USABLE
from app.billing.stripe_client import Object, StripeRefused
from app.billing.work import Work
from app.errors import AppError

log = structlog.get_logger(__name__)

SETTLE = "checkout.settle"


def surplus(org_id: UUID, subscriptions: list[Object]) -> list[str]:
    """The ids of what lives beside the subscription that began first, if any is in force. Pure."""
    sold = [one for one in subscriptions if (one["metadata"] or {}).get("org_id") == str(org_id)]
    usable = sorted((one["created"], one["id"]) for one in sold if one["status"] in USABLE)
    kept = {id for _, id in usable[:1]}
    living = [one["id"] for one in sold if one["status"] in (*USABLE, "incomplete")]
    return sorted(set(living) - kept) if kept else []


def bought_on_pages(subscriptions: list[Object]) -> list[str]:
    """The ids of those that no operation of ours has made. Pure."""
    return [one["id"] for one in subscriptions if "operation" not in (one["metadata"] or {})]


def close_pages(work: Work, customer: str) -> None:
    """Expire the customer's open pages, but for one that this operation has made already."""
    for page in work.ask(stripe_client.open_checkout_sessions, customer):
        if (page["metadata"] or {}).get("operation") == str(work.operation.id):
            continue
        try:
            work.do(f"expire-{page['id']}", stripe_client.expire_checkout_session, page["id"])
        except StripeRefused as refused:
            # Completed or expired since it was listed; what it made, the next look at the subscriptions shows.
            log.info("page not closed", session=page["id"], error=refused.message)


def settle(work: Work) -> dict[str, Any]:
    """A subscription has begun: close what other pages are open, and take the ``surplus`` ones back."""
    if work.claimed.customer_id is None or work.claimed.customer_deleted:
        return {"taken_back": []}
    close_pages(work, work.claimed.customer_id)
    return {"taken_back": [_take_back(work, id) for id in work.operation.payload["surplus"]]}


def _take_back(work: Work, subscription_id: str) -> dict[str, Any]:
    """Refund all that was paid, then end it: in this order, since one that has ended is not looked for again."""
    found: Object = work.ask(stripe_client.subscription, subscription_id)
    paid = work.ask(stripe_client.paid_invoices, subscription_id)
    refunded = sum(_refund(work, invoice) for invoice in paid)
    if found["status"] not in OVER:
        work.do(f"end-{subscription_id}", stripe_client.cancel_subscription, subscription_id)
    return {"stripe_id": subscription_id, "refunded": refunded, "currency": found["currency"]}


def _refund(work: Work, invoice: Object) -> int:
    """What went back of an invoice's payments, in the currency's least unit; also by a try before this one."""
    back = 0
    for one in invoice["payments"]["data"]:
        intent = one["payment"].get("payment_intent")
        if one["status"] != "paid" or not intent:
            continue
        try:
            work.do(f"refund-{intent}", stripe_client.refund, intent)
        except StripeRefused as refused:
            if refused.code != "charge_already_refunded":
                raise
        back += one["amount_paid"]
    return back


def note(org_id: UUID, result: dict[str, Any] | None, error: AppError | None) -> None:
    """Tell the journal, and the operator, what has become of a settlement."""
    if error is not None:
        log.error("a second subscription may still be paid for", org_id=org_id, error=error.message)
        words = f"there may be a second subscription, which could not be taken back: {error.message}"
        journal.note(org_id, "billing.duplicate", words, level="error")
    for one in (result or {}).get("taken_back", ()):
        log.warning("a second subscription was taken back", org_id=org_id, **one)
        back = f", and {money.formatted(one['refunded'], one['currency'])} paid back" if one["refunded"] else ""
        words = f"there was a subscription already: a second one was ended{back}"
        journal.note(org_id, "billing.duplicate", words, level="warning", **one)
