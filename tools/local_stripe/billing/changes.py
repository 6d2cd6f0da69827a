"""Items of a running subscription changed, with what that costs: https://docs.stripe.com/billing/subscriptions/prorations."""

import copy
from dataclasses import dataclass

from tools.local_stripe import errors
from tools.local_stripe.account import Account, new_id
from tools.local_stripe.billing import invoices, lifecycle
from tools.local_stripe.params import Params
from tools.local_stripe.periods import INCOMPLETE_FOR, current_period, day, period_end
from tools.local_stripe.shapes import billing as shapes
from tools.local_stripe.store import Obj

_ITEM = ("id", "price", "quantity", "deleted", "metadata", "clear_usage")


@dataclass(frozen=True)
class Change:
    """Items as they are to be, the lines of the difference, and whether a new period begins with it."""

    items: list[Obj]
    lines: list[Obj]
    restarts: bool
    at: int


def price(account: Account, id: str, param: str) -> Obj:
    """A recurring, active price. Raises StripeError."""
    found = account.named("price", id, param)
    if found["type"] != "recurring":
        message = (
            "The price specified is set to `type=one_time` but this field only accepts prices with `type=recurring`."
        )
        raise errors.invalid(message, param)
    if not found["active"]:
        message = f"The price specified is inactive. This field only accepts active prices. Price: `{id}`"
        raise errors.invalid(message, param)
    return found


def item(account: Account, subscription: Obj, asked: Params, period: tuple[int, int]) -> Obj:
    """A new item of a subscription."""
    found = price(account, asked.required("price"), asked.name("price"))
    quantity = asked.integer("quantity", 1)
    if quantity is None or quantity < 0:
        raise errors.invalid("Quantity must be 0 or more.", asked.name("quantity"))
    made = shapes.subscription_item(subscription["id"], found, quantity, period, account.now_of(subscription))
    return {**made, "metadata": asked.metadata()}


def plan(account: Account, subscription: Obj, p: Params, at: int) -> Change:
    """What an update's ``items`` come to at a time. Changes nothing. Raises StripeError."""
    behavior = p.choice("proration_behavior", ("create_prorations", "always_invoice", "none"), "create_prorations")
    old = {one["id"]: one for one in subscription["items"]["data"]}
    new = _items(account, subscription, p, old)
    if not new:
        raise errors.invalid("A subscription must have at least one active item.", "items")
    intervals = {_interval(one) for one in new}
    if len(intervals) > 1 or len({one["price"]["currency"] for one in new}) > 1:
        raise errors.invalid("All prices of a subscription must have the same interval and currency.", "items")
    trial = subscription["status"] == "trialing"
    restarts = not trial and intervals != {_interval(one) for one in old.values()}
    if restarts:
        end = period_end(at, new[0]["price"]["recurring"], at)
        new = [{**one, "current_period_start": at, "current_period_end": end} for one in new]
    if trial or (behavior == "none" and not restarts):
        return Change(new, [], restarts, at)
    return Change(new, _difference(account, subscription, old, new, restarts, at, behavior), restarts, at)


def _items(account: Account, subscription: Obj, p: Params, old: dict[str, Obj]) -> list[Obj]:
    new = {id: copy.deepcopy(one) for id, one in old.items()}
    for asked in p.objects("items"):
        asked.allow(_ITEM)
        id = asked.text("id")
        if id is None:
            made = item(account, subscription, asked, current_period(subscription))
            new[made["id"]] = made
        elif id not in new:
            raise errors.no_such("subscription_item", id, asked.name("id"))
        elif asked.boolean("deleted"):
            del new[id]
        else:
            new[id].update(_changed(account, subscription, new[id], asked))
    return list(new.values())


def _changed(account: Account, subscription: Obj, before: Obj, asked: Params) -> Obj:
    values = {"price": before["price"]["id"], "quantity": str(before["quantity"])}
    values |= {name: value for name, value in asked.values.items() if name in ("price", "quantity")}
    made = item(account, subscription, Params(values, asked.name("")), current_period(subscription))
    changed = {name: made[name] for name in ("price", "quantity")}
    return {**changed, "metadata": asked.metadata(before["metadata"])}


def _interval(one: Obj) -> tuple[str, int]:
    recurring = one["price"]["recurring"]
    return recurring["interval"], recurring["interval_count"]


