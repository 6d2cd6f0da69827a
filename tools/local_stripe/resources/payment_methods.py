"""/v1/payment_methods."""

from tools.local_stripe import errors
from tools.local_stripe.account import Account, public
from tools.local_stripe.billing import payments
from tools.local_stripe.endpoints import PAGE, customer_of, endpoint, page
from tools.local_stripe.params import Params
from tools.local_stripe.store import Obj

_NUMBER = (
    "Sending credit card numbers directly to the Stripe API is generally unsafe. We suggest you use test tokens that"
    " map to the test card you are using, see https://stripe.com/docs/testing."
)


@endpoint("POST", "/v1/payment_methods", "type card billing_details metadata allow_redisplay")
def create(account: Account, p: Params) -> Obj:
    if p.required("type") != "card":
        raise errors.invalid("This account accepts only cards.", "type")
    card = p.nested("card")
    if "number" in card:
        raise errors.invalid(_NUMBER, "card[number]")
    method = payments.method(account, card.required("token"), "card[token]")
    _describe(method, p)
    return public(account.save(method))


@endpoint("GET", "/v1/payment_methods", f"{PAGE} customer type allow_redisplay")
def index(account: Account, p: Params) -> Obj:
    customer, type = customer_of(account, p), p.text("type")
    # Without a customer Stripe lists the account's own, of which there are none.
    found = account.store.all("payment_method", customer) if customer else iter(())
    return page(p, "/v1/payment_methods", found, lambda obj: not type or obj["type"] == type)


@endpoint("GET", "/v1/payment_methods/<id>")
def retrieve(account: Account, p: Params, id: str) -> Obj:
    return public(
        payments.method(account, id, "payment_method") if _is_token(id) else account.get("payment_method", id)
    )


@endpoint("POST", "/v1/payment_methods/<id>", "billing_details card metadata allow_redisplay")
def update(account: Account, p: Params, id: str) -> Obj:
    method = account.get("payment_method", id)
    if not method["customer"]:
        raise errors.invalid("You must save this PaymentMethod to a customer before you can update it.")
    _describe(method, p)
    account.save(method)
    account.emit("payment_method.updated", method)
    return public(method)


@endpoint("POST", "/v1/payment_methods/<id>/attach", "customer")
def attach(account: Account, p: Params, id: str) -> Obj:
    customer = account.named("customer", p.required("customer"), "customer")
    if _is_token(id):
        method = payments.method(account, id, "payment_method", customer["test_clock"])
    else:
        method = account.get("payment_method", id)
    return public(payments.attach(account, method, customer))


@endpoint("POST", "/v1/payment_methods/<id>/detach")
def detach(account: Account, p: Params, id: str) -> Obj:
    return public(payments.detach(account, account.get("payment_method", id)))


def _is_token(id: str) -> bool:
    return id.startswith("pm_card_")


def _describe(method: Obj, p: Params) -> None:
    method["metadata"] = p.metadata(method["metadata"])
    given = p.nested("billing_details")
    given.allow(("address", "email", "name", "phone", "tax_id"))
    for name in given:
        if name == "address":
            method["billing_details"]["address"].update(given.nested("address").values)
        else:
            method["billing_details"][name] = given.text(name)
    for name in ("exp_month", "exp_year"):
        if name in (card := p.nested("card")):
            method["card"][name] = card.integer(name)
    if "allow_redisplay" in p:
        method["allow_redisplay"] = p.choice("allow_redisplay", ("always", "limited", "unspecified"), "unspecified")
