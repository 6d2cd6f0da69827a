"""The short form: deaths where something is done at Stripe and not yet noted here; ``make faults`` has 50 of all."""

import pytest

from tests.billing.e2e import kills
from tests.billing.e2e.shop import Shop

pytestmark = [pytest.mark.xdist_group("billing"), pytest.mark.slow]


def test_a_worker_that_dies_at_stripes_door_neither_charges_twice_nor_forgets(shop: Shop) -> None:
    deaths, right = kills.rehearse(shop)
    assert (right.customers, len(right.subscriptions), right.payment_methods) == (1, 1, 1)
    assert {state for _kind, state in right.operations} == {"done"}
    changing = [one for one in deaths if one.call.startswith(("POST", "DELETE")) and one.when == "after"]
    assert {one.act for one in changing} == kills.ACTS.keys()
    for died, kept in kills.lives(shop, [*changing, kills.Death("subscribe", "POST /v1/subscriptions", "before")]):
        assert kept == right, died


def test_without_keys_it_would_do_things_twice(shop: Shop) -> None:
    """The control: the gate takes Stripe's idempotency keys off."""
    _, right = kills.rehearse(shop)
    shop.gate.keyless = True
    try:
        ((_, kept),) = kills.lives(shop, [kills.Death("subscribe", "POST /v1/customers", "after")])
    finally:
        shop.gate.keyless = False
    assert (right.customers, kept.customers) == (1, 2)
