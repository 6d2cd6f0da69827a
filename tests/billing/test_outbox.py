"""What is to be done at Stripe is done once, whoever dies on the way, and whoever waits is told what became of it."""

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID

import pytest

from app import db, retention
from app.billing import accounts, operations, performers, stripe_client, sync
from app.billing.accounts import Overtaken
from app.billing.stripe_client import StripeDown
from app.errors import BillingNotConfigured, Conflict, NotFound, PaymentFailed, ServiceUnavailable, ValidationFailed
from config.settings import settings
from tests import make
from tests.billing.deaths import Died, die_everywhere, dying
from tests.billing.local import KEY, VISA, Organization


def at_stripe(owner: Organization) -> dict[str, list[Any]]:
    """What there is at Stripe, of every customer that was ever made for an organization."""
    v1 = owner.stripe.v1
    customers = [
        one for one in v1.customers.list({"limit": 100}).auto_paging_iter()
        if one.metadata.to_dict().get("org_id") == str(owner.id)
    ]  # fmt: skip
    return {
        "customers": customers,
        "subscriptions": [s for c in customers for s in v1.subscriptions.list({"customer": c.id, "status": "all"})],
        "methods": [m for c in customers for m in v1.payment_methods.list({"customer": c.id})],
        "invoices": [i for c in customers for i in v1.invoices.list({"customer": c.id})],
    }


# Deaths


def test_a_subscription_is_made_and_paid_once_however_often_workers_die(owner: Organization) -> None:
    operation_id = owner.submit("subscription.create", **VISA)
    deaths = die_everywhere(owner.work, owner.due_now)
    assert deaths == 18  # at each of its calls and of the look's, on either side
    assert owner.wait(operation_id)["status"] == "active"
    there = at_stripe(owner)
    assert {kind: len(found) for kind, found in there.items()} == {
        "customers": 1, "subscriptions": 1, "methods": 1, "invoices": 1,
    }  # fmt: skip
    assert (there["invoices"][0].amount_paid, owner.plan) == (4900, "pro")


@pytest.mark.parametrize(
    ("kind", "payload"),
    [
        ("subscription.change", {"plan": "enterprise"}),
        ("subscription.cancel", {"at": "period_end"}),
        ("subscription.cancel", {"at": "now"}),
        ("payment_method.add", {"payment_method_id": "pm_card_mastercard", "default": True}),
        ("checkout.create", {"plan": "pro", "success_url": "https://a.example/y", "cancel_url": "https://a.example/n"}),
        ("portal.create", {"return_url": "https://a.example/"}),
    ],
)
def test_any_operation_survives_deaths_everywhere(subscriber: Organization, kind: str, payload: dict[str, Any]) -> None:
    if kind == "checkout.create":
        subscriber.run("subscription.cancel", at="now")
        subscriber.stripe.quiet()
    operation_id = subscriber.submit(kind, **payload)
    assert die_everywhere(subscriber.work, subscriber.due_now) >= 8
    subscriber.wait(operation_id)
    there = at_stripe(subscriber)
    assert len(there["customers"]) == len(there["subscriptions"]) == 1
    keys = [one["idempotency_key"] or "" for one in subscriber.stripe.requests("POST")]
    assert all(key.startswith(str(operation_id)) for key in keys)
    expected: dict[str, Any] = {
        "subscription.change": ("enterprise", "active", False, 1),
        "subscription.cancel": ("pro", "active", True, 1) if payload.get("at") == "period_end" else
        ("free", "canceled", False, 1),
        "payment_method.add": ("pro", "active", False, 2),
        "checkout.create": ("free", "canceled", False, 1),
        "portal.create": ("pro", "active", False, 1),
    }  # fmt: skip
    row = subscriber.subscription
    assert (subscriber.plan, row.status, row.cancel_at_period_end, len(there["methods"])) == expected[kind]


def test_a_worker_that_dies_before_it_writes_is_followed_by_one_that_does(owner: Organization) -> None:
    operation_id = owner.submit("subscription.create", **VISA)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(performers, "write", die)
        with pytest.raises(Died):
            owner.work()
    assert owner.rows("SELECT FROM subscriptions") == []  # what was seen and what was done are told together
    owner.work()  # its lease holds
    assert owner.rows("SELECT FROM subscriptions") == []
    owner.due_now()
    owner.work()
    assert owner.wait(operation_id)["status"] == "active"
    assert len(at_stripe(owner)["subscriptions"]) == 1


def die(*_args: object) -> None:
    raise Died


