"""/v1/customers."""

import secrets

from tools.local_stripe import errors
from tools.local_stripe.account import Account, public
from tools.local_stripe.billing import lifecycle, payments
from tools.local_stripe.endpoints import PAGE, created, endpoint, page
from tools.local_stripe.params import Params
from tools.local_stripe.shapes import other
from tools.local_stripe.shapes import payments as shapes
from tools.local_stripe.store import Obj

_TEXTS = ("name", "email", "phone", "description")
_FIELDS = "name email phone description metadata invoice_settings address shipping tax_exempt preferred_locales"
_LETTERS = "ABCDEFGHJKLMNPQRSTUVWXYZ23456789"


@endpoint("POST", "/v1/customers", f"{_FIELDS} payment_method test_clock invoice_prefix balance")
def create(account: Account, p: Params) -> Obj:
    clock = p.text("test_clock") or account.store.setting("test_clock")
    if clock:
        account.named("test_helpers.test_clock", clock, "test_clock")
    prefix = p.text("invoice_prefix") or "".join(secrets.choice(_LETTERS) for _ in range(8))
    customer = shapes.customer(account.now(clock), clock, prefix)
    customer["balance"] = p.integer("balance", 0)
    account.save(customer)
    if token := p.text("payment_method"):
        payments.attach(account, payments.method(account, token, "payment_method", clock), customer)
    _change(account, customer, p)
    account.save(customer)
    account.emit("customer.created", customer)
    return public(customer)


@endpoint("GET", "/v1/customers", f"{PAGE} email created test_clock")
def index(account: Account, p: Params) -> Obj:
    email, clock, when = p.text("email"), p.text("test_clock"), created(p)

    def keep(obj: Obj) -> bool:
        return when(obj) and (not email or obj["email"] == email) and (not clock or obj["test_clock"] == clock)

    return page(p, "/v1/customers", account.store.all("customer"), lambda obj: not obj.get("deleted") and keep(obj))


@endpoint("GET", "/v1/customers/<id>")
def retrieve(account: Account, p: Params, id: str) -> Obj:
    found = account.store.get(id)
    if found is None or found["object"] != "customer":
        raise errors.no_such("customer", id, status=404)
    return public(found)


@endpoint("POST", "/v1/customers/<id>", f"{_FIELDS} balance default_source")
def update(account: Account, p: Params, id: str) -> Obj:
    customer = account.get("customer", id)
    before = public(customer)
    _change(account, customer, p)
    if (balance := p.integer("balance")) is not None:
        customer["balance"] = balance
    account.save(customer)
    previous = {name: before[name] for name in before if before[name] != customer[name]}
    if previous:
        account.emit("customer.updated", customer, previous)
    return public(customer)


def _change(account: Account, customer: Obj, p: Params) -> None:
    for name in _TEXTS:
        if name in p:
            customer[name] = p.text(name)
    customer["metadata"] = p.metadata(customer["metadata"])
    for name in ("address", "shipping"):
        if name in p:
            given = p.nested(name).values
            customer[name] = {**(shapes.NO_ADDRESS if name == "address" else {}), **given} if given else None
    customer["tax_exempt"] = p.choice("tax_exempt", ("none", "exempt", "reverse"), customer["tax_exempt"])
    if "preferred_locales" in p:
        customer["preferred_locales"] = p.texts("preferred_locales")
    settings = p.nested("invoice_settings")
    settings.allow(("default_payment_method", "footer", "custom_fields", "rendering_options"))
    if "default_payment_method" in settings:
        chosen = settings.text("default_payment_method")
        if chosen:
            payments.owned(account, chosen, customer["id"], "invoice_settings[default_payment_method]")
        customer["invoice_settings"] = {**customer["invoice_settings"], "default_payment_method": chosen}
    if "footer" in settings:
        customer["invoice_settings"] = {**customer["invoice_settings"], "footer": settings.text("footer")}


@endpoint("DELETE", "/v1/customers/<id>", expand=False)
def delete(account: Account, p: Params, id: str) -> Obj:
    """Ends what it subscribes to and takes its cards; its invoices stay. The id answers ``deleted: true`` for ever."""
    customer = account.get("customer", id)
    for subscription in list(account.store.all("subscription", id)):
        if not subscription["ended_at"]:
            lifecycle.end(account, subscription, "cancellation_requested")
    for method in list(account.store.all("payment_method", id)):
        account.save({**method, "customer": None, "_state": "detached"})
    account.emit("customer.deleted", account.get("customer", id))
    return public(account.save({**other.deleted(customer), "_clock": customer["test_clock"]}))


@endpoint("GET", "/v1/customers/<id>/payment_methods", f"{PAGE} type allow_redisplay")
def payment_methods(account: Account, p: Params, id: str) -> Obj:
    account.get("customer", id)
    type = p.text("type", "card")
    found = account.store.all("payment_method", id)
    return page(p, f"/v1/customers/{id}/payment_methods", found, lambda obj: obj["type"] == type)


@endpoint("GET", "/v1/customers/<id>/payment_methods/<method>")
def payment_method(account: Account, p: Params, id: str, method: str) -> Obj:
    account.get("customer", id)
    found = account.get("payment_method", method)
    if found["customer"] != id:
        raise errors.no_such("payment_method", method, status=404)
    return public(found)
