"""/v1/refunds."""

from tools.local_stripe import errors
from tools.local_stripe.account import Account, public
from tools.local_stripe.billing import payments
from tools.local_stripe.endpoints import PAGE, created, endpoint, page
from tools.local_stripe.params import Params
from tools.local_stripe.store import Obj

_REASONS = ("duplicate", "fraudulent", "requested_by_customer")


@endpoint("POST", "/v1/refunds", "payment_intent charge amount reason metadata")
def create(account: Account, p: Params) -> Obj:
    charge = _charge(account, p)
    left = charge["amount_captured"] - charge["amount_refunded"]
    amount = p.integer("amount", left) or 0
    if not left:
        message = f"Charge {charge['id']} has already been refunded."
        raise errors.invalid(message, "charge", "charge_already_refunded")
    if not 0 < amount <= left:
        raise errors.invalid(
            f"Refund amount ({amount}) is greater than unrefunded amount on charge ({left}).", "amount"
        )
    reason = p.choice("reason", _REASONS, "duplicate") if "reason" in p else None
    return public(payments.refund(account, charge, amount, reason, p.metadata()))


def _charge(account: Account, p: Params) -> Obj:
    if id := p.text("charge"):
        found = account.named("charge", id, "charge")
    else:
        intent = account.named("payment_intent", p.required("payment_intent"), "payment_intent")
        if not intent["latest_charge"]:
            message = f"This PaymentIntent ({intent['id']}) does not have a successful charge to refund."
            raise errors.invalid(message, "payment_intent")
        found = account.named("charge", intent["latest_charge"], "payment_intent")
    if found["status"] != "succeeded":
        raise errors.invalid(f"Charge {found['id']} was not successful: there is nothing to refund.", "charge")
    return found


@endpoint("GET", "/v1/refunds", f"{PAGE} payment_intent charge created")
def index(account: Account, p: Params) -> Obj:
    wanted = {name: given for name in ("payment_intent", "charge") if (given := p.text(name))}
    when = created(p)

    def keep(obj: Obj) -> bool:
        return when(obj) and all(obj[name] == given for name, given in wanted.items())

    return page(p, "/v1/refunds", account.store.all("refund"), keep)


@endpoint("GET", "/v1/refunds/<id>")
def retrieve(account: Account, p: Params, id: str) -> Obj:
    return public(account.get("refund", id))
