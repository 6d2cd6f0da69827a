"""/v1/payment_intents, /v1/setup_intents, /v1/charges."""

from typing import Any

from tools.local_stripe import errors
from tools.local_stripe.account import Account, public
from tools.local_stripe.billing import invoices, lifecycle, payments
from tools.local_stripe.endpoints import PAGE, created, customer_of, endpoint, page
from tools.local_stripe.params import Params
from tools.local_stripe.shapes import payments as shapes
from tools.local_stripe.store import Obj

_SHARED = "payment_method metadata description payment_method_types automatic_payment_methods return_url"
_CONFIRMABLE = ("requires_payment_method", "requires_confirmation")


@endpoint(
    "POST",
    "/v1/payment_intents",
    f"{_SHARED} amount currency customer confirm off_session setup_future_usage receipt_email",
)
def create_payment(account: Account, p: Params) -> Obj:
    customer = _customer(account, p)
    amount = p.integer("amount")
    if amount is None:
        raise errors.missing("amount")
    if amount < 50:
        message = "The Amount must be greater than or equal to the minimum charge amount allowed for your account."
        raise errors.invalid(message, "amount", "amount_too_small")
    clock = customer["test_clock"] if customer else None
    id = customer["id"] if customer else None
    intent = shapes.payment_intent(amount, p.required("currency").lower(), id, account.now(clock))
    intent["setup_future_usage"] = p.text("setup_future_usage")
    return _created(account, intent, p)


@endpoint("POST", "/v1/payment_intents/<id>/confirm", "payment_method return_url off_session setup_future_usage")
def confirm_payment(account: Account, p: Params, id: str) -> Obj:
    return _confirmed_later(account, account.get("payment_intent", id), p)


def _pay(account: Account, intent: Obj, paying: Obj) -> Obj:
    if invoice := account.store.get(intent.get("_invoice") or ""):
        outcome = lifecycle.collect(account, invoice, paying)
        intent = account.get("payment_intent", intent["id"])
        if outcome == "failed":
            raise lifecycle.refusal(account, invoice)
        return public(intent)
    intent = payments.pay(account, intent, paying)
    if intent["status"] == "requires_payment_method":
        error = intent["last_payment_error"]
        raise errors.card_error(
            error["code"], error["message"], error.get("decline_code"), keep=True, payment_intent=public(intent)
        )
    return public(intent)


def answered(account: Account, id: str, agreed: bool) -> Obj:
    """A person confirmed (or not) an intent that ``requires_action``; its invoice and subscription take it over."""
    intent = account.store.get(id)
    if intent is None or intent["object"] not in ("payment_intent", "setup_intent"):
        raise errors.no_such("payment_intent", id, status=404)
    intent = payments.answer(account, intent, agreed)
    if invoice := account.store.get(intent.get("_invoice") or ""):
        lifecycle.concluded(account, invoice, invoices.attempted(account, invoice, intent))
    return account.store.get(id) or intent


@endpoint("POST", "/v1/setup_intents", f"{_SHARED} customer confirm usage")
def create_setup(account: Account, p: Params) -> Obj:
    customer = _customer(account, p)
    clock = customer["test_clock"] if customer else None
    intent = shapes.setup_intent(customer["id"] if customer else None, account.now(clock))
    intent["usage"] = p.choice("usage", ("off_session", "on_session"), "off_session")
    return _created(account, intent, p)


@endpoint("POST", "/v1/setup_intents/<id>/confirm", "payment_method return_url")
def confirm_setup(account: Account, p: Params, id: str) -> Obj:
    return _confirmed_later(account, account.get("setup_intent", id), p)


# What payment and setup intents have in common


def _created(account: Account, intent: Obj, p: Params) -> Obj:
    _describe(account, intent, p)
    account.emit(f"{intent['object']}.created", intent)
    return _confirm(account, intent, p) if p.boolean("confirm") else public(intent)


def _confirmed_later(account: Account, intent: Obj, p: Params) -> Obj:
    if intent["status"] not in _CONFIRMABLE:
        raise _unexpected(intent, f"it has a status of {intent['status']}")
    _describe(account, intent, p)
    return _confirm(account, intent, p)


def _confirm(account: Account, intent: Obj, p: Params) -> Obj:
    if not intent["payment_method"]:
        raise _unexpected(intent, "it's missing a payment method")
    method = account.named("payment_method", intent["payment_method"], "payment_method")
    intent["_return_url"] = p.text("return_url")
    if intent["object"] == "payment_intent":
        return _pay(account, intent, method)
    return public(payments.confirm_setup(account, intent, method))


def _unexpected(intent: Obj, why: str) -> errors.StripeError:
    kind = intent["object"]
    named = {"payment_intent": "PaymentIntent", "setup_intent": "SetupIntent"}[kind]
    return errors.invalid(f"You cannot confirm this {named} because {why}.", code=f"{kind}_unexpected_state")


def _customer(account: Account, p: Params) -> Obj | None:
    id = p.text("customer")
    return account.named("customer", id, "customer") if id else None


def _describe(account: Account, intent: Obj, p: Params) -> None:
    intent["metadata"] = p.metadata(intent["metadata"])
    if "description" in p:
        intent["description"] = p.text("description")
    if token := p.text("payment_method"):
        method = payments.method(account, token, "payment_method", account.clock_of(intent))
        if method["customer"] not in (None, intent["customer"]):
            raise errors.invalid("The payment method belongs to another customer.", "payment_method")
        intent.update(payment_method=method["id"], status="requires_confirmation")
    account.save(intent)


def _reading(kind: str, plural: str, filters: str, one: str) -> None:
    @endpoint("GET", f"/v1/{plural}", f"{PAGE} customer created {filters}")
    def index(account: Account, p: Params) -> Obj:
        when, intent = created(p), p.text("payment_intent")

        def keep(obj: Obj) -> Any:
            return when(obj) and (not intent or obj.get("payment_intent") == intent)

        return page(p, f"/v1/{plural}", account.store.all(kind, customer_of(account, p)), keep)

    @endpoint("GET", f"/v1/{plural}/<id>", one)
    def retrieve(account: Account, p: Params, id: str) -> Obj:
        return public(account.get(kind, id))


def _cancelling(kind: str) -> None:
    @endpoint("POST", f"/v1/{kind}s/<id>/cancel", "cancellation_reason")
    def cancel(account: Account, p: Params, id: str) -> Obj:
        intent = account.get(kind, id)
        if intent["status"] in ("succeeded", "canceled") or intent.get("_invoice"):
            raise errors.invalid(f"You cannot cancel this intent (status {intent['status']}).")
        reason = p.text("cancellation_reason")
        return public(account.update(intent, f"{kind}.canceled", status="canceled", cancellation_reason=reason))


_reading("charge", "charges", "payment_intent", "")
for _kind in ("payment_intent", "setup_intent"):
    _reading(_kind, f"{_kind}s", "", "client_secret")
    _cancelling(_kind)