def test_a_dead_workers_account_is_due_when_its_lease_ends(owner: Organization) -> None:
    owner.submit("subscription.create", **VISA)
    with pytest.raises(Died), dying(2, after=True):
        owner.work()
    assert owner.id not in due()
    left = owner.row("SELECT extract(epoch FROM lease_until - now()) AS seconds FROM billing_accounts").seconds
    assert 20 < left <= accounts.LEASE_SECONDS
    owner.due_now()
    assert owner.id in due()


def due() -> list[UUID]:
    with db.transaction(system=True):
        return accounts.due()


# Who was overtaken


def test_a_worker_that_stood_still_writes_nothing_and_asks_nothing(owner: Organization) -> None:
    owner.submit("subscription.create", **VISA)
    with db.transaction(owner.id):
        stale = accounts.claim(owner.id)
    assert stale is not None
    owner.due_now()
    owner.work()
    after, account = owner.state(), owner.account
    owner.stripe.quiet()
    lie = sync.State(deleted=True)
    sync._finish(stale, [performers.Outcome(stale.operations[0], "failed", error=PaymentFailed("a lie"))], lie, None)
    sync._finish(stale, [], None, "a lie")
    sync.carry_on(stale)
    assert owner.stripe.requests() == []
    assert (owner.state(), owner.account) == (after, account)
    for write in (accounts.renew, lambda one: accounts.keep_customer(one, "cus_lie")):
        with pytest.raises(Overtaken):
            write(stale)
    assert owner.row("SELECT state FROM billing_operations").state == "done"


def test_one_worker_at_a_time_has_an_account(owner: Organization) -> None:
    owner.submit("subscription.create", **VISA)

    def claim(_number: int) -> bool:
        with db.transaction(owner.id):
            return accounts.claim(owner.id) is not None

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(claim, range(16))) == 1


# Stripe is away


@pytest.mark.parametrize("status", [500, 503, 429, 409, 0])
@pytest.mark.parametrize("after_effect", [False, True])
def test_what_stripe_does_not_take_is_tried_again_later(owner: Organization, status: int, after_effect: bool) -> None:
    owner.stripe.fault(status, "/v1/subscriptions", method="POST", after_effect=after_effect)
    operation_id = owner.submit("subscription.create", **VISA)
    owner.work()
    account = owner.account
    assert (account.failures, account.lease_until) == (1, None)
    if status:  # of a connection that was cut nobody knows
        assert owner.plan == ("pro" if after_effect else "free")
    with pytest.raises(ServiceUnavailable) as pending:
        owner.wait(operation_id)
    assert pending.value.extra["outcome"] == "pending"
    owner.due_now()
    owner.work()
    assert owner.wait(operation_id)["status"] == "active"
    assert (owner.account.failures, len(at_stripe(owner)["subscriptions"])) == (0, 1)


def test_pauses_grow(owner: Organization) -> None:
    owner.stripe.fault(503, times=100)
    owner.submit("subscription.create", **VISA)
    pauses = []
    for _ in range(12):
        owner.due_now()
        owner.work()
        seconds = "extract(epoch FROM next_attempt_at - now())"
        pauses.append(owner.row(f"SELECT {seconds} AS s FROM billing_accounts").s)
    wanted = [min(2 * 2**failures, 900) for failures in range(12)]
    assert all(0.7 * want < pause <= 1.25 * want for pause, want in zip(pauses, wanted, strict=True)), pauses
    assert len(owner.stripe.requests()) == 12  # nothing is asked for in between


def test_an_answer_waits_for_the_look_that_shows_it(owner: Organization) -> None:
    """Else whoever is told would read what was before."""
    owner.stripe.fault(500, "/v1/invoices", method="GET", times=2)
    operation_id = owner.submit("payment_method.add", payment_method_id="pm_card_visa", default=True)
    for _ in range(2):
        owner.due_now()
        owner.work()
        assert owner.row("SELECT state FROM billing_operations").state == "queued"
    owner.due_now()
    owner.work()
    assert owner.wait(operation_id)["stripe_id"] == owner.row("SELECT stripe_id FROM payment_methods").stripe_id


def test_whoever_asks_now_does_not_wait_for_a_pause(owner: Organization) -> None:
    owner.stripe.fault(503)
    owner.submit("payment_method.add", payment_method_id="pm_card_visa", default=True)
    owner.work()
    assert owner.account.failures == 1
    owner.run("payment_method.add", payment_method_id="pm_card_mastercard", default=False)
    assert len(owner.rows("SELECT FROM payment_methods")) == 2


