"""Events of Stripe: who may tell them, and that their order and number do not matter."""

import json
import random
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import text

from app import db, jobs, retention
from app.billing import accounts, events
from app.errors import BillingNotConfigured, ValidationFailed
from config.settings import settings
from tests.billing.local import SECRETS, LocalStripe, Organization, deliver, sign
from workers import billing


def event(customer: str | None, kind: str = "customer.subscription.updated", **fields: Any) -> dict[str, Any]:
    about = {"id": "sub_1", "object": "subscription", "customer": customer, "status": "a lie"}
    return {
        "id": f"evt_{uuid4().hex}", "object": "event", "type": kind, "created": int(time.time()),
        "livemode": False, "data": {"object": about}, **fields,
    }  # fmt: skip


def stored(event_id: str) -> list[Any]:
    with db.transaction(system=True) as session:
        return list(session.execute(text("SELECT * FROM stripe_events WHERE id = :id"), {"id": event_id}))


def take(body: bytes, header: str) -> bool:
    with db.transaction():
        return events.take(body, header)


# Who may tell

BODY = json.dumps(event("cus_1"), indent=2).encode()
NOW = int(time.time())


def mac(body: bytes, at: int, secret: str = SECRETS[0]) -> str:
    return sign(body, secret, at).partition("v1=")[2]


BAD: dict[str, Callable[[int], tuple[bytes, str]]] = {
    "no header": lambda now: (BODY, ""),
    "nonsense": lambda now: (BODY, "nonsense"),
    "only a time": lambda now: (BODY, f"t={now}"),
    "only a signature": lambda now: (BODY, f"v1={mac(BODY, now)}"),
    "an empty signature": lambda now: (BODY, f"t={now},v1="),
    "zeros": lambda now: (BODY, f"t={now},v1={'0' * 64}"),
    "another secret": lambda now: (BODY, sign(BODY, "whsec_other", now)),
    "no secret": lambda now: (BODY, f"t={now},v1={mac(BODY, now, ' ')}"),
    "both secrets as one": lambda now: (BODY, sign(BODY, ",".join(SECRETS), now)),
    "another body": lambda now: (BODY.replace(b"cus_1", b"cus_2"), sign(BODY, at=now)),
    "one more byte": lambda now: (BODY + b" ", sign(BODY, at=now)),
    "one byte less": lambda now: (BODY[:-1], sign(BODY, at=now)),
    "the same JSON, written otherwise": lambda now: (json.dumps(json.loads(BODY)).encode(), sign(BODY, at=now)),
    "an empty body": lambda now: (b"", sign(BODY, at=now)),
    "another time": lambda now: (BODY, f"t={now + 1},v1={mac(BODY, now)}"),
    "no number as time": lambda now: (BODY, f"t=now,v1={mac(BODY, now)}"),
    "too old": lambda now: (BODY, sign(BODY, at=now - 302)),
    "too far ahead": lambda now: (BODY, sign(BODY, at=now + 302)),
    "another scheme": lambda now: (BODY, f"t={now},v0={mac(BODY, now)}"),
    "cut short": lambda now: (BODY, sign(BODY, at=now)[:-1]),
    "upper case": lambda now: (BODY, f"t={now},v1={mac(BODY, now).upper()}"),
    "two times, the signed one second": lambda now: (BODY, f"t={now + 1},t={now},v1={mac(BODY, now)}"),
    "two times, the signed one first and old": lambda now: (BODY, f"t={now - 302},t={now},v1={mac(BODY, now - 302)}"),
    "not UTF-8": lambda now: (b"\xff" + BODY, sign(BODY, at=now)),
    "a letter beyond ASCII": lambda now: (BODY, f"t={now},v1={mac(BODY, now)[:-1]}é"),
}


@pytest.mark.parametrize("how", BAD)
def test_a_bad_signature_is_refused(stripe: LocalStripe, how: str) -> None:
    body, header = BAD[how](int(time.time()))
    with pytest.raises(ValidationFailed, match="signature"):
        take(body, header)
    assert stored(json.loads(BODY)["id"]) == []


def test_there_are_enough_bad_signatures() -> None:
    assert len(BAD) >= 20


@pytest.mark.parametrize("secret", SECRETS)
@pytest.mark.parametrize("skew", [-298, 0, 298])
def test_either_secret_is_good_for_300_seconds_around_now(stripe: LocalStripe, secret: str, skew: int) -> None:
    told = event("cus_of_nobody")
    body = json.dumps(told).encode()
    assert take(body, sign(body, secret, time.time() + skew)) is False
    assert len(stored(told["id"])) == 1


