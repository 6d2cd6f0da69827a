"""/v1/events and /v1/test_helpers/test_clocks."""

import fnmatch

from tools.local_stripe import errors
from tools.local_stripe.account import Account, public
from tools.local_stripe.billing import lifecycle
from tools.local_stripe.endpoints import PAGE, created, endpoint, page
from tools.local_stripe.params import Params
from tools.local_stripe.shapes import other as shapes
from tools.local_stripe.store import Obj

_KIND = "test_helpers.test_clock"
_PATH = "/v1/test_helpers/test_clocks"


@endpoint("GET", "/v1/events", f"{PAGE} type types created delivery_success")
def index(account: Account, p: Params) -> Obj:
    """Of the last 30 days at Stripe; here of all time. ``delivery_success=false``: those that did not arrive."""
    types = [type for type in [p.text("type"), *p.texts("types")] if type]
    when, delivered = created(p), p.text("delivery_success")

    def keep(obj: Obj) -> bool:
        fits = not types or any(fnmatch.fnmatchcase(obj["type"], pattern) for pattern in types)
        return fits and when(obj) and (delivered is None or (obj["pending_webhooks"] == 0) == (delivered == "true"))

    return page(p, "/v1/events", account.store.all("event"), keep)


@endpoint("GET", "/v1/events/<id>")
def retrieve(account: Account, p: Params, id: str) -> Obj:
    return public(account.get("event", id))


@endpoint("POST", _PATH, "frozen_time name")
def create_clock(account: Account, p: Params) -> Obj:
    frozen = p.integer("frozen_time")
    if frozen is None:
        raise errors.missing("frozen_time")
    clock = account.save(shapes.test_clock(frozen, p.text("name"), account.now()))
    account.emit("test_helpers.test_clock.created", clock)
    return public(clock)


@endpoint("GET", _PATH, PAGE)
def clocks(account: Account, p: Params) -> Obj:
    return page(p, _PATH, account.store.all(_KIND))


@endpoint("GET", f"{_PATH}/<id>")
def clock(account: Account, p: Params, id: str) -> Obj:
    return public(account.get(_KIND, id))


@endpoint("POST", f"{_PATH}/<id>/advance", "frozen_time")
def advance(account: Account, p: Params, id: str) -> Obj:
    """Begins to advance: the answer says ``advancing``, and it is ``ready`` a moment later, as at Stripe."""
    target = p.integer("frozen_time")
    if target is None:
        raise errors.missing("frozen_time")
    return public(start_advancing(account, account.get(_KIND, id), target))


def start_advancing(account: Account, clock: Obj, target: int) -> Obj:
    """Raises StripeError: time does not go back, and one advance at a time."""
    if clock["status"] != "ready":
        message = "Test clock advancement is in progress; try again when it is ready."
        raise errors.StripeError(429, "invalid_request_error", message, code="lock_timeout")
    if target <= clock["frozen_time"]:
        raise errors.invalid("The frozen time must be later than the clock's current one.", "frozen_time")
    details = {"advancing": {"target_frozen_time": target}}
    clock.update(status="advancing", frozen_time=target, status_details=details)
    account.save(clock)
    account.emit("test_helpers.test_clock.advancing", clock)
    return clock


@endpoint("DELETE", f"{_PATH}/<id>", expand=False)
def delete_clock(account: Account, p: Params, id: str) -> Obj:
    """Takes its customers with it."""
    clock = account.get(_KIND, id)
    for customer in list(account.store.all("customer")):
        if customer.get("test_clock") == id:
            for subscription in list(account.store.all("subscription", customer["id"])):
                if not subscription["ended_at"]:
                    lifecycle.end(account, subscription, "cancellation_requested")
            account.save(shapes.deleted(customer))
    account.emit("test_helpers.test_clock.deleted", clock)
    return public(account.save(shapes.deleted(clock)))
