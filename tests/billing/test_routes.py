"""The subscription over the API, in the order in which somebody meets it."""

import threading
from datetime import datetime
from typing import Any
from urllib.parse import unquote_plus

import pytest

from app import db
from app.billing import operations, stripe_client, subscription
from config.settings import settings
from tests.billing.helpers_routes import CONFIRMED, DECLINED, GOOD, Buyer, until, worker
from tests.billing.local import LocalStripe

SUBSCRIPTION = "/billing/subscription"
BODY = {"plan": "pro", "payment_method_id": GOOD}


def test_plans_tell_what_they_cost_and_allow(buyer: Buyer) -> None:
    free, pro, _enterprise = buyer.get("/billing/plans", expect=200)["items"]
    assert (free["id"], free["price"], free["currency"]) == ("free", 0, None)
    assert free["quotas"]["devices"] >= 50
    assert (pro["price"], pro["currency"], pro["interval"], pro["trial_days"]) == (4900, "eur", "month", 14)
    assert pro["quotas"].keys() == free["quotas"].keys() >= {"devices", "retention_days"}


def test_whoever_never_subscribed_has_no_subscription(buyer: Buyer) -> None:
    assert buyer.get(SUBSCRIPTION, expect=404)["error"] == "subscription not found"
    assert buyer.put(SUBSCRIPTION, {"plan": "pro"}, expect=404)["code"] == "NOT_FOUND"
    assert buyer.delete(SUBSCRIPTION, expect=404)["code"] == "NOT_FOUND"
    assert buyer.post(f"{SUBSCRIPTION}/resume", expect=404)["code"] == "NOT_FOUND"
    assert buyer.get("/billing/quotas", expect=200)["plan"] == "free"
    assert buyer.rows("SELECT 1 FROM billing_operations") == []


@pytest.mark.parametrize(
    ("body", "field", "words"),
    [
        ({"plan": "gold"}, "plan", "Must be one of: pro, enterprise."),
        ({"plan": "free"}, "plan", "Not sold. DELETE /billing/subscription cancels."),
        ({"plan": "pro"}, "payment_method_id", "There is no payment method yet: give one, or begin with the trial."),
        ({"plan": "pro", "payment_method_id": "visa"}, "payment_method_id",
         "Must be Stripe's id of a payment method: pm_…"),
        ({}, "plan", "Missing data for required field."),
    ],
)  # fmt: skip
def test_what_cannot_be_subscribed_to(buyer: Buyer, body: Any, field: str, words: str) -> None:
    assert buyer.post(SUBSCRIPTION, body, expect=400)["details"] == {field: [words]}


def test_subscribing_with_a_card(buyer: Buyer) -> None:
    answer = buyer.post(SUBSCRIPTION, {"plan": "pro", "payment_method_id": GOOD})
    assert (answer.status_code, answer.headers["Location"]) == (201, "/api/v1/billing/subscription")
    made = answer.json
    assert (made["plan"], made["status"], made["requires_action"]) == ("pro", "active", False)
    assert "client_secret" not in made
    days = datetime.fromisoformat(made["current_period_end"]) - datetime.fromisoformat(made["current_period_start"])
    assert 28 <= days.days <= 31
    assert buyer.get(SUBSCRIPTION, expect=200) == made
    assert buyer.get("/billing/quotas", expect=200)["plan"] == "pro"
    again = buyer.post(SUBSCRIPTION, {"plan": "enterprise", "payment_method_id": GOOD}, expect=409)
    assert (again["code"], again["current_state"], again["allowed_actions"]) == (
        "INVALID_STATE", "active", ["change", "cancel"],
    )  # fmt: skip
    assert len(buyer.calls("POST", "/v1/subscriptions")) == 1


def test_a_trial_wants_no_card_and_is_given_once(buyer: Buyer) -> None:
    made = buyer.post(SUBSCRIPTION, {"plan": "pro", "trial": True}, expect=201)
    assert (made["status"], made["trial_end"]) == ("trialing", made["current_period_end"])
    assert buyer.delete(f"{SUBSCRIPTION}?at=now", expect=200)["status"] == "canceled"
    refused = buyer.post(SUBSCRIPTION, {"plan": "pro", "trial": True}, expect=409)
    assert refused["error"] == "the trial is given once, and has been used; subscribe without it"


def test_a_declined_card_is_402_and_leaves_nothing(buyer: Buyer) -> None:
    refused = buyer.post(SUBSCRIPTION, {"plan": "pro", "payment_method_id": DECLINED}, expect=402)
    assert refused["code"] == "PAYMENT_FAILED"
    assert refused["decline_code"] == "generic_decline"
    buyer.get(SUBSCRIPTION, expect=404)
    assert buyer.get("/billing/quotas", expect=200)["plan"] == "free"