def _difference(
    account: Account, subscription: Obj, old: dict[str, Obj], new: list[Obj], restarts: bool, at: int, behavior: str
) -> list[Obj]:
    start, end = current_period(subscription)
    left = max(0, end - at) / (end - start)
    kept = {one["id"]: one for one in new}
    lines = []
    for id, one in old.items():
        if behavior != "none" and (restarts or not _same(one, kept.get(id))):
            text = f"Unused time on {invoices.title(account, one)} after {day(at)}"
            lines.append(shapes.line(-round(_cost(one) * left), text, (at, end), one, proration=True))
    for one in new:
        if restarts:
            text = invoices.title(account, one)
            lines.append(shapes.line(_cost(one), text, (at, one["current_period_end"]), one))
        elif not _same(one, old.get(one["id"])):
            text = f"Remaining time on {invoices.title(account, one)} after {day(at)}"
            lines.append(shapes.line(round(_cost(one) * left), text, (at, end), one, proration=True))
    return lines


def _cost(one: Obj | None) -> int:
    return int(one["price"]["unit_amount"] * one["quantity"]) if one else 0


def _same(one: Obj, other: Obj | None) -> bool:
    return other is not None and (one["price"]["id"], one["quantity"]) == (other["price"]["id"], other["quantity"])


def apply(account: Account, subscription: Obj, change: Change, p: Params) -> None:
    """Make a change and bill it as ``proration_behavior`` and ``payment_behavior`` say. Raises StripeError."""
    at_once = p.text("proration_behavior") == "always_invoice" or change.restarts
    before = {"items": subscription["items"], "billing_cycle_anchor": subscription["billing_cycle_anchor"]}
    changes: Obj = {"items": {**subscription["items"], "data": change.items}}
    if change.restarts:
        changes["billing_cycle_anchor"] = change.at
    account.update(subscription, lifecycle.UPDATED, **changes)
    if not change.lines:
        return
    if not at_once:
        _keep_pending(account, subscription, change.lines)
        return
    invoice = invoices.draft(account, subscription, "subscription_update", change.lines, current_period(subscription))
    invoices.finalize(account, invoice)
    _collect(account, invoice, before, p.text("payment_behavior", "allow_incomplete") or "")


def _keep_pending(account: Account, subscription: Obj, lines: list[Obj]) -> None:
    now, clock = account.now_of(subscription), subscription["test_clock"]
    for one in lines:
        waiting = account.save(shapes.invoice_item(subscription["customer"], one, now, clock))
        account.emit("invoiceitem.created", waiting)


def _collect(account: Account, invoice: Obj, before: Obj, behavior: str) -> None:
    if behavior == "default_incomplete" and invoice["amount_due"]:
        return
    if behavior != "pending_if_incomplete":
        outcome = lifecycle.collect(account, invoice, invoices.method(account, invoice))
        if behavior == "error_if_incomplete" and outcome != "paid":
            raise lifecycle.refusal(account, invoice, keep=False)
        lifecycle.retried(account, invoice, outcome)
        return
    if invoices.attempt(account, invoice, invoices.method(account, invoice)) != "paid":
        _hold_back(account, invoice, before)


def _hold_back(account: Account, invoice: Obj, before: Obj) -> None:
    """Until it is paid a pending update changes nothing; unpaid after 23 hours it is forgotten."""
    subscription = account.get("subscription", invoice["parent"]["subscription_details"]["subscription"])
    held = {
        "billing_cycle_anchor": None,
        "discounts": None,
        "expires_at": account.now_of(subscription) + INCOMPLETE_FOR,
        "metadata": None,
        "subscription_items": subscription["items"]["data"],
        "trial_end": None,
        "trial_from_plan": None,
    }
    subscription["_pending_invoice"] = invoice["id"]
    account.update(subscription, lifecycle.UPDATED, pending_update=held, **before)


def preview(account: Account, subscription: Obj, change: Change | None, at_once: bool) -> Obj:
    """The invoice that comes next, with a change or without; nothing is stored."""
    items = change.items if change else subscription["items"]["data"]
    start, end = current_period({"items": {"data": items}})
    waiting = [one["_line"] for one in invoices.pending(account, subscription)]
    lines = [*waiting, *(change.lines if change else [])]
    if not (change and (change.restarts or at_once)) and subscription["cancel_at"] is None:
        following = period_end(subscription["billing_cycle_anchor"], items[0]["price"]["recurring"], end)
        renewed = [{**one, "current_period_start": end, "current_period_end": following} for one in items]
        lines += lifecycle.lines(account, {**subscription, "items": {"data": renewed}})
    reason = "subscription_update" if change and (change.restarts or at_once) else "upcoming"
    invoice = invoices.compose(account, subscription, reason, lines, (start, end))
    id = new_id("upcoming_in")
    invoice.update(id=id, next_payment_attempt=end, subscription_proration_date=None)
    invoice["lines"].update(data=[{**one, "invoice": id} for one in invoice["lines"]["data"]])
    invoice["lines"]["url"] = "/v1/invoices/upcoming/lines"
    del invoice["subscription_proration_date"]
    if change:
        invoice["parent"]["subscription_details"]["subscription_proration_date"] = change.at
    return invoice
