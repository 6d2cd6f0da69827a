"""Time: what falls due under a clock, one thing after the other in its order."""

from tools.local_stripe.account import Account
from tools.local_stripe.billing import invoices, lifecycle
from tools.local_stripe.periods import current_period
from tools.local_stripe.store import Obj


def run(account: Account, clock: str | None, until: int) -> int:
    """Do all that is due by ``until``, each thing at its own time and committed; returns how much that was."""
    done = 0
    while (obj := account.store.next_due(clock, until)) is not None:
        if clock:
            _at(account, clock, obj)
        _happen(account, obj, account.now(clock))
        account.store.commit()
        done += 1
    return done


def _at(account: Account, clock: str, obj: Obj) -> None:
    moment = account.store.due_of(obj["id"])
    found = account.get("test_helpers.test_clock", clock)
    account.save({**found, "_now": max(found["_now"], moment)})


def _happen(account: Account, obj: Obj, now: int) -> None:
    if obj["object"] == "subscription":
        _subscription(account, obj, now)
    elif obj["object"] == "invoice":
        _invoice(account, obj)
    elif obj["object"] == "checkout.session":
        account.save({**obj, "status": "expired", "url": None})
        account.emit("checkout.session.expired", {**obj, "status": "expired", "url": None})


def _invoice(account: Account, invoice: Obj) -> None:
    if invoice["status"] == "draft":
        invoices.finalize(account, invoice)
    outcome = lifecycle.collect(account, invoice, invoices.method(account, invoice))
    lifecycle.retried(account, invoice, outcome)


def _subscription(account: Account, subscription: Obj, now: int) -> None:
    change = subscription["pending_update"]
    if subscription["status"] == "incomplete":
        lifecycle.expire(account, subscription)
    elif subscription["cancel_at"] is not None and subscription["cancel_at"] <= now:
        lifecycle.end(account, subscription, "cancellation_requested")
    elif change and change["expires_at"] <= now:
        invoices.void(account, account.get("invoice", subscription["_pending_invoice"]))
        account.update(subscription, lifecycle.UPDATED, pending_update=None)
    elif subscription["status"] == "trialing" and subscription["trial_end"] <= now:
        lifecycle.trial_over(account, subscription)
    elif current_period(subscription)[1] <= now:
        lifecycle.renew(account, subscription)
    else:
        lifecycle.warn(account, subscription)