def test_a_payment_that_waits_for_its_customer(buyer: Buyer) -> None:
    made = buyer.post(SUBSCRIPTION, {"plan": "pro", "payment_method_id": CONFIRMED}, expect=201)
    assert (made["status"], made["requires_action"]) == ("incomplete", True)
    assert "_secret_" in made["client_secret"]
    assert buyer.get(SUBSCRIPTION, expect=200)["client_secret"] == made["client_secret"]
    seen = buyer.colleague("viewer").get(SUBSCRIPTION, expect=200)
    assert seen["requires_action"] is True
    assert "client_secret" not in seen
    assert buyer.get("/billing/quotas", expect=200)["plan"] == "free", "nothing is paid for yet"
    stored = buyer.rows("SELECT t::text FROM subscriptions t UNION ALL SELECT t::text FROM billing_operations t")
    assert not [row for row in stored if made["client_secret"] in row[0]]
    refused = buyer.put(SUBSCRIPTION, {"plan": "enterprise"}, expect=409)
    assert refused["allowed_actions"] == ["confirm_payment", "subscribe", "cancel"]


def test_another_card_instead_of_one_that_was_not_confirmed(buyer: Buyer) -> None:
    waiting = buyer.subscribe(card=CONFIRMED)
    made = buyer.subscribe(card=GOOD)
    assert (made["status"], made["id"] != waiting["id"]) == ("active", True)
    assert "client_secret" not in buyer.get(SUBSCRIPTION, expect=200)


def test_a_preview_tells_the_price_and_changes_nothing(buyer: Buyer) -> None:
    made = buyer.subscribe("pro")
    preview = buyer.put(f"{SUBSCRIPTION}?preview=true", {"plan": "enterprise"}, expect=200)
    assert (preview["currency"], preview["amount_due_now"]) == ("eur", 0)
    assert any(line["proration"] for line in preview["lines"])
    assert sum(line["amount"] for line in preview["lines"]) == preview["next_invoice"]["amount_due"] > 49_900
    assert preview["next_invoice"]["at"] == made["current_period_end"]
    assert buyer.get(SUBSCRIPTION, expect=200) == made
    assert [row.kind for row in buyer.rows("SELECT kind FROM billing_operations")] == ["subscription.create"]
    assert buyer.put(f"{SUBSCRIPTION}?preview=true", {"plan": "free"}, expect=400)["details"].keys() == {"plan"}


def test_no_transaction_is_open_while_stripe_is_asked(buyer: Buyer, monkeypatch: pytest.MonkeyPatch) -> None:
    buyer.subscribe("pro")
    asked, preview = [], stripe_client.preview_change

    def watched(*about: Any) -> Any:
        asked.append(db.session.registry.has() and db.session().in_transaction())
        return preview(*about)

    monkeypatch.setattr(stripe_client, "preview_change", watched)
    buyer.put(f"{SUBSCRIPTION}?preview=true", {"plan": "enterprise"}, expect=200)
    assert asked == [False]


def test_a_preview_while_stripe_is_away_is_503(buyer: Buyer) -> None:
    buyer.subscribe("pro")
    buyer.fault(500, "/v1/invoices/create_preview")
    refused = buyer.put(f"{SUBSCRIPTION}?preview=true", {"plan": "enterprise"})
    assert (refused.status_code, refused.headers["Retry-After"]) == (503, "2")


def test_changing_the_plan(buyer: Buyer) -> None:
    buyer.subscribe("pro")
    assert buyer.put(SUBSCRIPTION, {"plan": "enterprise"}, expect=200)["plan"] == "enterprise"
    assert buyer.get("/billing/quotas", expect=200)["plan"] == "enterprise"
    before = len(buyer.rows("SELECT 1 FROM billing_operations"))
    assert buyer.put(SUBSCRIPTION, {"plan": "enterprise"}, expect=200)["plan"] == "enterprise"
    assert len(buyer.rows("SELECT 1 FROM billing_operations")) == before, "there was nothing to change"


def test_a_smaller_plan_has_to_fit(buyer: Buyer, monkeypatch: pytest.MonkeyPatch) -> None:
    buyer.subscribe("enterprise")
    too_much = [{"quota": "devices", "limit": 2000, "used": 2001}]
    with monkeypatch.context() as full:
        full.setattr(subscription.quotas, "too_much", lambda _org, plan: too_much if plan == "pro" else [])
        refused = buyer.put(SUBSCRIPTION, {"plan": "pro"}, expect=409)
    assert (refused["code"], refused["too_much"]) == ("CONFLICT", too_much)
    assert buyer.get(SUBSCRIPTION, expect=200)["plan"] == "enterprise"
    assert buyer.put(SUBSCRIPTION, {"plan": "pro"}, expect=200)["plan"] == "pro"


