"""An invoice's life: draft, open, paid or void."""

from typing import Any, Literal

from tools.local_stripe import errors
from tools.local_stripe.account import Account
from tools.local_stripe.billing import payments
from tools.local_stripe.periods import FINALIZES_AFTER
from tools.local_stripe.shapes import billing as shapes
from tools.local_stripe.shapes import payments as payment_shapes
from tools.local_stripe.store import Obj

Outcome = Literal["paid", "action", "failed"]


def subscription_of(account: Account, invoice: Obj) -> Obj | None:
    parent = invoice["parent"]
    return account.store.get(parent["subscription_details"]["subscription"]) if parent else None


def title(account: Account, item: Obj) -> str:
    """``Pro``, or ``3 × Pro``: what an item is called on paper."""
    product = account.store.get(item["price"]["product"])
    name = product["name"] if product and not product.get("deleted") else item["price"]["product"]
    return name if item["quantity"] == 1 else f"{item['quantity']} × {name}"


def pending(account: Account, subscription: Obj) -> list[Obj]:
    """Invoice items that wait for the subscription's next invoice."""
    items = account.store.all("invoiceitem", subscription["customer"], oldest_first=True)
    return [item for item in items if item["invoice"] is None and item["_line"]["subscription"] == subscription["id"]]


def compose(account: Account, subscription: Obj, reason: str, lines: list[Obj], period: tuple[int, int]) -> Obj:
    """An invoice with lines and sums that is not stored: a preview, or a draft to be."""
    customer = account.get("customer", subscription["customer"])
    invoice = shapes.invoice(customer, subscription["currency"], account.now(subscription["test_clock"]))
    invoice.update(billing_reason=reason, period_start=period[0], period_end=period[1])
    details = {"metadata": subscription["metadata"], "subscription": subscription["id"]}
    invoice["parent"] = {"quote_details": None, "subscription_details": details, "type": "subscription_details"}
    invoice["lines"]["data"] = [{**line, "invoice": invoice["id"]} for line in lines]
    return summed(invoice, customer)


def summed(invoice: Obj, customer: Obj) -> Obj:
    """Sums by the lines and by what the customer has to his credit (a negative balance)."""
    total = sum(line["amount"] for line in invoice["lines"]["data"])
    balance = customer["balance"]
    due = max(0, total + balance)
    invoice.update(subtotal=total, subtotal_excluding_tax=total, total=total, total_excluding_tax=total)
    invoice.update(amount_due=due, amount_remaining=due, starting_balance=balance)
    return invoice


def draft(
    account: Account,
    subscription: Obj,
    reason: str,
    lines: list[Obj],
    period: tuple[int, int],
    auto_advance: bool = True,
) -> Obj:
    """A stored draft with the lines given and all that was pending; becomes the subscription's latest invoice."""
    waiting = pending(account, subscription)
    invoice = compose(account, subscription, reason, [*(item["_line"] for item in waiting), *lines], period)
    for item in waiting:
        account.save({**item, "invoice": invoice["id"]})
    invoice["auto_advance"] = auto_advance
    if auto_advance:
        invoice["automatically_finalizes_at"] = invoice["created"] + FINALIZES_AFTER
    account.save(invoice)
    subscription["latest_invoice"] = invoice["id"]
    account.save(subscription)
    account.emit("invoice.created", invoice)
    return invoice


def finalize(account: Account, invoice: Obj) -> Obj:
    """Number it, take what is to the customer's credit, make the intent that is to pay the rest."""
    if invoice["status"] != "draft":
        raise errors.invalid("This invoice is already finalized, you can't re-finalize a non-draft invoice.")
    customer = account.get("customer", invoice["customer"])
    summed(invoice, customer)
    now = account.now_of(invoice)
    number = customer["next_invoice_sequence"]
    account.update(
        customer,
        "customer.updated",
        next_invoice_sequence=number + 1,
        balance=customer["balance"] + invoice["total"] - invoice["amount_due"],
        currency=customer["currency"] or invoice["currency"],
    )
    link = f"{account.base}/i/{invoice['id']}"
    invoice.update(
        status="open",
        number=f"{customer['invoice_prefix']}-{number:04d}",
        effective_at=now,
        automatically_finalizes_at=None,
        ending_balance=customer["balance"],
        hosted_invoice_url=link,
        invoice_pdf=f"{link}/pdf",
        status_transitions={**invoice["status_transitions"], "finalized_at": now},
    )
    if invoice["amount_due"]:
        _prepare_payment(account, invoice, now)
    account.save(invoice)
    account.emit("invoice.finalized", invoice)
    return invoice


