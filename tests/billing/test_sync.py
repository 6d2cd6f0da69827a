"""Our tables say what Stripe says, whatever was told in between."""

import random
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import pytest

from app.billing import accounts, stripe_client, sync
from tests import make
from tests.billing.local import VISA, Organization


def look(owner: Organization) -> None:
    owner.want()
    owner.work()


def test_everything_of_a_customer_is_written(subscriber: Organization) -> None:
    v1, account = subscriber.stripe.v1, subscriber.account
    (there,) = v1.subscriptions.list({"customer": account.customer_id}).data
    item = there["items"].data[0]
    row = subscriber.subscription
    assert (row.stripe_id, row.plan, row.status, row.ended_at) == (there.id, "pro", "active", None)
    assert row.current_period_end == datetime.fromtimestamp(item.current_period_end, UTC)
    card = subscriber.row("SELECT * FROM payment_methods")
    assert (card.type, card.brand, card.last4, card.is_default) == ("card", "visa", "4242", True)
    invoice = subscriber.row("SELECT * FROM invoices")
    (billed,) = v1.invoices.list({"customer": account.customer_id}).data
    assert (invoice.number, invoice.status, invoice.currency) == (billed.number, "paid", "eur")
    assert (invoice.subtotal, invoice.tax, invoice.total) == (4900, 0, 4900)
    assert (invoice.amount_paid, invoice.amount_due) == (4900, 0)
    assert [(line["quantity"], line["amount"]) for line in invoice.lines] == [(1, 4900)]
    assert "Pro" in invoice.lines[0]["description"]


def test_what_stripe_did_by_itself_is_seen_with_the_next_look(subscriber: Organization) -> None:
    v1, account = subscriber.stripe.v1, subscriber.account
    own = subscriber.subscription
    v1.subscriptions.update(own.stripe_id, {"cancel_at_period_end": True})
    other = v1.payment_methods.attach("pm_card_mastercard", {"customer": account.customer_id})
    v1.payment_methods.detach(subscriber.row("SELECT stripe_id FROM payment_methods").stripe_id)
    look(subscriber)
    assert subscriber.subscription.cancel_at_period_end
    assert subscriber.row("SELECT stripe_id FROM payment_methods").stripe_id == other.id
    v1.subscriptions.cancel(own.stripe_id)
    look(subscriber)
    assert (subscriber.subscription.id, subscriber.subscription.status, subscriber.plan) == (own.id, "canceled", "free")
    assert subscriber.subscription.ended_at is not None


def test_a_look_that_finds_nothing_new_writes_no_row(subscriber: Organization) -> None:
    versions = " UNION ALL ".join(
        f"SELECT xmin::text AS v, ctid::text AS at FROM {table}"
        for table in ("subscriptions", "payment_methods", "invoices")
    )
    before = subscriber.rows(versions)
    look(subscriber)
    assert subscriber.rows(versions) == before
    assert subscriber.account.synced == subscriber.account.wanted


def test_a_customer_who_is_deleted_at_stripe(subscriber: Organization) -> None:
    v1, old = subscriber.stripe.v1, subscriber.account
    v1.customers.delete(old.customer_id)
    look(subscriber)
    account = subscriber.account
    assert account.customer_deleted_at is not None
    assert (subscriber.plan, subscriber.subscription.status) == ("free", "canceled")
    assert subscriber.rows("SELECT FROM payment_methods") == []
    assert len(subscriber.rows("SELECT FROM invoices")) == 1
    subscriber.stripe.quiet()
    look(subscriber)
    assert (subscriber.account.customer_deleted_at, subscriber.stripe.requests()) == (account.customer_deleted_at, [])
    subscriber.run("subscription.create", **VISA)  # he comes back, as another
    account = subscriber.account
    assert (account.generation, account.customer_deleted_at) == (old.generation + 1, None)
    assert account.customer_id != old.customer_id
    assert (subscriber.plan, len(subscriber.rows("SELECT FROM invoices"))) == ("pro", 2)


def test_a_price_that_is_none_of_ours(subscriber: Organization) -> None:
    v1 = subscriber.stripe.v1
    product = v1.products.create({"name": "Old Pro"})
    price = v1.prices.create(
        {"product": product.id, "currency": "eur", "unit_amount": 900, "recurring": {"interval": "month"}}
    )
    (there,) = v1.subscriptions.list({"customer": subscriber.account.customer_id}).data
    params: Any = {"items": [{"id": there["items"].data[0].id, "price": price.id}], "proration_behavior": "none"}
    v1.subscriptions.update(there.id, {**params, "metadata": {"plan": "enterprise"}})
    look(subscriber)
    assert (subscriber.plan, subscriber.subscription.plan) == ("enterprise", "enterprise")  # as it was sold
    v1.subscriptions.update(there.id, {"metadata": {"plan": "sold no more"}})
    look(subscriber)
    assert (subscriber.plan, subscriber.subscription.status) == ("free", "active")


def test_a_plan_that_was_given_by_hand_stays(owner: Organization, monkeypatch: pytest.MonkeyPatch) -> None:
    given = {**sync.plans.plans()}
    given["partner"] = type(given["free"])(**{**vars(given["free"]), "id": "partner", "price": None})
    monkeypatch.setattr(sync.plans, "plans", lambda: given)
    owner.execute("UPDATE organizations SET plan = 'partner'")
    owner.run("payment_method.add", payment_method_id="pm_card_visa", default=True)
    assert owner.plan == "partner"
    owner.run("subscription.create", **VISA)
    assert owner.plan == "pro"