def test_canceling_and_resuming(buyer: Buyer) -> None:
    buyer.subscribe()
    refused = buyer.post(f"{SUBSCRIPTION}/resume", expect=409)
    assert (refused["code"], refused["current_state"], refused["allowed_actions"]) == (
        "INVALID_STATE", "active", ["change", "cancel"],
    )  # fmt: skip
    for _ in range(2):
        ending = buyer.delete(SUBSCRIPTION, expect=200)
        assert (ending["status"], ending["cancel_at_period_end"]) == ("active", True)
    assert len(buyer.rows("SELECT 1 FROM billing_operations WHERE kind = 'subscription.cancel'")) == 1
    resumed = buyer.post(f"{SUBSCRIPTION}/resume", expect=200)
    assert (resumed["status"], resumed["cancel_at_period_end"]) == ("active", False)
    ended = buyer.delete(f"{SUBSCRIPTION}?at=now", expect=200)
    assert (ended["status"], ended["ended_at"] is not None) == ("canceled", True)
    assert buyer.get(SUBSCRIPTION, expect=200) == ended
    for refused in (buyer.delete(SUBSCRIPTION, expect=409), buyer.post(f"{SUBSCRIPTION}/resume", expect=409)):
        assert (refused["current_state"], refused["allowed_actions"]) == ("canceled", ["subscribe"])
    assert buyer.get("/billing/quotas", expect=200)["plan"] == "free"
    assert buyer.subscribe()["status"] == "active"


