"""/v1/invoices, their lines and their payments."""

from tools.local_stripe import errors
from tools.local_stripe.account import Account, public
from tools.local_stripe.billing import changes, invoices, lifecycle, payments
from tools.local_stripe.endpoints import PAGE, created, customer_of, endpoint, page
from tools.local_stripe.params import Params
from tools.local_stripe.store import Obj


@endpoint("GET", "/v1/invoices", f"{PAGE} customer subscription status created collection_method due_date")
def index(account: Account, p: Params) -> Obj:
    status, subscription, when = p.text("status"), p.text("subscription"), created(p)

    def keep(obj: Obj) -> bool:
        parent = obj["parent"]
        whose = parent["subscription_details"]["subscription"] if parent else None
        return (not status or obj["status"] == status) and (not subscription or whose == subscription) and when(obj)

    return page(p, "/v1/invoices", account.store.all("invoice", customer_of(account, p)), keep)


@endpoint("POST", "/v1/invoices/create_preview", "customer subscription subscription_details preview_mode currency")
def create_preview(account: Account, p: Params) -> Obj:
    """What the next invoice would be, with ``subscription_details`` as if they were an update."""
    details = p.nested("subscription_details")
    details.allow((
        "items", "proration_behavior", "proration_date", "cancel_at_period_end", "cancel_at", "cancel_now", "trial_end",
        "billing_cycle_anchor",
    ))  # fmt: skip
    id = p.text("subscription")
    if id is None:
        raise errors.missing("subscription")
    subscription = account.named("subscription", id, "subscription")
    customer = p.text("customer")
    if customer and customer != subscription["customer"]:
        raise errors.invalid("The subscription does not belong to that customer.", "subscription")
    if subscription["ended_at"]:
        raise errors.invalid(
            "No upcoming invoices for customer: " + subscription["customer"], code="invoice_upcoming_none"
        )
    if "cancel_at_period_end" in details and not details.boolean("cancel_at_period_end"):
        subscription["cancel_at"] = None
    change = None
    if "items" in details:
        at = details.integer("proration_date") or account.now_of(subscription)
        change = changes.plan(account, subscription, details, at)
    at_once = details.text("proration_behavior") == "always_invoice"
    return public(changes.preview(account, subscription, change, at_once))


@endpoint("GET", "/v1/invoices/<id>")
def retrieve(account: Account, p: Params, id: str) -> Obj:
    return public(account.get("invoice", id))


@endpoint("POST", "/v1/invoices/<id>", "metadata description auto_advance default_payment_method footer")
def update(account: Account, p: Params, id: str) -> Obj:
    invoice = account.get("invoice", id)
    changed: Obj = {"metadata": p.metadata(invoice["metadata"])}
    if "auto_advance" in p:
        changed["auto_advance"] = p.boolean("auto_advance")
    if chosen := p.text("default_payment_method"):
        payments.owned(account, chosen, invoice["customer"], "default_payment_method")
        changed["default_payment_method"] = chosen
    changed |= {name: p.text(name) for name in ("description", "footer") if name in p}
    return public(account.update(invoice, "invoice.updated", **changed))


@endpoint("POST", "/v1/invoices/<id>/finalize", "auto_advance")
def finalize(account: Account, p: Params, id: str) -> Obj:
    invoice = invoices.finalize(account, account.get("invoice", id))
    if not invoice["amount_due"]:
        lifecycle.collect(account, invoice, None)
    elif p.boolean("auto_advance", invoice["auto_advance"]):
        invoice.update(auto_advance=True, next_payment_attempt=account.now_of(invoice))
        account.save(invoice)
    return public(account.get("invoice", id))


@endpoint("POST", "/v1/invoices/<id>/pay", "payment_method off_session paid_out_of_band forgive mandate")
def pay(account: Account, p: Params, id: str) -> Obj:
    """Raises card_error where the card says no: that attempt has been, and counts."""
    invoice = account.get("invoice", id)
    if invoice["status"] == "draft":
        invoices.finalize(account, invoice)
    if invoice["status"] == "paid":
        raise errors.invalid("Invoice is already paid")
    if invoice["status"] == "void":
        raise errors.invalid("This invoice is voided, so it cannot be paid.")
    if p.boolean("paid_out_of_band"):
        invoices.settle(account, invoice)
        lifecycle.concluded(account, invoice, "paid")
        return public(account.get("invoice", id))
    chosen = p.text("payment_method")
    paying = _method(account, invoice, chosen) if chosen else invoices.method(account, invoice)
    if paying is None:
        raise errors.invalid("There is no default payment method set on this Customer or Invoice.", "payment_method")
    if lifecycle.collect(account, invoice, paying) != "paid":
        raise lifecycle.refusal(account, invoice)
    return public(account.get("invoice", id))


def _method(account: Account, invoice: Obj, id: str) -> Obj:
    method = payments.method(account, id, "payment_method", invoice["test_clock"])
    if method["customer"] not in (None, invoice["customer"]):
        raise errors.invalid("The payment method belongs to another customer.", "payment_method")
    return method


@endpoint("POST", "/v1/invoices/<id>/void")
def void(account: Account, p: Params, id: str) -> Obj:
    return public(invoices.void(account, account.get("invoice", id)))


@endpoint("POST", "/v1/invoices/<id>/mark_uncollectible")
def mark_uncollectible(account: Account, p: Params, id: str) -> Obj:
    invoice = account.get("invoice", id)
    if invoice["status"] != "open":
        raise errors.invalid(f"You can't mark an invoice with a status of {invoice['status']} as uncollectible.")
    transitions = {**invoice["status_transitions"], "marked_uncollectible_at": account.now_of(invoice)}
    invoice.update(
        status="uncollectible", auto_advance=False, next_payment_attempt=None, status_transitions=transitions
    )
    account.save(invoice)
    account.emit("invoice.marked_uncollectible", invoice)
    return public(invoice)


@endpoint("GET", "/v1/invoices/<id>/lines", PAGE)
def lines(account: Account, p: Params, id: str) -> Obj:
    return page(p, f"/v1/invoices/{id}/lines", account.get("invoice", id)["lines"]["data"])


@endpoint("GET", "/v1/invoice_payments", f"{PAGE} invoice status payment created")
def invoice_payments(account: Account, p: Params) -> Obj:
    invoice, status, when = p.text("invoice"), p.text("status"), created(p)

    def keep(obj: Obj) -> bool:
        return (not invoice or obj["invoice"] == invoice) and (not status or obj["status"] == status) and when(obj)

    return page(p, "/v1/invoice_payments", account.store.all("invoice_payment"), keep)


@endpoint("GET", "/v1/invoice_payments/<id>")
def invoice_payment(account: Account, p: Params, id: str) -> Obj:
    return public(account.get("invoice_payment", id))


@endpoint("GET", "/v1/invoiceitems", f"{PAGE} customer pending created invoice")
def invoice_items(account: Account, p: Params) -> Obj:
    invoice, waiting = p.text("invoice"), p.boolean("pending")
    return page(
        p,
        "/v1/invoiceitems",
        account.store.all("invoiceitem", customer_of(account, p)),
        lambda obj: (not invoice or obj["invoice"] == invoice) and (not waiting or obj["invoice"] is None),
    )
