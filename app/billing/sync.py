"""What Stripe says of a customer, written whole: subscriptions, payment methods, invoices, and the plan in force.

Nothing is put together from events: each look writes all there is, so a look that comes twice, late or out of order
leaves what the last one would have left alone. An account has one worker at a time (``accounts``).
"""

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import structlog
from sqlalchemy import text

from app import db, journal
from app.billing import accounts, duplicates, operations, performers, plans, stripe_client
from app.billing.accounts import Claimed, Overtaken
from app.billing.models import OVER, USABLE
from app.billing.performers import Outcome
from app.billing.stripe_client import Object, StripeDown, StripeRefused
from app.errors import PaymentFailed
from config.settings import settings

log = structlog.get_logger(__name__)

TURN_SECONDS = 20.0
"""After which a job makes room for other organizations'."""


@dataclass
class State:
    """What Stripe says of a customer; ``deleted``: there it is no more, with all that it had.

    ``surplus``: subscriptions beside the one that counts. ``bought``: those that were bought on a page of Stripe's.
    """

    deleted: bool = False
    trial_began: datetime | None = None
    subscriptions: list[dict[str, Any]] = field(default_factory=list)
    surplus: list[str] = field(default_factory=list)
    bought: list[str] = field(default_factory=list)
    payment_methods: list[dict[str, Any]] = field(default_factory=list)
    invoices: list[dict[str, Any]] = field(default_factory=list)


def work(org_id: UUID) -> bool:
    """Carry out what is due of an organization; True: there may be more. No transaction may be open."""
    until = time.monotonic() + TURN_SECONDS
    while settings().sells:
        with db.transaction(org_id):
            claimed = accounts.claim(org_id)
        if claimed is None:
            return False
        carry_on(claimed)
        if time.monotonic() > until:
            return True
    return False


def carry_on(claimed: Claimed) -> None:
    """Perform a claimed account's operations, then look at Stripe, then write both at once."""
    outcomes: list[Outcome] = []
    state, why = None, None
    try:
        outcomes = performers.perform(claimed)
        state = fetch(claimed)
    except Overtaken as error:
        log.warning("billing account taken over", error=str(error))
        return
    except StripeDown as error:
        # Even what was done is kept back: its answer would tell of a state that our tables do not show yet.
        outcomes, why = [one for one in outcomes if one.state == "queued"], str(error)
    except StripeRefused as error:
        log.error("stripe tells nothing of a customer", org_id=claimed.org_id, error=error.message, code=error.code)
        why = error.message
    except Exception as error:
        log.exception("billing account not looked at", org_id=claimed.org_id)
        why = type(error).__name__
    _finish(claimed, outcomes, state, why)


def _finish(claimed: Claimed, outcomes: list[Outcome], state: State | None, why: str | None) -> None:
    waiting = next((one.why for one in outcomes if one.state == "queued"), None)
    try:
        with db.transaction(claimed.org_id):
            accounts.hold(claimed)
            if state is not None:
                write(claimed.org_id, state)
            performers.write(claimed.org_id, outcomes)
            _note_outcomes(claimed.org_id, outcomes)
            if why or waiting:
                accounts.postpone(claimed, why or waiting or "")
            else:
                accounts.release(claimed)
    except Overtaken as error:
        log.warning("billing account taken over", error=str(error))


def _note_outcomes(org_id: UUID, outcomes: list[Outcome]) -> None:
    for one in outcomes:
        if one.operation.kind == duplicates.SETTLE and one.state != "queued":
            duplicates.note(org_id, one.result, one.error)
        if isinstance(one.error, PaymentFailed):
            code = one.error.extra.get("decline_code")
            words = f"a payment failed: {one.error.message}"
            journal.note(org_id, "billing.payment_failed", words, level="warning", decline_code=code)


# What Stripe says


def fetch(claimed: Claimed) -> State:
    """Ask for everything of a customer; an empty state for who is none. Raises StripeDown, StripeRefused, Overtaken."""
    customer_id = claimed.customer_id
    if customer_id is None:
        return State()
    if claimed.customer_deleted:
        return State(deleted=True)
    customer = _ask(claimed, stripe_client.customer, customer_id)
    if customer.get("deleted"):
        return State(deleted=True)
    subscriptions = _ask(claimed, stripe_client.subscriptions, customer_id)
    methods = _ask(claimed, stripe_client.payment_methods, customer_id)
    invoices = _ask(claimed, stripe_client.invoices, customer_id)
    lines = {
        one["id"]: _ask(claimed, stripe_client.invoice_lines, one["id"]) if one["lines"]["has_more"]
        else one["lines"]["data"]
        for one in invoices
    }  # fmt: skip
    began = [one["trial_start"] for one in subscriptions if one["trial_start"]]
    default = _default_method(customer, subscriptions)
    return State(
        trial_began=_time(min(began)) if began else None,
        subscriptions=[_subscription(one) for one in subscriptions],
        surplus=duplicates.surplus(claimed.org_id, subscriptions),
        bought=duplicates.bought_on_pages(subscriptions),
        payment_methods=[_payment_method(one, default) for one in methods],
        invoices=[_invoice(one, lines[one["id"]]) for one in invoices],
    )