def test_of_many_at_once_one_subscribes(buyer: Buyer) -> None:
    answers: list[int] = []

    def subscribe() -> None:
        client = buyer.colleague("admin")
        answers.append(client.post(SUBSCRIPTION, {"plan": "pro", "payment_method_id": GOOD}).status_code)

    threads = [threading.Thread(target=subscribe) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == [201] + [409] * 7
    assert len(buyer.rows("SELECT 1 FROM subscriptions")) == 1


def test_what_was_done_between_looking_and_asking_is_seen(buyer: Buyer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another request subscribes, and is done with it, after this one has found that nobody had."""
    submit = operations.submit

    def overtaken(*asked: Any) -> Any:
        monkeypatch.setattr(operations, "submit", submit)
        other = threading.Thread(target=lambda: buyer.colleague("admin").post(SUBSCRIPTION, BODY, expect=201))
        other.start()
        other.join()
        return submit(*asked)

    monkeypatch.setattr(operations, "submit", overtaken)
    assert buyer.post(SUBSCRIPTION, BODY, expect=409)["code"] == "INVALID_STATE"
    assert len(buyer.calls("POST", "/v1/subscriptions")) == 1
    assert len(buyer.rows("SELECT 1 FROM billing_operations")) == 1


def test_links_to_stripes_pages(buyer: Buyer) -> None:
    checkout = buyer.post("/billing/checkout-session", {"plan": "pro"}, expect=201)
    assert checkout["url"].startswith(buyer.stripe.base)
    (sent,) = buyer.calls("POST", "/v1/checkout/sessions")[-1:]
    assert f"{settings().url}/?checkout=success" in unquote_plus(sent["params"])
    assert buyer.post("/billing/portal-session", expect=201)["url"].startswith(buyer.stripe.base)
    back = {"return_url": "http://localhost:3000/account"}
    assert buyer.post("/billing/portal-session", back, expect=201)["url"]
    for url in (
        "javascript:alert(1)",
        "/account",
        "ftp://example.com",
        "https://example.com/\0",
        "https://example.com/é",
    ):
        assert buyer.post("/billing/portal-session", {"return_url": url}, expect=400)["details"].keys() == {
            "return_url"
        }
    assert buyer.post("/billing/checkout-session", {"plan": "free"}, expect=400)["details"].keys() == {"plan"}
    buyer.subscribe()
    assert buyer.post("/billing/checkout-session", {"plan": "pro"}, expect=409)["code"] == "INVALID_STATE"


# An answer that takes longer than its request


def test_the_same_key_asks_again_for_what_goes_on(
    app: Any, stripe: LocalStripe, monkeypatch: pytest.MonkeyPatch
) -> None:
    buyer = Buyer(app, stripe)
    monkeypatch.setattr(operations, "WAIT_SECONDS", 0.1)
    body, key = {"plan": "pro", "payment_method_id": GOOD}, {"Idempotency-Key": "first"}
    for _ in range(2):  # nobody works
        pending = buyer.post(SUBSCRIPTION, body, headers=key)
        assert (pending.status_code, pending.json["outcome"], pending.headers["Retry-After"]) == (503, "pending", "2")
    assert buyer.post(SUBSCRIPTION, body, expect=409)["code"] == "CONFLICT", "another request is another subscription"
    assert buyer.post(SUBSCRIPTION, {**body, "plan": "enterprise"}, headers=key, expect=409)
    assert len(buyer.rows("SELECT 1 FROM billing_operations")) == 1
    with worker():
        until(lambda: buyer.rows("SELECT 1 FROM billing_operations WHERE state = 'done'"))
    made = buyer.post(SUBSCRIPTION, body, headers=key)
    assert (made.status_code, made.json["status"]) == (201, "active")
    replayed = buyer.post(SUBSCRIPTION, body, headers=key)
    assert (replayed.status_code, replayed.json) == (201, made.json)
    assert replayed.headers["Idempotent-Replayed"] == "true"
    assert len(buyer.rows("SELECT 1 FROM billing_operations")) == 1
    assert len(buyer.calls("POST", "/v1/subscriptions")) == 1


def test_the_same_key_gives_the_same_failure(buyer: Buyer) -> None:
    body, key = {"plan": "pro", "payment_method_id": DECLINED}, {"Idempotency-Key": "first"}
    first = buyer.post(SUBSCRIPTION, body, headers=key, expect=402)
    assert buyer.post(SUBSCRIPTION, body, headers=key, expect=402) == first
    assert len(buyer.rows("SELECT 1 FROM billing_operations")) == 1


def test_the_same_key_many_times_at_once(buyer: Buyer) -> None:
    answers: list[Any] = []

    def subscribe() -> None:
        client = Buyer.__new__(Buyer)
        client.http, client.headers = buyer.app.test_client(), buyer.headers
        body = {"plan": "pro", "payment_method_id": GOOD}
        answers.append(client.post(SUBSCRIPTION, body, headers={"Idempotency-Key": "one"}))

    threads = [threading.Thread(target=subscribe) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {answer.status_code for answer in answers} == {201}, [answer.text for answer in answers]
    assert len({answer.text for answer in answers}) == 1
    assert len(buyer.rows("SELECT 1 FROM billing_operations")) == 1


# Who may, and where


@pytest.mark.parametrize("role", ["viewer", "operator"])
def test_only_admins_spend_money(buyer: Buyer, role: str) -> None:
    colleague = buyer.colleague(role)
    for path in ("plans", "quotas", "usage", "invoices", "payment-methods"):
        colleague.get(f"/billing/{path}", expect=200)
    for method, path, body in CHANGES:
        colleague.request(method, f"/billing/{path}", body, expect=403)


NOWHERE = "00000000-0000-4000-8000-000000000000"
CHANGES = [
    ("POST", "subscription", {"plan": "pro", "trial": True}),
    ("PUT", "subscription", {"plan": "pro"}),
    ("PUT", "subscription?preview=true", {"plan": "pro"}),
    ("DELETE", "subscription", None),
    ("POST", "subscription/resume", None),
    ("POST", "payment-methods", {"payment_method_id": GOOD}),
    ("POST", f"payment-methods/{NOWHERE}/default", None),
    ("DELETE", f"payment-methods/{NOWHERE}", None),
    ("POST", "checkout-session", {"plan": "pro"}),
    ("POST", "portal-session", None),
]
READS = ["subscription", "payment-methods", "invoices", f"invoices/{NOWHERE}", f"invoices/{NOWHERE}/download"]


@pytest.mark.parametrize("billing", ["on", "off"])
def test_without_stripe_money_is_503_and_the_rest_works(
    app: Any, monkeypatch: pytest.MonkeyPatch, billing: str
) -> None:
    monkeypatch.setenv("EDGEFLOW_BILLING", billing)
    settings.cache_clear()
    try:
        somebody = Buyer(app, None)
        for method, path, body in [*CHANGES, *(("GET", path, None) for path in READS)]:
            refused = somebody.request(method, f"/billing/{path}", body, expect=503)
            assert refused["code"] == "BILLING_NOT_CONFIGURED", path
        assert somebody.post("/billing/webhooks/stripe", {}, expect=503)["code"] == "BILLING_NOT_CONFIGURED"
        assert somebody.rows("SELECT 1 FROM billing_accounts") == []
        assert len(somebody.get("/billing/plans", expect=200)["items"]) == 3
        assert somebody.get("/billing/usage", expect=200)["totals"]["commands"] == 0
        limits = {one["quota"]: one["limit"] for one in somebody.get("/billing/quotas", expect=200)["items"]}
        assert (limits["devices"] is None) == (billing == "off")
    finally:
        monkeypatch.undo()
        settings.cache_clear()


def test_usage_by_the_hour(buyer: Buyer) -> None:
    used = buyer.get("/billing/usage?granularity=hour&from=2026-01-01T00:00:00Z&to=2026-01-01T03:00:00Z", expect=200)
    assert [one["start"] for one in used["buckets"]] == [f"2026-01-01T0{hour}:00:00Z" for hour in range(3)]
    assert buyer.get("/billing/usage?granularity=week", expect=400)["details"].keys() == {"granularity"}
