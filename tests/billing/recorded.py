"""Twelve steps of a customer's life at a local Stripe: the event that each gave, and what Stripe answered after it."""

import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from app.billing import events, stripe_client
from tests.billing.local import LocalStripe, Organization, deliver

PRO, ENTERPRISE = "price_edgeflow_pro_month", "price_edgeflow_enterprise_month"
ASKED = ("customer", "subscriptions", "payment_methods", "invoices")
"""Of ``stripe_client``: what a look at a customer asks, each by the customer's id."""
DAY = 86_400


@dataclass
class History:
    """``answers[n]``: what Stripe says after ``n`` steps; ``events[n]``: what the step after that was told by."""

    customer: str
    events: list[dict[str, Any]] = field(default_factory=list)
    answers: list[dict[str, Any]] = field(default_factory=list)


class Life:
    """The steps, taken at Stripe by its own hands: nothing of ours is asked for them."""

    def __init__(self, stripe: LocalStripe, org_id: str) -> None:
        self.stripe, self.v1 = stripe, stripe.v1
        self.clock = self.v1.test_helpers.test_clocks.create({"frozen_time": int(time.time())}).id
        made = self.v1.customers.create({"name": "Acme", "metadata": {"org_id": org_id}, "test_clock": self.clock})
        self.customer = made.id
        self.cards: dict[str, str] = {}

    def steps(self) -> list[Callable[[], Any]]:
        """From a trial to the end, over a payment that fails; each changes what a look would find."""
        return [
            self.subscribe,
            lambda: self.attach("visa", "pm_card_visa"),
            lambda: self.pay_by("visa"),
            lambda: self.change(ENTERPRISE),
            lambda: self.change(PRO),
            self.next_period,
            lambda: self.attach("failing", "pm_card_chargeCustomerFail"),
            lambda: self.pay_by("failing"),
            self.next_period,
            lambda: self.pay_by("visa"),
            self.pay,
            lambda: self.v1.subscriptions.cancel(self.subscription.id),
        ]

    @property
    def subscription(self) -> Any:
        return self.v1.subscriptions.list({"customer": self.customer, "status": "all"}).data[0]

    def newest_event(self) -> dict[str, Any]:
        told = (one.to_dict(for_json=True) for one in self.v1.events.list({"limit": 20}).data)
        return next(one for one in told if events.understood(one).customer_id == self.customer)

    def subscribe(self) -> None:
        self.v1.subscriptions.create(
            {"customer": self.customer, "items": [{"price": PRO}], "trial_period_days": 14, "metadata": {"plan": "pro"}}
        )

    def attach(self, name: str, token: str) -> None:
        self.cards[name] = self.v1.payment_methods.attach(token, {"customer": self.customer}).id

    def pay_by(self, name: str) -> None:
        settings: Any = {"default_payment_method": self.cards[name]}
        self.v1.customers.update(self.customer, {"invoice_settings": settings})

    def change(self, price: str) -> None:
        item = self.subscription["items"].data[0].id
        self.v1.subscriptions.update(
            self.subscription.id, {"items": [{"id": item, "price": price}], "proration_behavior": "none"}
        )

    def next_period(self) -> None:
        end = self.subscription["items"].data[0].current_period_end
        self.stripe.control("POST", "/clock", test_clock=self.clock, advance_to=end + DAY)

    def pay(self) -> None:
        (owed,) = self.v1.invoices.list({"customer": self.customer, "status": "open"}).data
        self.v1.invoices.pay(owed.id)


def record(owner: Organization) -> History:
    """Have the steps taken for an organization that has no customer yet, and make their customer its own."""
    life = Life(owner.stripe, str(owner.id))
    history = History(life.customer, answers=[answers(life.customer)])
    for step in life.steps():
        step()
        history.events.append(life.newest_event())
        history.answers.append(answers(life.customer))
    owner.execute("INSERT INTO billing_accounts (org_id, customer_id) VALUES (:o, :c)", o=owner.id, c=life.customer)
    return history


def answers(customer: str) -> dict[str, Any]:
    return {name: getattr(stripe_client, name)(customer) for name in ASKED}


@dataclass
class Telling:
    """One way in which a history is told: any order, any copies, and looks in between, some of them interrupted."""

    history: History
    owner: Organization
    rng: random.Random

    def __post_init__(self) -> None:
        count = len(self.history.events)
        copies = [number for number in range(count) for _ in range(self.rng.choice((1, 1, 2, 3)))]
        self.order = self.rng.sample(copies, len(copies))
        self.stage = self.told = 0

    def tell(self) -> None:
        """Deliver everything; what is due is looked at now and then, and in the end."""
        with self._answering():
            while self.told < len(self.order):
                self._next()
                if self.rng.random() < 0.1:
                    self.owner.work()
            self.owner.work()

    def _next(self) -> None:
        """The next delivery; what it tells of has happened by now, and perhaps more."""
        number = self.order[self.told]
        self.told += 1
        self.stage = max(self.stage, number + 1)
        deliver(self.history.events[number])

    @contextmanager
    def _answering(self) -> Iterator[None]:
        """Stripe answers by the stage that it is in; sometimes it moves on between two answers of one look."""

        def answer(name: str) -> Any:
            if self.told < len(self.order) and self.rng.random() < 0.05:
                self._next()
            return self.history.answers[self.stage][name]

        with pytest.MonkeyPatch.context() as patch:
            for name in ASKED:
                patch.setattr(stripe_client, name, lambda _customer, name=name: answer(name))
            yield
