"""What is to be done at Stripe is done once, whatever dies on the way."""

import pytest

from app.errors import Conflict, PaymentFailed
from tests.billing.local import Organization


def test_a_subscription_with_a_card(owner: Organization) -> None:
    result = owner.run("subscription.create", plan="pro", payment_method_id="pm_card_visa", trial=False)
    assert result["status"] == "active"
    assert owner.plan == "pro"
    assert owner.subscription.status == "active"
    with pytest.raises(Conflict):
        owner.run("subscription.create", plan="pro", trial=False)


def test_a_declined_card_leaves_no_subscription(owner: Organization) -> None:
    with pytest.raises(PaymentFailed) as failed:
        owner.run("subscription.create", plan="pro", payment_method_id="pm_card_chargeCustomerFail", trial=False)
    print(failed.value.body())
    print(owner.state())
