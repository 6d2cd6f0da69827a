"""A subscription's life: https://docs.stripe.com/billing/subscriptions/overview#subscription-lifecycle."""

from tools.local_stripe import errors
from tools.local_stripe.account import Account, public
from tools.local_stripe.billing import invoices, payments
from tools.local_stripe.billing.invoices import Outcome
from tools.local_stripe.periods import RETRY_AFTER, current_period, period_end
from tools.local_stripe.shapes import billing as shapes
from tools.local_stripe.shapes import payments as payment_shapes
from tools.local_stripe.store import Obj

UPDATED = "customer.subscription.updated"
_NO_MINOR_UNIT = ("bif", "clp", "jpy", "krw", "pyg", "rwf", "vnd", "xaf", "xof")
_NO_METHOD = (
    "This customer has no attached payment source or default payment method. Please consider adding a default payment"
    " method. For more information, visit https://stripe.com/docs/billing/subscriptions/payment-methods-setting."
)


def begin(account: Account, subscription: Obj, behavior: str) -> None:
    """First invoice of a new subscription, by ``payment_behavior``. Raises StripeError."""
    trial = subscription["trial_end"] is not None
    if trial:
        subscription["status"] = "trialing"
    account.save(subscription)
    account.emit("customer.subscription.created", subscription)
    invoice = invoices.draft(
        account,
        subscription,
        "subscription_create",
        lines(account, subscription, free=trial),
        current_period(subscription),
    )
    invoices.finalize(account, invoice)
    subscription = account.get("subscription", subscription["id"])
    if not invoice["amount_due"]:
        collect(account, invoice, None)
        if trial and behavior == "default_incomplete" and not invoices.method(account, invoice):
            _ask_for_method(account, subscription)
        return
    if behavior != "default_incomplete":
        _first_payment(account, invoice, behavior)


def _ask_for_method(account: Account, subscription: Obj) -> None:
    intent = payment_shapes.setup_intent(subscription["customer"], account.now_of(subscription))
    account.save({**intent, "_subscription": subscription["id"]})
    account.emit("setup_intent.created", intent)
    account.save({**account.get("subscription", subscription["id"]), "pending_setup_intent": intent["id"]})


def _first_payment(account: Account, invoice: Obj, behavior: str) -> None:
    paying = invoices.method(account, invoice)
    if paying is None:
        raise errors.invalid(_NO_METHOD, code="resource_missing")
    outcome = collect(account, invoice, paying)
    if behavior == "error_if_incomplete" and outcome != "paid":
        raise refusal(account, invoice, keep=False)


def refusal(account: Account, invoice: Obj, *, keep: bool = True) -> errors.StripeError:
    """The 402 for an invoice that could not be paid."""
    intent = account.get("payment_intent", invoice["_intent"])
    if intent["status"] == "requires_action":
        message = "Payment for this subscription requires additional user action before it can be completed."
        code = "invoice_payment_intent_requires_action"
        return errors.card_error(code, message, keep=keep, payment_intent=public(intent))
    error = intent["last_payment_error"]
    if error is None:
        return errors.invalid(_NO_METHOD, code="resource_missing")
    fields = {name: error[name] for name in ("charge", "payment_method") if name in error}
    return errors.card_error(
        error["code"], error["message"], error.get("decline_code"), keep=keep, payment_intent=public(intent), **fields
    )


def lines(account: Account, subscription: Obj, *, free: bool = False) -> list[Obj]:
    """What the current period costs; in a trial nothing."""
    result = []
    for item in subscription["items"]["data"]:
        price, period = item["price"], (item["current_period_start"], item["current_period_end"])
        amount = 0 if free else price["unit_amount"] * item["quantity"]
        each = f"{_money(price)} / {price['recurring']['interval']}"
        title = invoices.title(account, item)
        text = f"Trial period for {title}" if free else f"{title} (at {each})"
        result.append(shapes.line(amount, text, period, item))
    return result


def _money(price: Obj) -> str:
    amount, currency = price["unit_amount"], price["currency"]
    return f"{amount if currency in _NO_MINOR_UNIT else f'{amount / 100:.2f}'} {currency.upper()}"


def collect(account: Account, invoice: Obj, paying: Obj | None) -> Outcome:
    """Try to have an open invoice paid and let the subscription take the consequence."""
    outcome = invoices.attempt(account, invoice, paying)
    concluded(account, invoice, outcome)
    return outcome


def concluded(account: Account, invoice: Obj, outcome: Outcome) -> None:
    """What an attempt's outcome means for the invoice's subscription."""
    subscription = invoices.subscription_of(account, invoice)
    if subscription is None or subscription["ended_at"]:
        return
    if outcome == "paid":
        _paid(account, subscription, invoice)
    elif invoice["billing_reason"] != "subscription_create" and subscription["status"] in ("active", "trialing"):
        account.update(subscription, UPDATED, status="past_due")
        _delinquent(account, subscription, True)


