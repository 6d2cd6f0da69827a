"""How each kind of operation is carried out at Stripe.

Each may be begun again from its first step, by another worker, after any crash: its calls carry keys that stay the
same, and it first looks whether what it wants is there already, for the case that Stripe no longer knows a key.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import structlog
from prometheus_client import Counter
from sqlalchemy import text

from app import db
from app.billing import accounts, metering, operations, plans, stripe_client
from app.billing.accounts import Claimed, Operation, Overtaken
from app.billing.models import OVER, USABLE
from app.billing.stripe_client import CardDeclined, Object, StripeDown, StripeRefused
from app.errors import AppError, Conflict, InvalidState, NotFound, PaymentFailed, ServiceUnavailable, ValidationFailed

log = structlog.get_logger(__name__)

OPERATIONS = Counter("edgeflow_billing_operations_total", "Operations at Stripe that ended", ["kind", "outcome"])

TRIES_OF_A_FAULT = 5
"""A performer that fails by a fault of ours is tried so often; what waits behind it is to have its turn."""

WANTS_CARDHOLDER = {
    "subscription_payment_intent_requires_action", "invoice_payment_intent_requires_action",
    "payment_intent_action_required", "authentication_required",
}  # fmt: skip
CHANGEABLE = ("trialing", "active", "past_due")


@dataclass(frozen=True)
class Outcome:
    """What became of an operation: ``state`` done, failed, or queued (to be tried again later)."""

    operation: Operation
    state: str
    result: dict[str, Any] | None = None
    error: AppError | None = None
    why: str | None = None


@dataclass(frozen=True)
class Work:
    """An operation under way. Every call to Stripe goes through it, so that none is made without the lease."""

    claimed: Claimed
    operation: Operation

    def ask(self, call: Callable[..., Any], *args: Any) -> Any:
        """Make a call that changes nothing."""
        accounts.renew(self.claimed)
        return call(*args)

    def do(self, step: str, call: Callable[..., Object], *args: Any, **options: Any) -> Object:
        """Make a call that has an effect; ``step`` is its name within the operation."""
        accounts.renew(self.claimed)
        try:
            return call(*args, key=self.operation.key(step), **options)
        except StripeDown as down:
            if down.spoiled:
                self.operation.spoiled[step] = self.operation.spoiled.get(step, 0) + 1
            raise

    def customer(self) -> str:
        """The organization's customer, made if there is none (or if Stripe's was deleted)."""
        claimed = self.claimed
        if claimed.customer_id is None or claimed.customer_deleted:
            accounts.renew(claimed)
            generation = claimed.generation + claimed.customer_deleted
            given_up = self.operation.spoiled.get("customer", 0)
            key = f"customer:{claimed.org_id}:{generation}" + (f":{self.operation.id}:{given_up}" if given_up else "")
            try:
                made = stripe_client.create_customer(
                    name=_name(claimed), metadata={"org_id": str(claimed.org_id)}, key=key
                )
            except StripeDown as down:
                if down.spoiled:
                    self.operation.spoiled["customer"] = given_up + 1
                raise
            accounts.keep_customer(claimed, made["id"])
        assert claimed.customer_id is not None
        return claimed.customer_id

    def live(self) -> list[Object]:
        """The customer's subscriptions that have not ended, the newest first."""
        found = self.ask(stripe_client.subscriptions, self.customer())
        return [one for one in found if one["status"] not in OVER]


def perform(claimed: Claimed) -> list[Outcome]:
    """Carry out what is queued, in order, until something has to wait for Stripe. Raises Overtaken."""
    outcomes: list[Outcome] = []
    for operation in claimed.operations:
        outcome = _perform(Work(claimed, operation))
        outcomes.append(outcome)
        if outcome.state == "queued":
            break
        OPERATIONS.labels(operation.kind, outcome.state).inc()
        log.info(
            "billing operation", org_id=claimed.org_id, operation_id=operation.id, kind=operation.kind,
            state=outcome.state, tries=operation.tries, error=outcome.error and outcome.error.code,
        )  # fmt: skip
    return outcomes


def _perform(work: Work) -> Outcome:
    operation = work.operation
    if operation.expired:
        message = "Stripe could not be reached for a day: it is not known whether this was done"
        return Outcome(operation, "failed", error=ServiceUnavailable(message, outcome="expired"))
    try:
        return Outcome(operation, "done", result=KINDS[operation.kind](work))
    except Overtaken:
        raise
    except AppError as error:
        return Outcome(operation, "failed", error=error)
    except StripeRefused as refused:
        return Outcome(operation, "failed", error=understood(refused))
    except StripeDown as down:
        return Outcome(operation, "queued", why=str(down))
    except Exception as error:
        log.exception("billing operation failed", org_id=work.claimed.org_id, operation_id=operation.id)
        if operation.tries < TRIES_OF_A_FAULT:
            return Outcome(operation, "queued", why=type(error).__name__)
        return Outcome(operation, "failed", error=ServiceUnavailable("this could not be carried out"))


def understood(refused: StripeRefused) -> AppError:
    """What the caller is told of Stripe's no."""
    if isinstance(refused, CardDeclined):
        return PaymentFailed(refused.message, decline_code=refused.decline_code or refused.code)
    if refused.code == "resource_missing" and refused.param in ("payment_method", "default_payment_method", "id"):
        return ValidationFailed(details={"payment_method_id": [refused.message]})
    log.error("stripe refused", error=refused.message, code=refused.code, param=refused.param, status=refused.status)
    return Conflict(f"Stripe refused: {refused.message}", stripe_code=refused.code)


_NAME = text("SELECT name FROM organizations WHERE id = :org")


