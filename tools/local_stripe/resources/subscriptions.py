"""/v1/subscriptions."""

from collections.abc import Callable
from typing import Any

from tools.local_stripe import errors
from tools.local_stripe.account import Account, public
from tools.local_stripe.billing import changes, invoices, lifecycle, payments
from tools.local_stripe.endpoints import PAGE, created, customer_of, endpoint, page
from tools.local_stripe.params import Params
from tools.local_stripe.periods import DAY, current_period, period_end
from tools.local_stripe.shapes import billing as shapes
from tools.local_stripe.store import Obj

_BEHAVIORS = ("allow_incomplete", "default_incomplete", "error_if_incomplete", "pending_if_incomplete")
_SHARED = (
    "items default_payment_method payment_settings metadata description payment_behavior proration_behavior off_session"
    " cancel_at_period_end cancel_at trial_end trial_settings collection_method"
)
_ENDED = ("canceled", "incomplete_expired")


@endpoint("POST", "/v1/subscriptions", f"{_SHARED} customer currency trial_period_days billing_mode")
def create(account: Account, p: Params) -> Obj:
    customer = account.named("customer", p.required("customer"), "customer")
    asked = p.objects("items")
    if not asked:
        raise errors.missing("items")
    behavior = p.choice("payment_behavior", _BEHAVIORS, "allow_incomplete")
    first = changes.price(account, asked[0].required("price"), "items[0][price]")
    subscription = shapes.subscription(customer, first["currency"], account.now(customer["test_clock"]))
    trial_end = _trial(p, subscription["created"])
    if trial_end:
        subscription.update(trial_start=subscription["created"], trial_end=trial_end, billing_cycle_anchor=trial_end)
    start = subscription["created"]
    period = (start, trial_end or period_end(start, first["recurring"], start))
    for one in asked:
        one.allow(("price", "quantity", "metadata"))
        subscription["items"]["data"].append(changes.item(account, subscription, one, period))
    _describe(account, subscription, p)
    _plan_end(subscription, p)
    lifecycle.begin(account, subscription, behavior)
    return public(account.get("subscription", subscription["id"]))


def _trial(p: Params, now: int) -> int | None:
    days, end = p.integer("trial_period_days"), p.text("trial_end")
    if days is not None and end is not None:
        raise errors.invalid("You may only specify one of these parameters: trial_end, trial_period_days.", "trial_end")
    if days is not None and not 0 <= days <= 730:
        raise errors.invalid("Trial periods are of 0 to 730 days.", "trial_period_days")
    if end is None or end == "now":
        return now + days * DAY if days else None
    when = p.integer("trial_end")
    if when is None or when <= now:
        raise errors.invalid("Invalid timestamp: must be an integer Unix timestamp in the future.", "trial_end")
    return when


def _describe(account: Account, subscription: Obj, p: Params) -> None:
    if p.choice("collection_method", ("charge_automatically",), "charge_automatically") and "description" in p:
        subscription["description"] = p.text("description")
    subscription["metadata"] = p.metadata(subscription["metadata"])
    if "default_payment_method" in p:
        chosen = p.text("default_payment_method")
        if chosen:
            payments.owned(account, chosen, subscription["customer"], "default_payment_method")
        subscription["default_payment_method"] = chosen
    settings = p.nested("payment_settings")
    settings.allow(("payment_method_types", "save_default_payment_method", "payment_method_options"))
    stored = dict(subscription["payment_settings"])
    if "save_default_payment_method" in settings:
        kept = settings.choice("save_default_payment_method", ("off", "on_subscription"), "off")
        stored["save_default_payment_method"] = kept
    if "payment_method_types" in settings:
        stored["payment_method_types"] = settings.texts("payment_method_types") or None
    subscription["payment_settings"] = stored
    ending = p.nested("trial_settings").nested("end_behavior")
    if "missing_payment_method" in ending:
        choice = ending.choice("missing_payment_method", ("cancel", "create_invoice", "pause"), "create_invoice")
        subscription["trial_settings"] = {"end_behavior": {"missing_payment_method": choice}}


def _plan_end(subscription: Obj, p: Params) -> None:
    if "cancel_at_period_end" in p:
        yes = p.boolean("cancel_at_period_end")
        at = current_period(subscription)[1] if yes else None
        _cancel_at(subscription, at, yes)
    elif "cancel_at" in p:
        _cancel_at(subscription, p.integer("cancel_at"), False)


def _cancel_at(subscription: Obj, at: int | None, at_period_end: bool) -> None:
    reason = "cancellation_requested" if at else None
    subscription.update(
        cancel_at=at,
        cancel_at_period_end=at_period_end,
        canceled_at=subscription.get("_asked", subscription["created"]) if at else None,
        cancellation_details={**subscription["cancellation_details"], "reason": reason},
    )


@endpoint("GET", "/v1/subscriptions", f"{PAGE} customer status price created test_clock collection_method")
def index(account: Account, p: Params) -> Obj:
    return page(p, "/v1/subscriptions", account.store.all("subscription", customer_of(account, p)), _filter(p))