def _paid(account: Account, subscription: Obj, invoice: Obj) -> None:
    newest = subscription["latest_invoice"] == invoice["id"]
    changes: Obj = {}
    waits = subscription["status"] in ("incomplete", "past_due", "unpaid")
    if waits and (newest or not _others_open(account, subscription, invoice)):
        changes["status"] = "active"
    intent = account.store.get(invoice.get("_intent") or "")
    if intent and subscription["payment_settings"]["save_default_payment_method"] == "on_subscription":
        _keep_method(account, subscription, intent, changes)
    if (change := subscription["pending_update"]) and subscription.get("_pending_invoice") == invoice["id"]:
        changes["items"] = {**subscription["items"], "data": change["subscription_items"]}
        changes["pending_update"] = None
    account.update(subscription, UPDATED, **changes)
    if changes.get("status") == "active":
        _delinquent(account, subscription, False)


def _keep_method(account: Account, subscription: Obj, intent: Obj, changes: Obj) -> None:
    method = account.store.get(intent["payment_method"] or "")
    if method and not method["customer"]:
        method = payments.attach(account, method, account.get("customer", subscription["customer"]))
    if method:
        changes["default_payment_method"] = method["id"]


def _others_open(account: Account, subscription: Obj, invoice: Obj) -> bool:
    found = account.store.all("invoice", subscription["customer"])
    mine = (one for one in found if one["parent"] and one["id"] != invoice["id"] and one["status"] == "open")
    return any(one["parent"]["subscription_details"]["subscription"] == subscription["id"] for one in mine)


def _delinquent(account: Account, subscription: Obj, yes: bool) -> None:
    customer = account.get("customer", subscription["customer"])
    account.update(customer, "customer.updated", delinquent=yes)


def retried(account: Account, invoice: Obj, outcome: Outcome) -> None:
    """Plan the next automatic attempt, or give up: Stripe's setting for that is ours at ``/_local/settings``."""
    if outcome == "paid":
        return
    failures = invoice["attempt_count"]
    if failures <= len(RETRY_AFTER):
        account.update(
            invoice, "invoice.updated", next_payment_attempt=account.now_of(invoice) + RETRY_AFTER[failures - 1]
        )
        return
    account.update(invoice, "invoice.updated", next_payment_attempt=None, auto_advance=False)
    subscription = invoices.subscription_of(account, invoice)
    after = account.store.setting("after_retries", "cancel")
    if subscription is None or subscription["ended_at"] or after == "past_due":
        return
    if after == "unpaid":
        account.update(subscription, UPDATED, status="unpaid")
    else:
        end(account, subscription, "payment_failed")


def end(account: Account, subscription: Obj, reason: str) -> Obj:
    """Canceled, now: nothing more is collected by itself, what is open stays open."""
    now = account.now_of(subscription)
    for invoice in _mine(account, subscription):
        if invoice["status"] == "open" and subscription["status"] == "incomplete":
            invoices.void(account, invoice)
        elif invoice["status"] in ("draft", "open"):
            account.save({**invoice, "auto_advance": False, "next_payment_attempt": None})
    subscription.update(
        status="canceled",
        ended_at=now,
        canceled_at=subscription["canceled_at"] or now,
        cancellation_details={**subscription["cancellation_details"], "reason": reason},
        pending_update=None,
    )
    account.save(subscription)
    account.emit("customer.subscription.deleted", subscription)
    return subscription


def _mine(account: Account, subscription: Obj) -> list[Obj]:
    found = list(account.store.all("invoice", subscription["customer"]))
    parents = ((invoice, invoice["parent"]) for invoice in found if invoice["parent"])
    return [one for one, parent in parents if parent["subscription_details"]["subscription"] == subscription["id"]]


def expire(account: Account, subscription: Obj) -> None:
    """The first invoice was not paid within 23 hours."""
    for invoice in _mine(account, subscription):
        if invoice["status"] == "open":
            invoices.void(account, invoice)
    account.update(subscription, UPDATED, status="incomplete_expired", ended_at=account.now_of(subscription))


def renew(account: Account, subscription: Obj, *, start: int | None = None) -> Obj:
    """Begin the next period (or one that starts anew at ``start``) with a draft invoice. Returns the invoice."""
    before = current_period(subscription)
    begins = before[1] if start is None else start
    recurring = subscription["items"]["data"][0]["price"]["recurring"]
    items = [
        {
            **item,
            "current_period_start": begins,
            "current_period_end": period_end(subscription["billing_cycle_anchor"], recurring, begins),
        }
        for item in subscription["items"]["data"]
    ]
    account.update(subscription, UPDATED, items={**subscription["items"], "data": items})
    # Of an unpaid subscription Stripe only keeps drafts.
    auto = subscription["status"] != "unpaid"
    return invoices.draft(account, subscription, "subscription_cycle", lines(account, subscription), before, auto)


def trial_over(account: Account, subscription: Obj) -> None:
    """Charge from now on; without a payment method as ``trial_settings`` say."""
    missing = subscription["trial_settings"]["end_behavior"]["missing_payment_method"]
    customer = account.get("customer", subscription["customer"])
    chosen = subscription["default_payment_method"] or customer["invoice_settings"]["default_payment_method"]
    if not chosen and missing == "cancel":
        end(account, subscription, "cancellation_requested")
    elif not chosen and missing == "pause":
        account.update(subscription, UPDATED, status="paused")
        account.emit("customer.subscription.paused", subscription)
    else:
        account.update(subscription, UPDATED, status="active")
        renew(account, subscription)


def warn(account: Account, subscription: Obj) -> None:
    """Three days before a trial's end."""
    account.save({**subscription, "_warned": True})
    account.emit("customer.subscription.trial_will_end", subscription)
