"""/v1/checkout/sessions and /v1/billing_portal/sessions: links to pages, see `hosted`."""

from tools.local_stripe import errors
from tools.local_stripe.account import Account, listing, new_id, public
from tools.local_stripe.billing import changes, payments
from tools.local_stripe.endpoints import PAGE, created, customer_of, endpoint, page
from tools.local_stripe.params import Params
from tools.local_stripe.resources import subscriptions
from tools.local_stripe.shapes import other as shapes
from tools.local_stripe.shapes import payments as payment_shapes
from tools.local_stripe.store import Obj

_KIND, _PATH = "checkout.session", "/v1/checkout/sessions"


@endpoint(
    "POST",
    _PATH,
    "mode customer customer_email line_items success_url cancel_url client_reference_id metadata subscription_data"
    " currency payment_method_types payment_method_collection allow_promotion_codes locale expires_at"
    " setup_intent_data ui_mode",
)
def create(account: Account, p: Params) -> Obj:
    mode = p.choice("mode", ("subscription", "setup"), "subscription")
    p.choice("ui_mode", ("hosted_page",), "hosted_page")
    customer = account.named("customer", p.required("customer"), "customer") if "customer" in p else None
    session = shapes.checkout_session(mode, account.now())
    session.update(
        customer=customer["id"] if customer else None,
        customer_email=p.text("customer_email"),
        success_url=p.required("success_url"),
        cancel_url=p.text("cancel_url"),
        client_reference_id=p.text("client_reference_id"),
        metadata=p.metadata(),
        url=f"{account.base}/c/pay/{session['id']}",
        expires_at=p.integer("expires_at", session["expires_at"]),
    )
    if mode == "subscription":
        _price(account, session, p)
    return public(account.save(session))


def _price(account: Account, session: Obj, p: Params) -> None:
    asked = p.objects("line_items")
    if not asked:
        raise errors.missing("line_items")
    data = p.nested("subscription_data")
    data.allow(("trial_period_days", "trial_end", "metadata", "description", "trial_settings", "billing_mode"))
    lines = []
    for one in asked:
        one.allow(("price", "quantity"))
        price = changes.price(account, one.required("price"), one.name("price"))
        product = account.store.get(price["product"])
        lines.append(shapes.checkout_item(price, product["name"] if product else "", one.integer("quantity", 1) or 1))
    total = 0 if "trial_period_days" in data or "trial_end" in data else sum(line["amount_total"] for line in lines)
    session.update(line_items=lines, _subscription=data.values, currency=lines[0]["currency"])
    session.update(amount_subtotal=total, amount_total=total)
    session["total_details"] = {"amount_discount": 0, "amount_shipping": 0, "amount_tax": 0}


@endpoint("GET", _PATH, f"{PAGE} customer status created subscription payment_intent")
def index(account: Account, p: Params) -> Obj:
    status, when, subscription = p.text("status"), created(p), p.text("subscription")

    def keep(obj: Obj) -> bool:
        fits = not subscription or obj["subscription"] == subscription
        return fits and when(obj) and (not status or obj["status"] == status)

    return page(p, _PATH, account.store.all(_KIND, customer_of(account, p)), keep)


@endpoint("GET", f"{_PATH}/<id>")
def retrieve(account: Account, p: Params, id: str) -> Obj:
    return public(account.get(_KIND, id))


@endpoint("GET", f"{_PATH}/<id>/line_items", PAGE)
def line_items(account: Account, p: Params, id: str) -> Obj:
    return listing(account.get(_KIND, id).get("line_items") or [], f"{_PATH}/{id}/line_items")


@endpoint("POST", f"{_PATH}/<id>/expire")
def expire(account: Account, p: Params, id: str) -> Obj:
    session = account.get(_KIND, id)
    if session["status"] != "open":
        raise errors.invalid(
            f'Only Checkout Sessions with a status in ["open"] can be expired; it is {session["status"]}.'
        )
    session.update(status="expired", url=None)
    account.save(session)
    account.emit("checkout.session.expired", session)
    return public(session)


def complete(account: Account, id: str, card: str) -> Obj:
    """A person entered a card at an open session. Returns the session: ``open`` still where the bank asks back.

    Raises StripeError: card_error.
    """
    session = account.get(_KIND, id)
    if session["status"] != "open":
        raise errors.invalid("This checkout session is not open any more.")
    customer = _customer(account, session)
    method = payments.method(account, card, "card", customer["test_clock"])
    if session["mode"] == "setup":
        return _set_up(account, session, customer, method)
    payments.attach(account, method, customer)
    data = {**session["_subscription"], "customer": customer["id"], "default_payment_method": method["id"]}
    data["items"] = [
        {"price": line["price"]["id"], "quantity": str(line["quantity"])} for line in session["line_items"]
    ]
    made = subscriptions.create(account, Params(data))
    session.update(subscription=made["id"], invoice=made["latest_invoice"])
    account.save(session)
    if made["status"] in ("active", "trialing"):
        return finish(account, session)
    invoice = account.get("invoice", made["latest_invoice"])
    intent = account.get("payment_intent", invoice["_intent"])
    if error := intent["last_payment_error"]:
        raise errors.card_error(error["code"], error["message"], error.get("decline_code"))
    account.save({**intent, "_session": session["id"]})
    return {**session, "_confirm": intent["id"]}


def _customer(account: Account, session: Obj) -> Obj:
    if session["customer"]:
        return account.named("customer", session["customer"], "customer")
    customer = payment_shapes.customer(account.now(), None, new_id("", 8).strip("_").upper())
    customer["email"] = session["customer_email"]
    account.save(customer)
    account.emit("customer.created", customer)
    session["customer"] = customer["id"]
    return customer


def _set_up(account: Account, session: Obj, customer: Obj, method: Obj) -> Obj:
    intent = payment_shapes.setup_intent(customer["id"], account.now(customer["test_clock"]))
    intent["_session"] = session["id"]
    account.save(intent)
    session["setup_intent"] = intent["id"]
    account.save(session)
    intent = payments.confirm_setup(account, intent, method)
    return finish(account, session) if intent["status"] == "succeeded" else {**session, "_confirm": intent["id"]}


def finish(account: Account, session: Obj) -> Obj:
    """All is paid or set up."""
    free = session["mode"] == "setup" or not session["amount_total"]
    session.update(status="complete", url=None, payment_status="no_payment_required" if free else "paid")
    customer = account.get("customer", session["customer"])
    details: Obj = dict.fromkeys(("address", "business_name", "individual_name", "name", "phone", "tax_ids"))
    session["customer_details"] = {
        **details,
        "email": customer["email"],
        "name": customer["name"],
        "tax_exempt": "none",
    }
    account.save(session)
    account.emit("checkout.session.completed", session)
    return session


@endpoint("POST", "/v1/billing_portal/sessions", "customer return_url configuration locale flow_data")
def create_portal(account: Account, p: Params) -> Obj:
    customer = account.named("customer", p.required("customer"), "customer")
    session = shapes.portal_session(customer["id"], p.text("return_url"), account.now())
    session["url"] = f"{account.base}/p/session/{session['id']}"
    return public(account.save(session))
