"""The worker dies before and after each call to Stripe; what a customer asked for happens all the same, and once."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import cycle, islice
from typing import Any

from tests.billing.e2e.gate import When
from tests.billing.e2e.shop import Customer, Shop, until

Act = Callable[[Customer], Any]

ACTS: dict[str, Act] = {
    "subscribe": lambda ada: ada(
        "POST", "/billing/subscription", {"plan": "pro", "payment_method_id": "pm_card_visa"}, expect=201
    ),
    "grow": lambda ada: ada("PUT", "/billing/subscription", {"plan": "enterprise"}),
    "cancel": lambda ada: ada("DELETE", "/billing/subscription"),
    "resume": lambda ada: ada("POST", "/billing/subscription/resume"),
    "leave": lambda ada: ada("DELETE", "/billing/subscription?at=now"),
}
"""In this order they are one customer's life."""


@dataclass(frozen=True)
class Death:
    """The worker dies in ``act``, before or after Stripe has heard of ``call``."""

    act: str
    call: str
    when: When


@dataclass(frozen=True)
class Books:
    """What there is at Stripe, and here, when a customer's life is over. Amounts in cents."""

    customers: int
    subscriptions: list[str]
    charged: list[int]
    invoices: list[tuple[str, int]]
    payment_methods: int
    operations: list[tuple[str, str]]


def rehearse(shop: Shop) -> tuple[list[Death], Books]:
    """Live once without a death: everywhere that one could die, and the books as they must be in the end."""
    ada, deaths = shop.customer(), []
    for name, act in ACTS.items():
        settled(shop, ada)
        seen = len(shop.gate.calls)
        act(ada)
        for call in dict.fromkeys(shop.gate.calls[seen:]):
            deaths += [Death(name, call, "before"), Death(name, call, "after")]
    return deaths, books(shop, ada)


def lives(shop: Shop, deaths: list[Death]) -> Iterator[tuple[list[Death], Books]]:
    """For each customer, who dies once in each act that has a death left: these, and the books in the end."""
    left = list(deaths)
    while left:
        ada, died = shop.customer(), []
        for name, act in ACTS.items():
            settled(shop, ada)
            death = next((one for one in left if one.act == name), None)
            if death is None:
                act(ada)
                continue
            left.remove(death)
            strike(shop, ada, act, death)
            died.append(death)
        yield died, books(shop, ada)


def strike(shop: Shop, ada: Customer, act: Act, death: Death) -> None:
    """Carry out ``act``; the worker is killed in it, and another one started. Raises what the customer was told."""
    told: list[BaseException | None] = []

    def ask() -> None:
        try:
            act(ada)
            told.append(None)
        except BaseException as error:
            told.append(error)

    before = len(shop.gate.deaths)
    shop.gate.arm(death.call, death.when)
    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    until(lambda: len(shop.gate.deaths) > before or told, every=0.01)
    assert len(shop.gate.deaths) > before, f"{death} was not come to: {told}"
    shop.platform.start("worker")
    hasten(shop, ada)
    asking.join(60)
    assert told, f"{death}: no answer"
    if told[0] is not None:
        raise AssertionError(f"{death}: {told[0]}")


def hasten(shop: Shop, ada: Customer) -> None:
    """The dead worker's lease is over, as it would be in a minute."""
    shop.rows(
        "UPDATE billing_accounts SET lease_until = NULL, next_attempt_at = now() WHERE org_id = %(o)s", o=ada.org_id
    )
    shop.job("billing.work", ada.org_id)


def settled(shop: Shop, ada: Customer) -> None:
    """Wait until nothing is due for this customer: the next call is the next act's."""
    query = "SELECT 1 FROM billing_accounts WHERE org_id = %(o)s AND (wanted > synced OR lease_until > now())"
    until(lambda: not shop.rows(query, o=ada.org_id))


def books(shop: Shop, ada: Customer) -> Books:
    settled(shop, ada)
    customers = shop.stripe.customers_of(ada.org_id)
    of = {"customer": customers[0]["id"], "limit": 100}
    return Books(
        len(customers),
        [one["status"] for one in shop.stripe.get("/subscriptions", status="all", **of)["data"]],
        sorted(one["amount_received"] for one in shop.stripe.get("/payment_intents", **of)["data"]),
        sorted((one["status"], one["total"]) for one in shop.stripe.get("/invoices", **of)["data"]),
        len(shop.stripe.get("/payment_methods", **of)["data"]),
        shop.rows("SELECT kind, state FROM billing_operations WHERE org_id = %(o)s ORDER BY sequence", o=ada.org_id),
    )


def some(deaths: list[Death], count: int) -> list[Death]:
    """So many, beginning again when all have been had."""
    return list(islice(cycle(deaths), count))
