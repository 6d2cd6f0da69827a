"""Pages of Stripe's that are open side by side make one subscription, or the second one goes back with its money."""

from typing import Any
from uuid import uuid4

import httpx
import pytest

from app.billing import duplicates, stripe_client, subscribing, sync
from app.errors import Conflict
from tests.billing.deaths import die_everywhere
from tests.billing.local import VISA, Organization
from tests.platform import TLS

PAGES = {"success_url": "https://a.example/paid", "cancel_url": "https://a.example/left"}
PRICES = {"pro": ("price_edgeflow_pro_month", 4900), "enterprise": ("price_edgeflow_enterprise_month", 49900)}


def page(owner: Organization, plan: str = "pro", **more: Any) -> str:
    """The address of a page on which that plan can be bought."""
    return str(owner.run("checkout.create", plan=plan, **PAGES, **more)["url"])


def complete(url: str, card: str = "pm_card_visa") -> httpx.Response:
    return httpx.post(url, data={"card": card}, trust_env=False, verify=TLS)


def look(owner: Organization) -> None:
    """What the webhook brings about."""
    owner.want()
    owner.work()


def at_stripe(owner: Organization) -> list[Any]:
    """The customer's subscriptions, the first one first."""
    found = owner.stripe.v1.subscriptions.list({"customer": owner.account.customer_id, "status": "all"}).data
    return [one.to_dict(for_json=True) for one in reversed(found)]


def paid(owner: Organization) -> int:
    """What Stripe has kept of the customer's money."""
    charges = owner.stripe.v1.charges.list({"customer": owner.account.customer_id}).data
    return sum(one.amount_captured - one.amount_refunded for one in charges)


def told(owner: Organization) -> list[tuple[str, str]]:
    query = "SELECT level, message FROM log_entries WHERE kind = 'billing.duplicate' ORDER BY time, id"
    return [(row.level, row.message) for row in owner.rows(query)]


def open_pages(owner: Organization) -> list[Any]:
    return stripe_client.open_checkout_sessions(owner.account.customer_id)