@pytest.mark.parametrize(
    ("status", "plan"),
    [
        ("trialing", "pro"), ("active", "pro"), ("past_due", "pro"), ("canceled", "free"), ("unpaid", "free"),
        ("incomplete", "free"), ("incomplete_expired", "free"), ("paused", "free"),
    ],
)  # fmt: skip
def test_the_plan_in_force(subscriber: Organization, status: str, plan: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real = stripe_client.subscriptions
    monkeypatch.setattr(
        stripe_client, "subscriptions", lambda customer: [{**one, "status": status} for one in real(customer)]
    )
    look(subscriber)
    assert (subscriber.plan, subscriber.subscription.status) == (plan, status)


def test_the_journal_tells_of_changes_once(subscriber: Organization) -> None:
    subscriber.run("subscription.change", plan="enterprise")
    look(subscriber)
    subscriber.run("subscription.cancel", at="now")
    look(subscriber)
    told = [
        row.message for row in
        subscriber.rows("SELECT message FROM log_entries WHERE source = 'platform' ORDER BY time, id")
    ]  # fmt: skip
    assert told == [
        "subscription to Pro: active", "the plan is now Pro", "subscription to Enterprise: active",
        "the plan is now Enterprise", "subscription to Enterprise: canceled", "the plan is now Free",
    ]  # fmt: skip


def test_a_long_history_comes_in_pages(subscriber: Organization, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stripe_client, "PAGE", 1)
    for token in ("pm_card_mastercard", "pm_card_visa"):
        subscriber.run("payment_method.add", payment_method_id=token, default=False)
    subscriber.run("subscription.cancel", at="now")
    subscriber.run("subscription.create", plan="enterprise", trial=False)
    counts = [len(subscriber.rows(f"SELECT FROM {t}")) for t in ("payment_methods", "subscriptions", "invoices")]
    assert counts == [3, 2, 2]


def test_a_look_that_was_overtaken_does_not_bring_the_past_back(subscriber: Organization) -> None:
    """The slower of two workers has seen less; it is he who writes last, if nothing hinders him."""
    subscriber.want()
    with sync.db.transaction(subscriber.id):
        slow = accounts.claim(subscriber.id)
    assert slow is not None
    seen = sync.fetch(slow)
    subscriber.stripe.v1.subscriptions.cancel(subscriber.subscription.stripe_id)
    subscriber.due_now()
    look(subscriber)
    after = subscriber.state()
    assert after["plan"] == "free"
    sync._finish(slow, [], seen, None)
    assert subscriber.state() == after


def test_looks_at_the_same_time_are_one_after_the_other(subscriber: Organization) -> None:
    under_way, most = 0, 0
    real = sync.fetch

    def fetch(claimed: accounts.Claimed) -> sync.State:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        time.sleep(0.02)
        try:
            return real(claimed)
        finally:
            under_way -= 1

    def want_and_work(_number: int) -> None:
        look(subscriber)

    with pytest.MonkeyPatch.context() as patch, ThreadPoolExecutor(8) as pool:
        patch.setattr(sync, "fetch", fetch)
        list(pool.map(want_and_work, range(16)))
    account = subscriber.account
    assert (most, account.synced) == (1, account.wanted)
    assert account.attempt < 1 + 17  # reasons that come together are looked into together


def test_a_reason_that_comes_during_a_look_is_looked_into_after_it(subscriber: Organization) -> None:
    real = sync.fetch

    def fetch(claimed: accounts.Claimed) -> sync.State:
        state = real(claimed)
        if claimed.attempt == first:
            subscriber.stripe.v1.subscriptions.cancel(subscriber.subscription.stripe_id)
            subscriber.want()
        return state

    first = subscriber.account.attempt + 1
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sync, "fetch", fetch)
        look(subscriber)
    assert (subscriber.account.attempt, subscriber.plan) == (first + 1, "free")


def test_a_look_that_fails_by_a_fault_of_ours_is_put_off_and_told(subscriber: Organization) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sync, "plan_of", lambda _one: 1 / 0)
        look(subscriber)
    account = subscriber.account
    assert (account.failures, account.error) == (1, "ZeroDivisionError")
    assert account.wanted > account.synced
    assert subscriber.plan == "pro"


def test_an_account_of_another_stripe_is_left_as_it_is(subscriber: Organization) -> None:
    """Somebody gave the wrong key: no customer is there. Nobody loses his plan by that."""
    subscriber.execute("UPDATE billing_accounts SET customer_id = :other", other=f"cus_{random.randbytes(8).hex()}")
    look(subscriber)
    assert (subscriber.plan, subscriber.account.failures) == ("pro", 1)
    assert "No such customer" in subscriber.account.error


def test_one_organizations_look_leaves_others_alone(subscriber: Organization) -> None:
    other = Organization(make.organization(), subscriber.stripe)
    other.run("subscription.create", **{**VISA, "plan": "enterprise"})
    before = other.state()
    subscriber.run("subscription.cancel", at="now")
    assert other.state() == before