def _filter(p: Params) -> Callable[[Obj], Any]:
    status, price, clock, when = p.text("status"), p.text("price"), p.text("test_clock"), created(p)

    def keep(obj: Obj) -> bool:
        if status == "ended":
            fits = obj["status"] in _ENDED
        elif status is None:
            fits = obj["status"] != "canceled"
        else:
            fits = status in ("all", obj["status"])
        priced = not price or any(item["price"]["id"] == price for item in obj["items"]["data"])
        return fits and priced and when(obj) and (not clock or obj["test_clock"] == clock)

    return keep


@endpoint("GET", "/v1/subscriptions/<id>")
def retrieve(account: Account, p: Params, id: str) -> Obj:
    return public(account.get("subscription", id))


@endpoint("POST", "/v1/subscriptions/<id>", f"{_SHARED} proration_date cancellation_details billing_cycle_anchor")
def update(account: Account, p: Params, id: str) -> Obj:
    subscription = account.get("subscription", id)
    behavior = p.choice("payment_behavior", _BEHAVIORS, "allow_incomplete")
    _refuse_ended(subscription, p)
    if subscription["status"] == "incomplete" and ("items" in p or "cancel_at_period_end" in p):
        message = "This subscription cannot be updated because its first invoice has not been paid (it is incomplete)."
        raise errors.invalid(message)
    before = public(subscription)
    subscription["_asked"] = account.now_of(subscription)
    _describe(account, subscription, p)
    _plan_end(subscription, p)
    account.save(subscription)
    previous = {name: before[name] for name in before if before[name] != subscription[name]}
    if previous:
        account.emit(lifecycle.UPDATED, subscription, previous)
    if "items" in p:
        at = p.integer("proration_date") or account.now_of(subscription)
        changes.apply(account, subscription, changes.plan(account, subscription, p, at), p)
    if "trial_end" in p:
        _end_trial(account, account.get("subscription", id), p, behavior)
    return public(account.get("subscription", id))


def _refuse_ended(subscription: Obj, p: Params) -> None:
    if subscription["status"] in _ENDED and set(p) - {"metadata", "cancellation_details", "expand"}:
        message = "A canceled subscription can only update its cancellation_details and metadata."
        raise errors.invalid(message)


def _end_trial(account: Account, subscription: Obj, p: Params, behavior: str) -> None:
    now = account.now_of(subscription)
    end = _trial(p, now)
    if end is not None:
        period = {"current_period_end": end}
        items = [{**item, **period} for item in subscription["items"]["data"]]
        moved = {**subscription["items"], "data": items}
        account.update(
            subscription, lifecycle.UPDATED, trial_end=end, billing_cycle_anchor=end, items=moved, status="trialing"
        )
    elif subscription["status"] == "trialing":
        account.update(subscription, lifecycle.UPDATED, trial_end=now, billing_cycle_anchor=now, status="active")
        invoice = lifecycle.renew(account, subscription, start=now)
        invoices.finalize(account, invoice)
        outcome = lifecycle.collect(account, invoice, invoices.method(account, invoice))
        if behavior == "error_if_incomplete" and outcome != "paid":
            raise lifecycle.refusal(account, invoice, keep=False)
        lifecycle.retried(account, invoice, outcome)


@endpoint("DELETE", "/v1/subscriptions/<id>", "invoice_now prorate cancellation_details")
def cancel(account: Account, p: Params, id: str) -> Obj:
    subscription = account.get("subscription", id)
    if subscription["status"] in _ENDED:
        raise errors.no_such("subscription", id, status=404)
    details = p.nested("cancellation_details")
    details.allow(("comment", "feedback"))
    given = {name: details.text(name) for name in details}
    subscription["cancellation_details"] = {**subscription["cancellation_details"], **given}
    account.save(subscription)
    return public(lifecycle.end(account, subscription, "cancellation_requested"))


@endpoint("POST", "/v1/subscriptions/<id>/resume", "billing_cycle_anchor proration_behavior proration_date")
def resume(account: Account, p: Params, id: str) -> Obj:
    """Goes on with one that was paused when its trial ended without a payment method."""
    subscription = account.get("subscription", id)
    if subscription["status"] != "paused":
        raise errors.invalid(f"Only paused subscriptions can be resumed; this one is {subscription['status']}.")
    now = account.now_of(subscription)
    account.update(subscription, lifecycle.UPDATED, status="active", billing_cycle_anchor=now)
    account.emit("customer.subscription.resumed", subscription)
    invoice = lifecycle.renew(account, subscription, start=now)
    invoices.finalize(account, invoice)
    lifecycle.retried(account, invoice, lifecycle.collect(account, invoice, invoices.method(account, invoice)))
    return public(account.get("subscription", id))


@endpoint("GET", "/v1/subscription_items", f"{PAGE} subscription")
def items(account: Account, p: Params) -> Obj:
    subscription = account.named("subscription", p.required("subscription"), "subscription")
    return page(p, "/v1/subscription_items", subscription["items"]["data"])
