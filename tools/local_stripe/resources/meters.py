"""/v1/billing/meters and /v1/billing/meter_events."""

import json
import re

from tools.local_stripe import errors
from tools.local_stripe.account import Account, listing, new_id, public
from tools.local_stripe.endpoints import PAGE, endpoint, page
from tools.local_stripe.params import Params
from tools.local_stripe.periods import DAY
from tools.local_stripe.shapes import other as shapes
from tools.local_stripe.store import Obj

_OLDEST, _NEWEST = 35 * DAY, 300
_FORMULAS = ("sum", "count", "last")


def seed(account: Account, names: list[str]) -> None:
    """Meters for events of these names."""
    known = {meter["event_name"] for meter in account.store.all("billing.meter")}
    for name in names:
        if name not in known:
            account.save(shapes.meter(name, name.replace("_", " ").capitalize(), "sum", account.now()))


@endpoint(
    "POST",
    "/v1/billing/meters",
    "display_name event_name default_aggregation customer_mapping value_settings event_time_window",
)
def create(account: Account, p: Params) -> Obj:
    name = p.required("event_name")
    if _meter(account, name):
        raise errors.invalid(f"A meter with event name {name} already exists.", "event_name")
    formula = p.nested("default_aggregation").required("formula")
    if formula not in _FORMULAS:
        raise errors.malformed("Invalid default_aggregation[formula]", "default_aggregation[formula]")
    meter = shapes.meter(name, p.required("display_name"), formula, account.now())
    for field in ("customer_mapping", "value_settings"):
        if key := p.nested(field).text("event_payload_key"):
            meter[field]["event_payload_key"] = key
    account.save(meter)
    account.emit("billing.meter.created", meter)
    return public(meter)


@endpoint("GET", "/v1/billing/meters", f"{PAGE} status")
def index(account: Account, p: Params) -> Obj:
    status = p.text("status")
    return page(
        p, "/v1/billing/meters", account.store.all("billing.meter"), lambda obj: not status or obj["status"] == status
    )


@endpoint("GET", "/v1/billing/meters/<id>")
def retrieve(account: Account, p: Params, id: str) -> Obj:
    return public(account.get("billing.meter", id))


@endpoint("POST", "/v1/billing/meters/<id>/deactivate")
def deactivate(account: Account, p: Params, id: str) -> Obj:
    return _switch(account, id, "inactive", account.now())


@endpoint("POST", "/v1/billing/meters/<id>/reactivate")
def reactivate(account: Account, p: Params, id: str) -> Obj:
    return _switch(account, id, "active", None)


def _switch(account: Account, id: str, status: str, at: int | None) -> Obj:
    meter = account.get("billing.meter", id)
    changed = {"status": status, "status_transitions": {"deactivated_at": at}, "updated": account.now()}
    return public(account.update(meter, f"billing.meter.{'de' if at else 're'}activated", **changed))


def _meter(account: Account, name: str) -> Obj | None:
    found = (m for m in account.store.all("billing.meter") if m["event_name"] == name and m["status"] == "active")
    return next(found, None)


@endpoint("POST", "/v1/billing/meter_events", "event_name payload identifier timestamp")
def report(account: Account, p: Params) -> Obj:
    """One report of usage. An identifier counts once within 24 hours; the second is refused, and that is harmless."""
    name, payload = p.required("event_name"), p.nested("payload").values
    meter = _meter(account, name)
    if meter is None:
        raise errors.invalid(f"No active meter found for event name {name}.", "event_name", "no_meter")
    value = payload.get(meter["value_settings"]["event_payload_key"])
    customer = payload.get(meter["customer_mapping"]["event_payload_key"])
    _check(account, value, customer)
    now, identifier = account.now(), p.text("identifier") or new_id("meter")
    at = _timestamp(account, p, now, customer)
    # Stripe's meter events have no id: ours is for the table only.
    id = f"mev_{identifier}"
    if (known := account.store.get(id)) and known["_at"] > now - DAY:
        message = f"An event already exists with identifier {identifier}."
        raise errors.invalid(message, "identifier", "duplicate_meter_event")
    event = {
        "object": "billing.meter_event", "created": now, "event_name": name, "identifier": identifier,
        "livemode": False, "payload": payload, "timestamp": at,
    }  # fmt: skip
    if known:
        account.save({**known, "id": f"{id}@{known['_at']}"})
    account.save({**event, "id": id, "_at": now, "_customer": customer, "_meter": meter["id"]})
    return event


def _check(account: Account, value: object, customer: object) -> None:
    if not isinstance(customer, str) or not isinstance(value, str):
        raise errors.invalid(
            "The payload must name a customer and a value.", "payload", "meter_event_no_customer_defined"
        )
    if not re.fullmatch(r"-?\d+(\.\d{1,12})?", value):
        raise errors.invalid(f"Invalid value: {json.dumps(value)}", "payload", "meter_event_invalid_value")
    found = account.store.get(customer)
    if found is None or found.get("deleted"):
        raise errors.invalid(f"No such customer: '{customer}'", "payload", "meter_event_customer_not_found")


def _timestamp(account: Account, p: Params, now: int, customer: str | None) -> int:
    at = p.integer("timestamp", now) or now
    own = account.now_of({"customer": customer})
    if all(at > time + _NEWEST for time in (now, own)):
        message = "The timestamp must not be more than 5 minutes in the future."
        raise errors.invalid(message, "timestamp", "timestamp_in_future")
    if all(at < time - _OLDEST for time in (now, own)):
        message = "The timestamp must be within the past 35 calendar days."
        raise errors.invalid(message, "timestamp", "timestamp_too_far_in_past")
    return at


def _whole_minute(p: Params, name: str) -> int:
    p.required(name)
    at = p.integer(name) or 0
    if at % 60:
        raise errors.invalid(f"{name} must be aligned with minute boundaries.", name)
    return at


@endpoint(
    "GET", "/v1/billing/meters/<id>/event_summaries", f"{PAGE} customer start_time end_time value_grouping_window"
)
def summaries(account: Account, p: Params, id: str) -> Obj:
    """What a customer used in all between two times."""
    meter = account.get("billing.meter", id)
    start, end = (_whole_minute(p, name) for name in ("start_time", "end_time"))
    found = account.store.all("billing.meter_event", p.required("customer"), oldest_first=True)
    key = meter["value_settings"]["event_payload_key"]
    events = [event for event in found if event["_meter"] == id and start <= event["timestamp"] < end]
    values = [float(event["payload"][key]) for event in events]
    formula = meter["default_aggregation"]["formula"]
    total = {"sum": sum(values), "count": float(len(values)), "last": values[-1] if values else 0.0}[formula]
    summary = {
        "id": f"mtrusg_{meter['id']}", "object": "billing.meter_event_summary", "aggregated_value": total,
        "end_time": end, "livemode": False, "meter": id, "start_time": start,
    }  # fmt: skip
    return listing([summary] if events else [], f"/v1/billing/meters/{id}/event_summaries")