def _ask(claimed: Claimed, call: Any, *args: Any) -> Any:
    accounts.renew(claimed)
    return call(*args)


def _default_method(customer: Object, subscriptions: list[Object]) -> str | None:
    """A live subscription's own goes before the customer's, as it does when Stripe charges."""
    own = [one["default_payment_method"] for one in subscriptions if one["status"] not in OVER]
    return next((one for one in own if one), None) or customer["invoice_settings"]["default_payment_method"]


def _subscription(one: Object) -> dict[str, Any]:
    items = one["items"]["data"]
    secret = _client_secret(one)
    return {
        "id": uuid4(),
        "stripe_id": one["id"],
        "plan": plan_of(one),
        "status": one["status"],
        "current_period_start": _time(min((item["current_period_start"] for item in items), default=None)),
        "current_period_end": _time(max((item["current_period_end"] for item in items), default=None)),
        "cancel_at_period_end": one["cancel_at_period_end"],
        "trial_end": _time(one["trial_end"]),
        "ended_at": _time(one["ended_at"]),
        "client_secret": operations.seal(secret.encode()) if secret else None,
        "created_at": _time(one["created"]),
    }


def plan_of(subscription: Object) -> str:
    """The plan of its price; of a price that is none of ours, the plan that it was sold as, or else the free one."""
    prices = [item["price"]["id"] for item in subscription["items"]["data"]]
    for plan in plans.plans().values():
        if plan.price is not None and plan.price.stripe_price in prices:
            return plan.id
    sold_as = (subscription["metadata"] or {}).get("plan")
    log.error("subscription to an unknown price", subscription=subscription["id"], prices=prices, sold_as=sold_as)
    return sold_as if sold_as in plans.plans() else plans.DEFAULT


def _client_secret(subscription: Object) -> str | None:
    """What confirms the payment that its holder has not made yet."""
    invoice = subscription["latest_invoice"]
    if subscription["status"] not in ("incomplete", "past_due") or not isinstance(invoice, dict):
        return None
    waiting = invoice["status"] == "open" and invoice.get("confirmation_secret")
    return waiting["client_secret"] if waiting else None


def _payment_method(one: Object, default: str | None) -> dict[str, Any]:
    card = one.get("card") or {}
    return {
        "id": uuid4(),
        "stripe_id": one["id"],
        "type": one["type"],
        "brand": card.get("brand"),
        "last4": card.get("last4"),
        "exp_month": card.get("exp_month"),
        "exp_year": card.get("exp_year"),
        "is_default": one["id"] == default,
        "created_at": _time(one["created"]),
    }


def _invoice(one: Object, lines: list[Object]) -> dict[str, Any]:
    told = [
        {"description": line["description"] or "", "quantity": line["quantity"] or 1, "amount": line["amount"]}
        for line in lines
    ]
    return {
        "id": uuid4(),
        "stripe_id": one["id"],
        "number": one["number"],
        "status": one["status"] or "draft",
        "currency": one["currency"],
        "subtotal": one["subtotal"],
        "tax": sum(tax["amount"] for tax in one.get("total_taxes") or ()),
        "total": one["total"],
        "amount_paid": one["amount_paid"],
        "amount_due": one["amount_remaining"],
        "period_start": _time(one["period_start"]),
        "period_end": _time(one["period_end"]),
        "due_at": _time(one["due_date"]),
        "lines": db.as_json(told),
        "created_at": _time(one["created"]),
    }


