"""How payment methods are added, removed and chosen between."""

from typing import Any

from app.billing import stripe_client
from app.billing.models import USABLE
from app.billing.stripe_client import CardDeclined, Object, StripeRefused
from app.billing.work import Work
from app.errors import Conflict, NotFound


def add_payment_method(work: Work) -> dict[str, Any]:
    """Attach one; the first becomes the default."""
    customer = work.customer()
    method = attach(work, customer, work.operation.payload["payment_method_id"])
    known = work.ask(stripe_client.customer, customer)["invoice_settings"]["default_payment_method"]
    if work.operation.payload.get("default") or not known:
        _make_default(work, customer, method["id"])
    return {"stripe_id": method["id"]}


def attach(work: Work, customer: str, payment_method_id: str) -> Object:
    """Give a payment method to the customer, unless he has it already."""
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