def _name(claimed: Claimed) -> str:
    with db.transaction(claimed.org_id):
        return str(db.session.scalar(_NAME, {"org": claimed.org_id}))


# Subscriptions


def create_subscription(work: Work) -> dict[str, Any]:
    """Subscribe; a card that is declined leaves nothing behind, one that wants its holder leaves it ``incomplete``."""
    plan, mine = _sold(work), str(work.operation.id)
    customer, live = work.customer(), work.live()
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
        method = _attach(work, customer, given)
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


# Payment methods


def add_payment_method(work: Work) -> dict[str, Any]:
    """Attach one; the first becomes the default."""
    customer = work.customer()
    method = _attach(work, customer, work.operation.payload["payment_method_id"])
    known = work.ask(stripe_client.customer, customer)["invoice_settings"]["default_payment_method"]
    if work.operation.payload.get("default") or not known:
        _make_default(work, customer, method["id"])
    return {"stripe_id": method["id"]}


def _attach(work: Work, customer: str, payment_method_id: str) -> Object:
    try:
        return work.do("attach", stripe_client.attach_payment_method, payment_method_id, customer)
    except CardDeclined:
        raise
    except StripeRefused:
        found: Object = work.ask(stripe_client.payment_method, payment_method_id)
        if found["customer"] != customer:
            raise
        return found  # it was ours before


def _make_default(work: Work, customer: str, method: str) -> None:
    """For all invoices: a subscription that was bought on Stripe's page has one of its own, which goes before."""
    work.do("default", stripe_client.set_default_payment_method, customer, method)
    for one in work.live():
        if one["default_payment_method"] not in (None, method):
            params = {"default_payment_method": method}
            work.do(f"default-{one['id']}", stripe_client.update_subscription, one["id"], params)


def remove_payment_method(work: Work) -> dict[str, Any]:
    """Detach one, which may not be the last that an active subscription is paid with."""
    customer, wanted = work.customer(), work.operation.payload["stripe_id"]
    methods = [one["id"] for one in work.ask(stripe_client.payment_methods, customer)]
    if wanted not in methods:
        return {}
    others = [one for one in methods if one != wanted]
    if not others and any(one["status"] in USABLE for one in work.live()):
        raise Conflict("the subscription is paid with it: add another payment method first, or cancel")
    if others and _default(work, customer) == wanted:
        _make_default(work, customer, others[0])
    work.do("detach", stripe_client.detach_payment_method, wanted)
    return {}


def _default(work: Work, customer: str) -> str | None:
    found: str | None = work.ask(stripe_client.customer, customer)["invoice_settings"]["default_payment_method"]
    return found


def default_payment_method(work: Work) -> dict[str, Any]:
    """Pay all invoices with that one from now on."""
    customer, wanted = work.customer(), work.operation.payload["stripe_id"]
    if wanted not in [one["id"] for one in work.ask(stripe_client.payment_methods, customer)]:
        raise NotFound("payment method")
    _make_default(work, customer, wanted)
    return {}


# Stripe's pages


def create_checkout(work: Work) -> dict[str, Any]:
    """A link to the page where the plan is subscribed to and paid."""
    plan, payload = _sold(work), work.operation.payload
    customer = work.customer()
    if any(one["status"] != "incomplete" for one in work.live()):
        raise Conflict("there is a subscription already; change its plan instead")
    trial = _trial(work, plan, customer) if payload.get("trial") else {}
    params = {
        "mode": "subscription",
        "customer": customer,
        "client_reference_id": str(work.claimed.org_id),
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


KINDS: dict[str, Callable[[Work], dict[str, Any]]] = {
    "subscription.create": create_subscription,
    "subscription.change": change_subscription,
    "subscription.cancel": cancel_subscription,
    "subscription.resume": resume_subscription,
    "payment_method.add": add_payment_method,
    "payment_method.remove": remove_payment_method,
    "payment_method.default": default_payment_method,
    "checkout.create": create_checkout,
    "portal.create": create_portal,
    accounts.METER_REPORT: metering.report,
}

_FINISH = text("""
UPDATE billing_operations o SET state = n.state, result = n.result, error = n.error,
    finished_at = CASE WHEN n.state <> 'queued' THEN now() END
FROM unnest(CAST(:ids AS uuid[]), CAST(:states AS text[]), CAST(:results AS jsonb[]), CAST(:errors AS jsonb[]))
    AS n (id, state, result, error)
WHERE o.id = n.id AND o.state = 'queued'
""")
_REPORTED = text("""
UPDATE usage_hours SET reported_at = now() WHERE org_id = :org AND hour = ANY (CAST(:hours AS timestamptz[]))
""")


def write(org_id: UUID, outcomes: list[Outcome]) -> None:
    """Store what became of operations, in a transaction that holds their account: whoever waits is told."""
    if not outcomes:
        return
    told = [one.operation for one in outcomes if one.state == "done" and one.operation.kind == accounts.METER_REPORT]
    if told:
        db.session.execute(_REPORTED, {"org": org_id, "hours": [one.payload["hour"] for one in told]})
    results = [None if one.result is None else db.as_json(operations.sealed(one.result)) for one in outcomes]
    errors = [db.as_json(_stored_error(one)) for one in outcomes]
    values = {
        "ids": [one.operation.id for one in outcomes],
        "states": [one.state for one in outcomes],
        "results": results,
        "errors": [None if one == "null" else one for one in errors],
    }
    db.session.execute(_FINISH, values)


def _stored_error(outcome: Outcome) -> dict[str, Any] | None:
    if outcome.error is not None:
        return operations.told(outcome.error)
    if outcome.state == "queued":
        return {"spoiled": outcome.operation.spoiled, "why": outcome.why}
    return None