def _time(seconds: int | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


# Our tables


def write(org_id: UUID, state: State) -> None:
    """Make our tables say what Stripe says, in a transaction that holds the account."""
    before = _statuses(org_id)
    if state.deleted:
        db.session.execute(_END_ALL, {"org": org_id, "over": list(OVER)})
        db.session.execute(_CUSTOMER_GONE, {"org": org_id})
    _upsert("subscriptions", org_id, state.subscriptions)
    _upsert("payment_methods", org_id, state.payment_methods)
    _upsert("invoices", org_id, state.invoices)
    db.session.execute(_METHODS_GONE, {"org": org_id, "there": _ids(state.payment_methods)})
    # Only a draft can be deleted; an ended customer's invoices stay.
    db.session.execute(_DRAFTS_GONE, {"org": org_id, "there": _ids(state.invoices)})
    if state.trial_began:
        db.session.execute(_TRIAL_USED, {"org": org_id, "began": state.trial_began})
    after = _statuses(org_id)
    _note_changes(org_id, before, after)
    _put_in_force(org_id)
    begun = _usable(after) - _usable(before)
    if begun and (state.surplus or begun & set(state.bought)):
        operations.submit(org_id, duplicates.SETTLE, {"surplus": state.surplus}, None)


def _usable(statuses: dict[str, Any]) -> set[str]:
    return {stripe_id for stripe_id, row in statuses.items() if row.status in USABLE}


_STATUSES = text("SELECT stripe_id, plan, status, cancel_at_period_end FROM subscriptions WHERE org_id = :org")
_END_ALL = text("""
UPDATE subscriptions SET status = 'canceled', ended_at = coalesce(ended_at, now()), client_secret = NULL,
    updated_at = now()
WHERE org_id = :org AND status <> ALL (:over)
""")
_CUSTOMER_GONE = text("""
UPDATE billing_accounts SET customer_deleted_at = coalesce(customer_deleted_at, now()) WHERE org_id = :org
""")
_METHODS_GONE = text("DELETE FROM payment_methods WHERE org_id = :org AND stripe_id <> ALL (:there)")
_DRAFTS_GONE = text("DELETE FROM invoices WHERE org_id = :org AND status = 'draft' AND stripe_id <> ALL (:there)")
_TRIAL_USED = text("""
UPDATE billing_accounts SET trial_used_at = coalesce(trial_used_at, :began) WHERE org_id = :org
""")
_TYPES = {
    "id": "uuid", "cancel_at_period_end": "boolean", "client_secret": "bytea", "exp_month": "integer",
    "exp_year": "integer", "is_default": "boolean", "lines": "jsonb",
    **dict.fromkeys(("subtotal", "tax", "total", "amount_paid", "amount_due"), "bigint"),
    **dict.fromkeys(
        ("current_period_start", "current_period_end", "trial_end", "ended_at", "created_at", "period_start",
         "period_end", "due_at"), "timestamptz",
    ),
}  # fmt: skip
_FIXED = ("id", "stripe_id", "created_at")
"""What a row keeps from when it was made."""
_STAMPED = ("subscriptions", "invoices")
"""Tables that tell when a row was changed last."""


def _upsert(table: str, org_id: UUID, rows: list[dict[str, Any]]) -> None:
    """All rows of a table in one statement; one that is as it was is not written."""
    if not rows:
        return
    columns = list(rows[0])
    changing = [column for column in columns if column not in _FIXED]
    arrays = ", ".join(f"CAST(:{column} AS {_TYPES.get(column, 'text')}[])" for column in columns)
    taken = ", ".join(f"{column} = excluded.{column}" for column in changing)
    stamp = ", updated_at = now()" if table in _STAMPED else ""
    was = ", ".join(f"t.{column}" for column in changing)
    now = ", ".join(f"excluded.{column}" for column in changing)
    statement = text(
        f"INSERT INTO {table} AS t (org_id, {', '.join(columns)}) "
        f"SELECT :org, n.* FROM unnest({arrays}) AS n ({', '.join(columns)}) "
        f"ON CONFLICT (stripe_id) DO UPDATE SET {taken}{stamp} WHERE ({was}) IS DISTINCT FROM ({now})"
    )
    values = {column: [row[column] for row in rows] for column in columns}
    db.session.execute(statement, {"org": org_id, **values})


def _ids(rows: Iterable[dict[str, Any]]) -> list[str]:
    return [row["stripe_id"] for row in rows]


def _statuses(org_id: UUID) -> dict[str, Any]:
    return {row.stripe_id: row for row in db.session.execute(_STATUSES, {"org": org_id})}


def _note_changes(org_id: UUID, before: dict[str, Any], after: dict[str, Any]) -> None:
    """Tell the journal what has become of subscriptions."""
    notes = []
    for stripe_id, now in after.items():
        was = before.get(stripe_id)
        if was == now:
            continue
        level = "warning" if now.status in ("past_due", "unpaid", "incomplete_expired") else "info"
        fields = {
            "subscription": stripe_id, "plan": now.plan, "status": now.status,
            "previous_status": was.status if was else None, "previous_plan": was.plan if was else None,
            "cancel_at_period_end": now.cancel_at_period_end,
        }  # fmt: skip
        ends = ", ends with its period" if now.cancel_at_period_end and now.status not in OVER else ""
        words = f"subscription to {plans.plan(now.plan).name}: {now.status}{ends}"
        notes.append(journal.Note(org_id, "billing.subscription", words, level, fields=fields))
    journal.note_many(notes)


_IN_FORCE = text("""
SELECT plan FROM subscriptions WHERE org_id = :org AND status = ANY (:usable)
ORDER BY created_at DESC, stripe_id LIMIT 1
""")
_SET_PLAN = text("""
UPDATE organizations SET plan = :plan, updated_at = now() WHERE id = :org AND plan <> :plan AND plan <> ALL (:given)
RETURNING 1
""")


def _put_in_force(org_id: UUID) -> None:
    """The one place where an organization's plan changes. One that is not sold was given by hand, and is kept."""
    subscribed = db.session.scalar(_IN_FORCE, {"org": org_id, "usable": list(USABLE)})
    plan = subscribed or plans.DEFAULT
    given = [] if subscribed else [one.id for one in plans.plans().values() if one.price is None]
    if db.session.scalar(_SET_PLAN, {"org": org_id, "plan": plan, "given": given}):
        journal.note(org_id, "billing.plan", f"the plan is now {plans.plan(plan).name}", plan=plan)
        log.info("plan", org_id=org_id, plan=plan)