def _prepare_payment(account: Account, invoice: Obj, now: int) -> None:
    intent = payment_shapes.payment_intent(invoice["amount_due"], invoice["currency"], invoice["customer"], now)
    intent.update(_invoice=invoice["id"], description=f"Invoice {invoice['number']}", setup_future_usage="off_session")
    if chosen := method(account, invoice):
        intent.update(payment_method=chosen["id"], status="requires_confirmation")
    account.save(intent)
    account.emit("payment_intent.created", intent)
    account.save(shapes.invoice_payment(invoice, intent["id"], now))
    invoice["_intent"] = intent["id"]
    invoice["confirmation_secret"] = {"client_secret": intent["client_secret"], "type": "payment_intent"}


def method(account: Account, invoice: Obj) -> Obj | None:
    """What pays an invoice where nothing is said: its own, its subscription's or its customer's default."""
    subscription = subscription_of(account, invoice)
    customer = account.store.get(invoice["customer"]) or {}
    chosen = (
        invoice["default_payment_method"]
        or (subscription and subscription["default_payment_method"])
        or customer.get("invoice_settings", {}).get("default_payment_method")
    )
    return account.store.get(chosen) if chosen else None


def attempt(account: Account, invoice: Obj, paying: Obj | None) -> Outcome:
    """Try to have an open invoice paid, and tell of it; what that means for the subscription is not decided here."""
    if not invoice["amount_due"]:
        settle(account, invoice)
        return "paid"
    intent = account.get("payment_intent", invoice["_intent"])
    if intent["status"] != "succeeded":
        invoice.update(attempted=True, attempt_count=invoice["attempt_count"] + 1)
        if paying:
            intent = payments.pay(account, intent, paying)
    return attempted(account, invoice, intent)


def attempted(account: Account, invoice: Obj, intent: Obj) -> Outcome:
    """Take over how an attempt ended: also one that a person had to confirm first."""
    if intent["status"] == "succeeded":
        settle(account, invoice)
        return "paid"
    account.save(invoice)
    if intent["status"] == "requires_action":
        account.emit("invoice.payment_action_required", invoice)
    account.emit("invoice.payment_failed", invoice)
    return "action" if intent["status"] == "requires_action" else "failed"


def settle(account: Account, invoice: Obj) -> Obj:
    """Paid."""
    now = account.now_of(invoice)
    invoice.update(
        status="paid",
        attempted=True,
        amount_paid=invoice["amount_due"],
        amount_remaining=0,
        next_payment_attempt=None,
        auto_advance=False,
        status_transitions={**invoice["status_transitions"], "paid_at": now},
    )
    account.save(invoice)
    for payment in _payments(account, invoice):
        transitions = {**payment["status_transitions"], "paid_at": now}
        payment.update(status="paid", amount_paid=invoice["amount_due"], status_transitions=transitions)
        account.save(payment)
        account.emit("invoice_payment.paid", payment)
    account.emit("invoice.paid", invoice)
    account.emit("invoice.payment_succeeded", invoice)
    return invoice


def void(account: Account, invoice: Obj) -> Obj:
    """Never to be paid: its intent is cancelled with it."""
    if invoice["status"] not in ("open", "uncollectible"):
        raise errors.invalid(f"You can't void an invoice with a status of {invoice['status']}.")
    now = account.now_of(invoice)
    if intent := account.store.get(invoice.get("_intent") or ""):
        changes: dict[str, Any] = {"status": "canceled", "canceled_at": now, "cancellation_reason": "void_invoice"}
        account.update(intent, "payment_intent.canceled", **changes, next_action=None)
    for payment in _payments(account, invoice):
        transitions = {**payment["status_transitions"], "canceled_at": now}
        account.save({**payment, "status": "canceled", "status_transitions": transitions})
    transitions = {**invoice["status_transitions"], "voided_at": now}
    invoice.update(status="void", auto_advance=False, next_payment_attempt=None, status_transitions=transitions)
    account.save(invoice)
    account.emit("invoice.voided", invoice)
    return invoice


def _payments(account: Account, invoice: Obj) -> list[Obj]:
    return [p for p in account.store.all("invoice_payment", invoice["customer"]) if p["invoice"] == invoice["id"]]