def test_a_failure_that_stripe_keeps_under_a_key_is_not_asked_for_again(owner: Organization) -> None:
    real, keys = stripe_client.create_subscription, []

    def broken(params: Any, *, key: str) -> Any:
        keys.append(key)
        if len(keys) < 3:
            raise StripeDown("stored under the key", spoiled=True)
        return real(params, key=key)

    operation_id = owner.submit("subscription.create", **VISA)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stripe_client, "create_subscription", broken)
        for _ in range(3):
            owner.due_now()
            owner.work()
    assert keys == [f"{operation_id}:create", f"{operation_id}:create:1", f"{operation_id}:create:2"]
    assert owner.wait(operation_id)["status"] == "active"


def test_after_a_day_nothing_is_tried_blindly(owner: Organization) -> None:
    operation_id = owner.submit("subscription.create", **VISA)
    owner.execute("UPDATE billing_operations SET created_at = now() - interval '23 h 1 min'")
    owner.work()
    with pytest.raises(ServiceUnavailable) as expired:
        owner.wait(operation_id)
    assert expired.value.extra["outcome"] == "expired"
    assert owner.stripe.requests("POST") == []


def test_a_performer_with_a_fault_lets_others_go_on(owner: Organization) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(performers.KINDS, "portal.create", lambda _work: {}["a fault of ours"])
        broken = owner.submit("portal.create", return_url="https://a.example/")
        other = owner.submit("payment_method.add", payment_method_id="pm_card_visa", default=True)
        for _ in range(performers.TRIES_OF_A_FAULT):
            owner.due_now()
            owner.work()
    with pytest.raises(ServiceUnavailable, match="could not be carried out"):
        owner.wait(broken)
    assert owner.wait(other)["stripe_id"].startswith("pm_")


# Who asks, and who waits


def test_changes_of_a_subscription_do_not_overlap(owner: Organization) -> None:
    def submit(_number: int) -> bool:
        try:
            owner.submit("subscription.create", **VISA)
        except Conflict:
            return False
        return True

    with ThreadPoolExecutor(10) as pool:
        assert sum(pool.map(submit, range(20))) == 1
    owner.submit("payment_method.add", payment_method_id="pm_card_visa", default=False)  # is none
    owner.work()
    assert len(at_stripe(owner)["subscriptions"]) == 1
    with pytest.raises(Conflict, match="a subscription already"):
        owner.run("subscription.create", **VISA)


def test_a_waiting_request_is_woken_by_the_worker(owner: Organization) -> None:
    operation_id = owner.submit("subscription.create", **VISA)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(owner.wait, operation_id, 20)
        time.sleep(0.3)
        owner.work()
        ended = time.monotonic()
        assert waiting.result(20)["status"] == "active"
        assert time.monotonic() - ended < 2


def test_nobody_waits_for_an_operation_of_others(owner: Organization) -> None:
    operation_id = owner.submit("subscription.create", **VISA)
    with pytest.raises(NotFound), db.transaction(make.organization()) as session:
        operations.wait(session.info["org_id"], operation_id, 1)


def test_links_are_sealed_at_rest(subscriber: Organization) -> None:
    result = subscriber.run("portal.create", return_url="https://a.example/")
    assert result["url"].startswith(subscriber.stripe.base)
    dump = subscriber.rows("SELECT o::text AS row FROM billing_operations o")
    assert [one.row for one in dump if "portal.create" in one.row] != []
    assert all(subscriber.stripe.base not in one.row for one in dump)