def test_one_good_signature_among_others_is_enough(stripe: LocalStripe) -> None:
    """So Stripe signs while it changes a secret by itself."""
    told = event("cus_of_nobody")
    body, now = json.dumps(told).encode(), int(time.time())
    assert take(body, f"t={now},v1={'0' * 64},v1={mac(body, now)},v0=x") is False
    assert len(stored(told["id"])) == 1


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"[]", b"null", b"1", b'"x"', b"{}", b'{"object": "event"}', b'{"object": "event", "id": 1}',
        json.dumps(event("cus_1", object="v2.core.event")).encode(), json.dumps(event("cus_1", data=None)).encode(),
        json.dumps(event("cus_1", data={"object": []})).encode(), json.dumps(event("cus_1", created="x")).encode(),
        json.dumps(event("cus_1", created=10**30)).encode(), json.dumps(event("cus_1", type=None)).encode(),
    ],
)  # fmt: skip
def test_what_is_no_event_is_refused(stripe: LocalStripe, body: bytes) -> None:
    with pytest.raises(ValidationFailed):
        take(body, sign(body))


def test_without_stripe_nobody_listens(monkeypatch: pytest.MonkeyPatch, stripe: LocalStripe) -> None:
    header = sign(BODY)
    monkeypatch.setenv("STRIPE_WEBHOOK_SECRET", "")
    settings.cache_clear()
    with pytest.raises(BillingNotConfigured):
        take(BODY, header)
    monkeypatch.setenv("STRIPE_API_KEY", "")
    settings.cache_clear()
    with pytest.raises(BillingNotConfigured):
        take(BODY, header)


# What comes of it


def test_an_event_is_a_reason_to_look_and_is_not_believed(subscriber: Organization) -> None:
    account = subscriber.account
    told = event(account.customer_id)
    assert deliver(told) is True
    (row,) = stored(told["id"])
    assert (row.org_id, row.source, row.customer_id) == (subscriber.id, "webhook", account.customer_id)
    assert subscriber.account.wanted == account.wanted + 1
    subscriber.work()
    assert subscriber.subscription.status == "active"
    subscriber.stripe.v1.subscriptions.cancel(subscriber.subscription.stripe_id)
    assert deliver(event(account.customer_id, livemode=True)) is True  # of whichever mode the key is
    subscriber.work()
    assert subscriber.subscription.status == "canceled"


