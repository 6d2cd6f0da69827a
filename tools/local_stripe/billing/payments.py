"""Payment methods and the intents that use them."""

from typing import Any

from tools.local_stripe import errors
from tools.local_stripe.account import Account, public
from tools.local_stripe.cards import CARDS, Decline, by_token
from tools.local_stripe.shapes import payments as shapes
from tools.local_stripe.store import Obj

_GONE = (
    "This PaymentMethod was previously used without being attached to a Customer or was detached from a Customer,"
    " and may not be used again."
)


def method(account: Account, id: str, param: str, clock: str | None = None) -> Obj:
    """A payment method by id; a test token makes a fresh one, as at Stripe. Raises resource_missing."""
    card = by_token(id)
    if card is None:
        return account.named("payment_method", id, param)
    token = next(token for token, known in CARDS.items() if known is card)
    return account.save(shapes.payment_method(token, card, account.now(clock)))


def owned(account: Account, id: str, customer: str, param: str) -> Obj:
    """A payment method that is the customer's."""
    found = account.named("payment_method", id, param)
    if found["customer"] != customer:
        message = (
            f"The customer does not have a payment method with the ID {id}. The payment method must be attached to the"
            " customer."
        )
        raise errors.invalid(message, param, "resource_missing")
    return found


def attach(account: Account, found: Obj, customer: Obj) -> Obj:
    """Give a method to a customer. Raises StripeError: card_error where the bank refuses the card."""
    if found["customer"] == customer["id"]:
        return found
    if found["customer"]:
        raise errors.invalid("The payment method you provided has already been attached to a customer.")
    if found["_state"] == "detached":
        raise errors.invalid(_GONE, "payment_method")
    if refusal := CARDS[found["_card"]].attach:
        raise errors.card_error(refusal.code, refusal.message, refusal.decline_code)
    found.update(customer=customer["id"], _state="attached")
    account.save(found)
    account.emit("payment_method.attached", found)
    return found


def detach(account: Account, found: Obj) -> Obj:
    """Take a method from its customer and from all that would be paid with it."""
    if not found["customer"]:
        raise errors.invalid(
            "The payment method you provided is not attached to a customer so detachment is impossible."
        )
    customer = account.store.get(found["customer"])
    if customer and not customer.get("deleted"):
        settings = customer["invoice_settings"]
        if settings["default_payment_method"] == found["id"]:
            changed = {**settings, "default_payment_method": None}
            account.update(customer, "customer.updated", invoice_settings=changed)
        for subscription in list(account.store.all("subscription", customer["id"])):
            if subscription["default_payment_method"] == found["id"]:
                account.update(subscription, "customer.subscription.updated", default_payment_method=None)
    before = found["customer"]
    found.update(customer=None, _state="detached")
    account.save(found)
    account.emit("payment_method.detached", found, {"customer": before})
    return found


def pay(account: Account, intent: Obj, paying: Obj) -> Obj:
    """Try to take an intent's amount: it ends ``succeeded``, ``requires_action`` or ``requires_payment_method``."""
    card = CARDS[paying["_card"]]
    asks = card.confirm == "always" or (card.confirm == "once" and not paying.get("_confirmed"))
    intent.update(payment_method=paying["id"], last_payment_error=None, next_action=None)
    if asks and not intent.get("_confirmed"):
        return _ask(account, intent)
    return _decline(account, intent, paying, card.charge) if card.charge else _take(account, intent, paying)


def _ask(account: Account, intent: Obj) -> Obj:
    url = f"{account.base}/_local/confirm/{intent['id']}"
    redirect = {"return_url": intent.get("_return_url"), "url": url}
    intent.update(status="requires_action", next_action={"redirect_to_url": redirect, "type": "redirect_to_url"})
    account.save(intent)
    account.emit(f"{intent['object']}.requires_action", intent)
    return intent


def _take(account: Account, intent: Obj, paying: Obj) -> Obj:
    charge = account.save(shapes.charge(intent, paying, account.now_of(intent), None))
    intent.update(status="succeeded", amount_received=intent["amount"], latest_charge=charge["id"])
    account.save(intent)
    account.emit("charge.succeeded", charge)
    account.emit("payment_intent.succeeded", intent)
    return intent


def _decline(account: Account, intent: Obj, paying: Obj, decline: Decline) -> Obj:
    error = failure(decline, paying)
    charge = account.save(shapes.charge(intent, paying, account.now_of(intent), error))
    intent.update(
        status="requires_payment_method",
        latest_charge=charge["id"],
        last_payment_error={**error, "charge": charge["id"]},
        payment_method=None,
        _confirmed=False,
    )
    account.save(intent)
    account.emit("charge.failed", charge)
    account.emit("payment_intent.payment_failed", intent)
    return intent


def refund(account: Account, charge: Obj, amount: int, reason: str | None, metadata: Obj) -> Obj:
    """Pay back some or all of a charge; the invoice that it paid stays paid."""
    made = account.save(shapes.refund(charge, amount, reason, metadata, account.now_of(charge)))
    refunded = charge["amount_refunded"] + amount
    charge.update(amount_refunded=refunded, refunded=refunded == charge["amount_captured"])
    account.save(charge)
    account.emit("charge.refunded", charge)
    account.emit("refund.created", made)
    return made


def failure(decline: Decline, paying: Obj) -> dict[str, Any]:
    """A decline as ``last_payment_error`` and error bodies have it."""
    error = {"type": "card_error", "code": decline.code, "message": decline.message, "payment_method": public(paying)}
    return {**error, "decline_code": decline.decline_code} if decline.decline_code else error


def confirm_setup(account: Account, intent: Obj, using: Obj) -> Obj:
    """Set a method up for later: attaches it to the intent's customer. Raises card_error."""
    card = CARDS[using["_card"]]
    intent["payment_method"] = using["id"]
    if card.confirm != "never" and not intent.get("_confirmed"):
        return _ask(account, intent)
    if card.attach:
        raise errors.card_error(card.attach.code, card.attach.message, card.attach.decline_code)
    if intent["customer"]:
        using = attach(account, using, account.named("customer", intent["customer"], "customer"))
    using["_confirmed"] = True
    account.save(using)
    intent.update(status="succeeded", next_action=None)
    account.save(intent)
    account.emit("setup_intent.succeeded", intent)
    return intent


def answer(account: Account, intent: Obj, agreed: bool) -> Obj:
    """What the card's owner told the bank about an intent that ``requires_action``."""
    if intent["status"] != "requires_action":
        raise errors.invalid(f"This intent has a status of {intent['status']}: there is nothing to confirm.")
    using = account.named("payment_method", intent["payment_method"], "payment_method")
    intent["_confirmed"] = agreed
    if agreed and intent["object"] == "setup_intent":
        return confirm_setup(account, intent, using)
    if agreed:
        using["_confirmed"] = True
        account.save(using)
        return pay(account, intent, using)
    refused = Decline(
        f"{intent['object']}_authentication_failure", None, "The card's owner could not be authenticated."
    )
    name = "last_payment_error" if intent["object"] == "payment_intent" else "last_setup_error"
    kind = "payment_failed" if intent["object"] == "payment_intent" else "setup_failed"
    intent.update({name: failure(refused, using)}, status="requires_payment_method", next_action=None)
    account.save(intent)
    account.emit(f"{intent['object']}.{kind}", intent)
    return intent