@pytest.fixture
def side_by_side(owner: Organization, monkeypatch: pytest.MonkeyPatch) -> tuple[str, str]:
    """Two pages that are open at once: for Pro and for Enterprise."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(subscribing, "close_pages", lambda *_: None)
        return page(owner), page(owner, "enterprise")


def test_a_new_page_closes_the_one_before(owner: Organization) -> None:
    first, second = page(owner), page(owner, "enterprise")
    assert "not open" in complete(first).text
    assert complete(second).status_code == 303
    look(owner)
    assert (owner.plan, len(at_stripe(owner)), paid(owner), open_pages(owner)) == ("enterprise", 1, 49900, [])
    assert told(owner) == []


def test_a_subscription_that_begins_elsewhere_closes_the_page(owner: Organization) -> None:
    url = page(owner)
    owner.run("subscription.create", **VISA)
    assert "not open" in complete(url).text
    assert (len(at_stripe(owner)), paid(owner)) == (1, 4900)


def test_of_two_open_pages_the_one_that_is_completed_closes_the_other(
    owner: Organization, side_by_side: tuple[str, str]
) -> None:
    first, second = side_by_side
    complete(second)
    look(owner)
    assert open_pages(owner) == []
    assert "not open" in complete(first).text
    assert (owner.plan, len(at_stripe(owner)), paid(owner)) == ("enterprise", 1, 49900)


def test_what_is_bought_twice_is_taken_back(owner: Organization, side_by_side: tuple[str, str]) -> None:
    for url in side_by_side:
        assert complete(url).status_code == 303
    assert paid(owner) == 4900 + 49900
    look(owner)
    kept, second = sorted(at_stripe(owner), key=lambda one: one["status"])
    assert (kept["status"], second["status"]) == ("active", "canceled")
    # Both may have been made within a second: which is the first one then, their ids decide.
    assert (kept["created"], kept["id"]) < (second["created"], second["id"])
    assert (owner.plan, paid(owner)) == (kept["metadata"]["plan"], PRICES[kept["metadata"]["plan"]][1])
    ((level, message),) = told(owner)
    back = {"pro": "€49.00", "enterprise": "€499.00"}[second["metadata"]["plan"]]
    assert (level, message) == (2, f"there was a subscription already: a second one was ended, and {back} paid back")
    owner.stripe.quiet()
    look(owner)
    assert owner.stripe.requests("POST") == []
    assert owner.stripe.requests("DELETE") == []


def test_without_that_it_would_be_paid_twice(
    owner: Organization, side_by_side: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sync.duplicates, "surplus", lambda *_: [])
    for url in side_by_side:
        complete(url)
    look(owner)
    assert ([one["status"] for one in at_stripe(owner)], paid(owner)) == (["active"] * 2, 4900 + 49900)


def test_however_often_workers_die_it_is_refunded_once(owner: Organization, side_by_side: tuple[str, str]) -> None:
    for url in side_by_side:
        complete(url)
    owner.want()
    assert die_everywhere(owner.work, owner.due_now) == 2 * (4 + 5)  # at each call of a look and of the settlement
    assert sorted(one["status"] for one in at_stripe(owner)) == ["active", "canceled"]
    assert paid(owner) == PRICES[owner.plan][1]
    assert len(told(owner)) == 1
    charges = owner.stripe.v1.charges.list({"customer": owner.account.customer_id}).data
    assert sum(len(owner.stripe.v1.refunds.list({"charge": one.id}).data) for one in charges) == 1


def test_a_refund_that_somebody_made_before_is_none_of_a_fault(
    owner: Organization, side_by_side: tuple[str, str]
) -> None:
    for url in side_by_side:
        complete(url)
    for charge in owner.stripe.v1.charges.list({"customer": owner.account.customer_id}).data:
        owner.stripe.v1.refunds.create({"charge": charge.id})
    look(owner)
    assert sorted(one["status"] for one in at_stripe(owner)) == ["active", "canceled"]
    assert [level for level, _ in told(owner)] == [2]


def test_what_cannot_be_taken_back_is_told_loudly_and_once(owner: Organization, side_by_side: tuple[str, str]) -> None:
    for url in side_by_side:
        complete(url)
    owner.stripe.fault(400, "/v1/refunds")
    look(owner)
    look(owner)
    ((level, message),) = told(owner)
    assert (level, "could not be taken back" in message) == (3, True)
    failed = owner.row("SELECT state, error FROM billing_operations WHERE kind = 'checkout.settle'")
    assert failed.state == "failed"
    assert [one["status"] for one in at_stripe(owner)] == ["active"] * 2


def test_what_was_added_by_hand_at_stripe_stays(owner: Organization) -> None:
    owner.run("subscription.create", **VISA)
    customer: Any = owner.account.customer_id
    owner.stripe.v1.subscriptions.create({"customer": customer, "items": [{"price": PRICES["enterprise"][0]}]})
    look(owner)
    assert [one["status"] for one in at_stripe(owner)] == ["active", "active"]
    assert told(owner) == []


def test_one_that_waits_for_its_holder_goes_when_another_is_bought(owner: Organization) -> None:
    owner.run("subscription.create", **{**VISA, "payment_method_id": "pm_card_threeDSecure2Required"})
    complete(page(owner))
    look(owner)
    assert [one["status"] for one in at_stripe(owner)] == ["canceled", "active"]
    assert [message for _, message in told(owner)] == ["there was a subscription already: a second one was ended"]


def test_a_page_that_is_completed_while_another_is_asked_for(
    owner: Organization, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is refused to be closed; so there is a subscription."""
    first = page(owner)
    listed = stripe_client.open_checkout_sessions

    def list_then_complete(customer: str) -> list[Any]:
        found = listed(customer)
        complete(first)
        return found

    monkeypatch.setattr(stripe_client, "open_checkout_sessions", list_then_complete)
    with pytest.raises(Conflict, match="already"):
        page(owner)
    assert (len(at_stripe(owner)), paid(owner)) == (1, 4900)


ORG = uuid4()


def one(id: str, status: str, created: int, org_id: object = ORG) -> dict[str, Any]:
    return {"id": id, "status": status, "created": created, "metadata": {"org_id": str(org_id)}}


@pytest.mark.parametrize(
    ("subscriptions", "surplus"),
    [
        ([], []),
        ([one("a", "active", 1)], []),
        ([one("b", "active", 2), one("a", "active", 1)], ["b"]),
        ([one("b", "trialing", 1), one("a", "past_due", 1)], ["b"]),
        ([one("c", "active", 3), one("b", "incomplete", 2), one("a", "active", 1)], ["b", "c"]),
        ([one("a", "incomplete", 1), one("b", "active", 2)], ["a"]),
        ([one("a", "incomplete", 1), one("b", "incomplete", 2)], []),
        ([one("a", "canceled", 1), one("b", "active", 2), one("c", "unpaid", 3)], []),
        ([one("a", "active", 1, "another"), one("b", "active", 2)], []),
        ([{**one("a", "active", 1), "metadata": None}, one("b", "active", 2)], []),
    ],
)
def test_which_one_is_kept(subscriptions: list[dict[str, Any]], surplus: list[str]) -> None:
    assert duplicates.surplus(ORG, subscriptions) == surplus
