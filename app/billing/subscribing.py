"""How a subscription is made, changed, ended and kept, and the links to Stripe's own pages."""

from typing import Any

from app.billing import plans, stripe_client
from app.billing.duplicates import close_pages
from app.billing.models import USABLE
from app.billing.paying import attach
from app.billing.stripe_client import CardDeclined, Object
from app.billing.work import Work
from app.errors import Conflict, InvalidState, NotFound, PaymentFailed, ValidationFailed

WANTS_CARDHOLDER = {
    "subscription_payment_intent_requires_action", "invoice_payment_intent_requires_action",
    "payment_intent_action_required", "authentication_required",
}  # fmt: skip
CHANGEABLE = ("trialing", "active", "past_due")


def create_subscription(work: Work) -> dict[str, Any]:
    """Subscribe; a card that is declined leaves nothing behind, one that wants its holder leaves it ``incomplete``."""
    plan, mine = _sold(work), str(work.operation.id)
    customer = work.customer()
    close_pages(work, customer)  # before the look, which shows what was bought on one until now
    live = work.live()
    for one in live:
        if (one["metadata"] or {}).get("operation") == mine:
            return _subscribed(one)
        if one["status"] != "incomplete":
            raise Conflict("there is a subscription already; change its plan instead")
    methods = _have_method(work, customer)
    trial = _trial(work, plan, customer) if work.operation.payload.get("trial") else {}
    if not trial and not methods:
        raise PaymentFailed("there is no payment method to pay with")
    for one in live:  # its holder never confirmed: this one is instead of it
        work.do(f"drop-{one['id']}", stripe_client.cancel_subscription, one["id"])
    params: Object = {
        "payment_behavior": "error_if_incomplete",
        "customer": customer,
        "items": [{"price": plan.price.stripe_price}],
        "metadata": {"org_id": str(work.claimed.org_id), "plan": plan.id, "operation": mine},
        **trial,
    }
    try:
        made = work.do("create", stripe_client.create_subscription, params)
    except CardDeclined as declined:
        if not WANTS_CARDHOLDER & {declined.code, declined.decline_code}:
            raise
        # Only now one that waits for him: a subscription that is refused outright never was.
        params = {**params, "payment_behavior": "allow_incomplete"}
        made = work.do("create-incomplete", stripe_client.create_subscription, params)
    return _subscribed(made)


def _sold(work: Work) -> Any:
    plan = plans.plans().get(work.operation.payload["plan"])
    if plan is None or plan.price is None:
        raise ValidationFailed(details={"plan": ["There is no such plan to subscribe to."]})
    return plan


def _subscribed(subscription: Object) -> dict[str, Any]:
    return {"stripe_id": subscription["id"], "status": subscription["status"]}


def _trial(work: Work, plan: Any, customer: str) -> Object:
    if not plan.trial_days:
        raise ValidationFailed(details={"trial": ["This plan has no trial."]})
    before = work.ask(stripe_client.subscriptions, customer)
    if work.claimed.trial_used or any(one["trial_start"] for one in before):
        raise Conflict("the organization has had its trial")
    ends = {"end_behavior": {"missing_payment_method": "cancel"}}
    return {"trial_period_days": plan.trial_days, "trial_settings": ends}


def _have_method(work: Work, customer: str) -> bool:
    """Whether there is a payment method to pay with; one that came with the operation becomes the default."""
    given = work.operation.payload.get("payment_method_id")
    if given:
        method = attach(work, customer, given)
        work.do("default", stripe_client.set_default_payment_method, customer, method["id"])
        return True
    return bool(work.ask(stripe_client.customer, customer)["invoice_settings"]["default_payment_method"])


def change_subscription(work: Work) -> dict[str, Any]:
    """Change the plan from now on; what is left of the old one is set off against the next invoice."""
    plan, subscription = _sold(work), _current(work)
    if subscription["status"] not in CHANGEABLE:
        raise InvalidState(
            "the plan of this subscription cannot be changed", current_state=subscription["status"],
            allowed_actions=["cancel"],
        )  # fmt: skip
    item = subscription["items"]["data"][0]
    if item["price"]["id"] == plan.price.stripe_price:
        return _subscribed(subscription)
    params = {
        "items": [{"id": item["id"], "price": plan.price.stripe_price}],
        "proration_behavior": "create_prorations",
        # Where the change has to be paid at once (another interval) and cannot be, nothing changes.
        "payment_behavior": "error_if_incomplete",
        "metadata": {"plan": plan.id},
    }
    return _subscribed(work.do("change", stripe_client.update_subscription, subscription["id"], params))


def _current(work: Work) -> Object:
    live = work.live() if work.claimed.customer_id else []
    if not live:
        raise NotFound("subscription")
    return min(live, key=_rank)


def _rank(subscription: Object) -> tuple[bool, int]:
    """The one that counts first: usable before others, then the newest."""
    return subscription["status"] not in USABLE, -subscription["created"]


def cancel_subscription(work: Work) -> dict[str, Any]:
    """End it with its period, or now; what is not in force (unpaid, never confirmed) always ends now."""
    try:
        subscription = _current(work)
    except NotFound:
        if work.operation.tries > 1:  # an earlier try has ended it, and died
            return {}
        raise
    if work.operation.payload["at"] == "now" or subscription["status"] not in USABLE:
        return _subscribed(work.do("cancel", stripe_client.cancel_subscription, subscription["id"]))
    return _subscribed(_set_ending(work, subscription, True))


def resume_subscription(work: Work) -> dict[str, Any]:
    """Let one that was to end with its period go on."""
    return _subscribed(_set_ending(work, _current(work), False))


def _set_ending(work: Work, subscription: Object, ends: bool) -> Object:
    if subscription["cancel_at_period_end"] is ends:
        return subscription
    params = {"cancel_at_period_end": ends}
    return work.do("ending", stripe_client.update_subscription, subscription["id"], params)


def create_checkout(work: Work) -> dict[str, Any]:
    """A link to the page where the plan is subscribed to and paid; those that were made before lead nowhere now."""
    plan, payload = _sold(work), work.operation.payload
    customer = work.customer()
    close_pages(work, customer)
    if any(one["status"] != "incomplete" for one in work.live()):
        raise Conflict("there is a subscription already; change its plan instead")
    trial = _trial(work, plan, customer) if payload.get("trial") else {}
    params = {
        "mode": "subscription",
        "customer": customer,
        "client_reference_id": str(work.claimed.org_id),
        "metadata": {"operation": str(work.operation.id)},
        "line_items": [{"price": plan.price.stripe_price, "quantity": 1}],
        "subscription_data": {"metadata": {"org_id": str(work.claimed.org_id), "plan": plan.id}, **trial},
        "success_url": payload["success_url"],
        "cancel_url": payload["cancel_url"],
    }
    return {"url": work.do("checkout", stripe_client.create_checkout_session, params)["url"]}


def create_portal(work: Work) -> dict[str, Any]:
    """A link to the page where cards and invoices are kept."""
    customer, back = work.customer(), work.operation.payload["return_url"]
    return {"url": work.do("portal", stripe_client.create_portal_session, customer, back)["url"]}
