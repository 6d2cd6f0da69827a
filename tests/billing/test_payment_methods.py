"""Payment methods over the API: added by Stripe's ids, one of them the default, the last one kept while it pays."""

from typing import Any

import pytest

from tests.billing.helpers_routes import GOOD, Buyer

METHODS = "/billing/payment-methods"
MASTERCARD = "pm_card_mastercard"


def add(buyer: Buyer, card: str = GOOD, **more: Any) -> Any:
    return buyer.post(METHODS, {"payment_method_id": card, **more}, expect=201)


def listed(buyer: Buyer) -> list[tuple[str, bool]]:
    return [(one["brand"], one["is_default"]) for one in buyer.get(METHODS, expect=200)["items"]]


def test_the_first_one_is_the_default(buyer: Buyer) -> None:
    assert listed(buyer) == []
    answer = buyer.post(METHODS, {"payment_method_id": GOOD})
    made = answer.json
    assert answer.headers["Location"] == f"/api/v1{METHODS}/{made['id']}"
    assert (made["type"], made["brand"], made["last4"], made["is_default"]) == ("card", "visa", "4242", True)
    year, month = map(int, made["expires"].split("-"))
    assert year > 2025
    assert 1 <= month <= 12
    assert made.keys() == {"id", "type", "brand", "last4", "expires", "is_default", "created_at"}
    add(buyer, MASTERCARD)
    assert listed(buyer) == [("visa", True), ("mastercard", False)]


def test_another_one_may_become_the_default(buyer: Buyer) -> None:
    visa = add(buyer)
    assert add(buyer, MASTERCARD, default=True)["is_default"] is True
    assert listed(buyer) == [("mastercard", True), ("visa", False)]
    for _ in range(2):
        assert buyer.post(f"{METHODS}/{visa['id']}/default", expect=200)["is_default"] is True
    assert listed(buyer) == [("visa", True), ("mastercard", False)]


def test_adding_the_same_one_again_makes_it_the_default_and_no_second_one(buyer: Buyer) -> None:
    add(buyer, MASTERCARD)
    visa = add(buyer)
    (stripe_id,) = (row[0] for row in buyer.rows("SELECT stripe_id FROM payment_methods WHERE brand = 'visa'"))
    assert add(buyer, stripe_id)["is_default"] is False
    again = add(buyer, stripe_id, default=True)
    assert (again["id"], again["is_default"]) == (visa["id"], True)
    assert listed(buyer) == [("visa", True), ("mastercard", False)]


@pytest.mark.parametrize(
    ("card", "code"),
    [
        ("pm_card_chargeDeclined", "generic_decline"),
        ("pm_card_chargeDeclinedInsufficientFunds", "insufficient_funds"),
    ],
)
def test_a_card_that_is_refused(buyer: Buyer, card: str, code: str) -> None:
    refused = buyer.post(METHODS, {"payment_method_id": card}, expect=402)
    assert (refused["code"], refused["decline_code"]) == ("PAYMENT_FAILED", code)
    assert listed(buyer) == []


def test_one_that_stripe_does_not_know(buyer: Buyer) -> None:
    assert buyer.post(METHODS, {"payment_method_id": "pm_nobodys"}, expect=400)["details"].keys() == {
        "payment_method_id"
    }


def test_somebody_elses_is_not_taken(buyer: Buyer, app: Any) -> None:
    add(buyer)
    (stripe_id,) = (row[0] for row in buyer.rows("SELECT stripe_id FROM payment_methods"))
    other = Buyer(app, buyer.stripe)
    assert other.post(METHODS, {"payment_method_id": stripe_id}).status_code in (400, 409)
    assert listed(other) == []
    theirs = buyer.get(METHODS, expect=200)["items"][0]["id"]
    assert other.delete(f"{METHODS}/{theirs}", expect=404)["error"] == "payment method not found"
    assert other.post(f"{METHODS}/{theirs}/default", expect=404)["error"] == "payment method not found"
    assert listed(buyer) == [("visa", True)]


def test_removing(buyer: Buyer) -> None:
    visa, mastercard = add(buyer), add(buyer, MASTERCARD)
    assert buyer.delete(f"{METHODS}/{visa['id']}").status_code == 204
    assert listed(buyer) == [("mastercard", True)], "another one pays from now on"
    buyer.delete(f"{METHODS}/{visa['id']}", expect=404)
    buyer.delete(f"{METHODS}/{mastercard['id']}", expect=204)
    assert listed(buyer) == []


def test_the_last_one_of_a_subscription_stays(buyer: Buyer) -> None:
    buyer.subscribe()
    (only,) = buyer.get(METHODS, expect=200)["items"]
    refused = buyer.delete(f"{METHODS}/{only['id']}", expect=409)
    assert (refused["code"], refused["current_state"]) == ("INVALID_STATE", "active")
    assert listed(buyer) == [("visa", True)]
    add(buyer, MASTERCARD)
    buyer.delete(f"{METHODS}/{only['id']}", expect=204)
    buyer.delete("/billing/subscription?at=now", expect=200)
    (left,) = buyer.get(METHODS, expect=200)["items"]
    buyer.delete(f"{METHODS}/{left['id']}", expect=204)


def test_unknown_fields_and_ids(buyer: Buyer) -> None:
    refused = buyer.post(METHODS, {"payment_method_id": GOOD, "number": "x"}, expect=400)
    assert refused["details"] == {"number": ["Unknown field."]}
    buyer.delete(f"{METHODS}/3f2b8c1e-5d0a-4b7e-9c55-0e6f3a1d2b4c", expect=404)