def test_the_reason_is_committed_with_the_event_and_the_job_comes_after(
    subscriber: Organization, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[Any] = []
    monkeypatch.setattr(jobs, "send", lambda *job, **_options: sent.append(job))
    told, wanted = event(subscriber.account.customer_id), subscriber.account.wanted
    body = json.dumps(told).encode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(accounts, "want", lambda _org: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            take(body, sign(body))
    assert (sent, stored(told["id"]), subscriber.account.wanted) == ([], [], wanted)
    take(body, sign(body))
    assert sent == [("billing.work", str(subscriber.id))]
    assert (len(stored(told["id"])), subscriber.account.wanted) == (1, wanted + 1)


def test_many_copies_at_once_are_one_event(subscriber: Organization) -> None:
    told, wanted = event(subscriber.account.customer_id), subscriber.account.wanted
    with ThreadPoolExecutor(10) as pool:
        assert sum(pool.map(lambda _: deliver(told), range(30))) == 1
    assert (len(stored(told["id"])), subscriber.account.wanted) == (1, wanted + 1)


def test_any_order_and_any_repeats_end_in_one_state(subscriber: Organization) -> None:
    subscriber.run("subscription.change", plan="enterprise")
    subscriber.run("subscription.cancel", at="period_end")
    subscriber.run("payment_method.add", payment_method_id="pm_card_mastercard", default=True)
    subscriber.run("subscription.cancel", at="now")
    told = subscriber.stripe.events(subscriber.account.customer_id)
    assert len(told) >= 12
    before = subscriber.state()
    for seed in range(10):
        shuffled = random.Random(seed).sample(told * 2, len(told) * 2)
        subscriber.execute("DELETE FROM stripe_events WHERE org_id = :org", org=subscriber.id)
        for table in ("subscriptions", "payment_methods", "invoices"):
            subscriber.execute(f"DELETE FROM {table}")
        taken = 0
        for number, one in enumerate(shuffled):
            taken += deliver(one)
            if number % 9 == seed % 9:
                subscriber.work()
        subscriber.work()
        assert taken == len(told)
        assert subscriber.state() == before


def test_a_customer_that_is_not_ours(stripe: LocalStripe) -> None:
    told = event(f"cus_{uuid4().hex}")
    assert deliver(told) is False
    (row,) = stored(told["id"])
    assert (row.org_id, row.customer_id) == (None, told["data"]["object"]["customer"])
    assert deliver(told) is False


@pytest.mark.parametrize("kind", ["price.updated", "product.created", "balance.available"])
def test_what_is_about_no_customer_is_let_be(stripe: LocalStripe, kind: str) -> None:
    told = event(None, kind)
    assert deliver(told) is False
    assert stored(told["id"]) == []


def test_a_customer_is_told_of_by_his_own_object_and_in_full(subscriber: Organization) -> None:
    customer = subscriber.account.customer_id
    for about in (
        {"object": "customer", "id": customer}, {"object": "invoice", "customer": {"id": customer, "object": "x"}},
    ):  # fmt: skip
        assert deliver(event(None, data={"object": about})) is True


def test_the_deletion_of_a_customer(subscriber: Organization) -> None:
    customer = subscriber.account.customer_id
    subscriber.stripe.v1.customers.delete(customer)
    (told,) = [one for one in subscriber.stripe.events(customer) if one["type"] == "customer.deleted"]
    assert deliver(told) is True
    subscriber.work()
    assert (subscriber.plan, subscriber.subscription.status) == ("free", "canceled")
    assert subscriber.account.customer_deleted_at is not None


# What never came


def test_the_sweep_finds_what_never_came(subscriber: Organization) -> None:
    customer = subscriber.account.customer_id
    told = subscriber.stripe.events(customer)
    deliver(told[-1])
    subscriber.work()
    subscriber.stripe.v1.subscriptions.cancel(subscriber.subscription.stripe_id)
    missed = {one["id"] for one in subscriber.stripe.events(customer)} - {told[-1]["id"]}
    wanted = subscriber.account.wanted
    assert events.sweep() >= len(missed)
    rows = subscriber.rows("SELECT id, source FROM stripe_events WHERE source = 'sweep'")
    assert {row.id for row in rows} == missed
    assert subscriber.account.wanted == wanted + 1
    subscriber.work()
    assert subscriber.plan == "free"
    assert events.sweep() == 0
    assert deliver(told[0]) is False  # it comes after all


def test_a_sweep_goes_through_all_pages_and_is_made_up_for(
    subscriber: Organization, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events.stripe_client, "PAGE", 20)
    sent: list[Any] = []
    monkeypatch.setattr(jobs, "send", lambda *job, **options: sent.append((*job, options.get("delay"))))
    for token in ("pm_card_visa", "pm_card_mastercard") * 4:
        subscriber.run("payment_method.add", payment_method_id=token, default=True)
    subscriber.stripe.fault(503, "/v1/events")
    billing.sweep()
    assert sent[-1] == ("billing.sweep", billing.SWEEP_AGAIN_MILLISECONDS)
    billing.sweep()
    told = subscriber.stripe.events(subscriber.account.customer_id)
    assert {row.id for row in subscriber.rows("SELECT id FROM stripe_events")} == {one["id"] for one in told}
    asked = subscriber.stripe.requests("GET", "/v1/events")
    assert sum("starting_after" in one["params"] for one in asked) >= 1


def test_a_lost_job_is_asked_for_again(subscriber: Organization, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[Any] = []
    monkeypatch.setattr(jobs, "send", lambda *job, **_options: sent.append(job) or False)
    deliver(event(subscriber.account.customer_id))
    sent.clear()
    billing.redrive()
    assert ("billing.work", str(subscriber.id)) in sent
    subscriber.work()
    sent.clear()
    billing.redrive()
    assert ("billing.work", str(subscriber.id)) not in sent


def test_an_event_does_not_cut_a_pause_short(subscriber: Organization) -> None:
    subscriber.stripe.fault(503)
    subscriber.want()
    subscriber.work()
    assert subscriber.account.failures == 1
    deliver(event(subscriber.account.customer_id))
    with db.transaction(system=True):
        assert subscriber.id not in accounts.due()


def test_old_events_are_forgotten(subscriber: Organization) -> None:
    told = event(subscriber.account.customer_id)
    deliver(told)
    aged = "UPDATE stripe_events SET received_at = now() - CAST(:age AS interval)"
    for age, left in (("89 days", 1), ("91 days", 0)):
        subscriber.execute(aged, age=age)
        with db.transaction(system=True):
            retention.clean()
        assert len(stored(told["id"])) == left