@pytest.mark.parametrize("variable", [{"STRIPE_API_KEY": ""}, {"EDGEFLOW_BILLING": "off"}])
def test_without_somebody_to_pay_nothing_is_done(
    owner: Organization, variable: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    owner.submit("subscription.create", **VISA)
    for name, value in variable.items():
        monkeypatch.setenv(name, value)
    settings.cache_clear()
    with pytest.raises(BillingNotConfigured):
        owner.submit("portal.create", return_url="https://a.example/")
    with pytest.raises(BillingNotConfigured):
        stripe_client.customer("cus_1")
    assert owner.id not in due()
    owner.work()
    assert (owner.stripe.requests(), owner.account.attempt) == ([], 0)


def test_what_is_long_done_is_forgotten(subscriber: Organization) -> None:
    aged = "UPDATE billing_operations SET finished_at = now() - interval '{}'"
    for age, left in (("29 days", 1), ("31 days", 0)):
        subscriber.execute(aged.format(age))
        with db.transaction(system=True):
            retention.clean()
        assert len(subscriber.rows("SELECT FROM billing_operations")) == left


# What Stripe answers


def test_a_declined_card_leaves_no_subscription(owner: Organization) -> None:
    with pytest.raises(PaymentFailed) as failed:
        owner.run("subscription.create", **{**VISA, "payment_method_id": "pm_card_chargeCustomerFail"})
    assert failed.value.body()["decline_code"] == "generic_decline"
    assert at_stripe(owner)["subscriptions"] == []
    (noted,) = owner.rows("SELECT kind, level FROM log_entries WHERE source = 'platform'")
    assert tuple(noted) == ("billing.payment_failed", 2)


@pytest.mark.parametrize(
    ("token", "code"),
    [("pm_card_chargeDeclined", "generic_decline"), ("pm_card_chargeDeclinedInsufficientFunds", "insufficient_funds")],
)
def test_a_card_that_the_bank_refuses_is_not_added(owner: Organization, token: str, code: str) -> None:
    with pytest.raises(PaymentFailed) as failed:
        owner.run("payment_method.add", payment_method_id=token, default=True)
    assert failed.value.extra["decline_code"] == code
    assert owner.rows("SELECT FROM payment_methods") == []


def test_a_card_that_there_is_not(owner: Organization) -> None:
    with pytest.raises(ValidationFailed) as failed:
        owner.run("payment_method.add", payment_method_id="pm_1Nobody", default=True)
    assert "payment_method_id" in failed.value.extra["details"]


def test_a_card_that_wants_its_holder(owner: Organization) -> None:
    result = owner.run("subscription.create", **{**VISA, "payment_method_id": "pm_card_threeDSecure2Required"})
    assert result["status"] == owner.subscription.status == "incomplete"
    secret = operations.unseal(owner.subscription.client_secret).decode()
    assert secret.startswith("pi_")
    assert "_secret_" in secret
    assert owner.plan == "free"
    again = owner.run("subscription.create", **VISA)  # with another card: the first attempt is dropped
    assert (again["status"], owner.plan) == ("active", "pro")
    assert sorted(row.status for row in owner.rows("SELECT status FROM subscriptions"))[0] == "active"
    assert owner.rows("SELECT FROM subscriptions WHERE client_secret IS NOT NULL") == []


def test_without_a_card_there_is_only_a_trial_and_only_once(owner: Organization) -> None:
    with pytest.raises(PaymentFailed, match="no payment method"):
        owner.run("subscription.create", plan="pro", trial=False)
    assert owner.run("subscription.create", plan="pro", trial=True)["status"] == "trialing"
    row = owner.subscription
    assert (owner.plan, (row.trial_end - row.created_at).days) == ("pro", 14)
    owner.run("subscription.cancel", at="now")
    assert owner.plan == "free"
    with pytest.raises(Conflict, match="has had its trial"):
        owner.run("subscription.create", plan="enterprise", trial=True)
    with pytest.raises(ValidationFailed):
        owner.run("subscription.create", plan="free", trial=False)


def test_change_cancel_resume(subscriber: Organization) -> None:
    subscriber.run("subscription.change", plan="enterprise")
    assert (subscriber.plan, subscriber.subscription.plan) == ("enterprise", "enterprise")
    subscriber.run("subscription.cancel", at="period_end")
    assert (subscriber.plan, subscriber.subscription.cancel_at_period_end) == ("enterprise", True)
    subscriber.run("subscription.resume")
    assert not subscriber.subscription.cancel_at_period_end
    subscriber.run("subscription.cancel", at="now")
    assert (subscriber.plan, subscriber.subscription.status) == ("free", "canceled")
    for kind, payload in (("subscription.cancel", {"at": "now"}), ("subscription.change", {"plan": "pro"})):
        with pytest.raises(NotFound):
            subscriber.run(kind, **payload)


def test_payment_methods(subscriber: Organization) -> None:
    (visa,) = subscriber.rows("SELECT stripe_id, is_default FROM payment_methods")
    assert visa.is_default
    with pytest.raises(Conflict, match="paid with it"):
        subscriber.run("payment_method.remove", stripe_id=visa.stripe_id)
    master = subscriber.run("payment_method.add", payment_method_id="pm_card_mastercard", default=False)["stripe_id"]
    assert default_of(subscriber) == visa.stripe_id
    subscriber.run("payment_method.default", stripe_id=master)
    assert default_of(subscriber) == master
    subscriber.run("payment_method.remove", stripe_id=master)  # the other one takes its place
    assert default_of(subscriber) == visa.stripe_id
    subscriber.run("subscription.cancel", at="now")
    subscriber.run("payment_method.remove", stripe_id=visa.stripe_id)
    assert subscriber.rows("SELECT FROM payment_methods") == []
    with pytest.raises(NotFound):
        subscriber.run("payment_method.default", stripe_id=visa.stripe_id)


def default_of(owner: Organization) -> str:
    return str(owner.row("SELECT stripe_id FROM payment_methods WHERE is_default").stripe_id)


def test_a_card_of_another_customer_stays_his(subscriber: Organization) -> None:
    (visa,) = subscriber.rows("SELECT stripe_id FROM payment_methods")
    other = Organization(make.organization(), subscriber.stripe)
    with pytest.raises(Conflict, match="already been attached"):
        other.run("payment_method.add", payment_method_id=visa.stripe_id, default=True)
    subscriber.want()
    subscriber.work()
    assert default_of(subscriber) == visa.stripe_id


# Usage


def store_hour(owner: Organization, hours_ago: int) -> str:
    hour = f"date_trunc('hour', now()) - interval '{hours_ago} hours'"
    owner.execute(
        "INSERT INTO usage_hours (org_id, hour, device_seconds, commands, deployments, points) "
        f"VALUES (:org, {hour}, 7200, 3, 0, 1000)",
        org=owner.id,
    )
    return str(owner.row(f"SELECT {hour} AS hour").hour.isoformat())


def test_usage_is_told_once(subscriber: Organization) -> None:
    hour = store_hour(subscriber, 30)
    operation_id = subscriber.submit("meter.report", hour=hour)
    subscriber.execute("UPDATE billing_operations SET created_at = now() - interval '2 days' WHERE state = 'queued'")
    die_everywhere(subscriber.work, subscriber.due_now)
    told = {"edgeflow_device_seconds": 7200, "edgeflow_commands": 3, "edgeflow_points": 1000}
    assert subscriber.wait(operation_id)["reported"] == told  # nothing is told of what was not used
    assert subscriber.row("SELECT reported_at FROM usage_hours").reported_at is not None
    # The keys are forgotten, the identifiers are not.
    subscriber.execute("UPDATE usage_hours SET reported_at = NULL")
    subscriber.run("meter.report", hour=hour)
    sums = {}
    for meter in subscriber.stripe.v1.billing.meters.list({"limit": 100}):
        params = {"customer": subscriber.account.customer_id, "start_time": 0, "end_time": 4_000_000_020}
        found = subscriber.stripe.v1.billing.meters.event_summaries.list(meter.id, params)
        sums[meter.event_name] = sum(one.aggregated_value for one in found)
    assert {name: total for name, total in sums.items() if total} == told


def test_who_is_no_customer_is_not_made_one_by_using(owner: Organization) -> None:
    hour = store_hour(owner, 3)
    assert owner.run("meter.report", hour=hour) == {"reported": {}}
    assert owner.row("SELECT reported_at FROM usage_hours").reported_at is not None
    assert owner.stripe.requests() == []


def test_reports_let_people_go_first(subscriber: Organization) -> None:
    subscriber.submit("meter.report", hour=store_hour(subscriber, 3))
    subscriber.submit("portal.create", return_url="https://a.example/")
    subscriber.work()
    paths = [one["path"] for one in subscriber.stripe.requests("POST")]
    assert paths[0] == "/v1/billing_portal/sessions"
    assert set(paths[1:]) == {"/v1/billing/meter_events"}


def test_an_operation_that_waits_is_carried_by_the_redrive(owner: Organization) -> None:
    """Its job was lost: the account itself tells that there is something to do."""
    owner.submit("portal.create", return_url="https://a.example/")
    assert owner.id in due()
    owner.work()
    assert owner.id not in due()


def test_a_long_queue_is_worked_off_in_portions(owner: Organization, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accounts, "OPERATIONS_AT_ONCE", 2)
    links = [owner.submit("portal.create", return_url=f"https://a.example/{number}") for number in range(5)]
    owner.work()
    assert len({owner.wait(link)["url"] for link in links}) == 5
    assert owner.account.attempt == 3
    assert owner.account.synced == owner.account.wanted


def test_a_key_that_stripe_does_not_accept_fails_nobody(owner: Organization, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STRIPE_API_KEY", "sk_test_withdrawn")
    settings.cache_clear()
    operation_id = owner.submit("subscription.create", **VISA)
    owner.work()
    assert (owner.account.failures, owner.account.error) == (1, "Stripe does not accept the key")
    monkeypatch.setenv("STRIPE_API_KEY", KEY)
    settings.cache_clear()
    owner.due_now()
    owner.work()
    assert owner.wait(operation_id)["status"] == "active"
