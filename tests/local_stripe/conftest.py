from collections.abc import Iterator
from typing import Any

import pytest
import stripe

from tests.local_stripe.process import SECRETS, LocalStripe, Receiver

NOON = 1_770_000_000  # 2026-02-02: an ordinary month follows


@pytest.fixture(scope="session")
def receiver() -> Iterator[Receiver]:
    server = Receiver()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory, receiver: Receiver) -> Iterator[LocalStripe]:
    options = ["--webhook", receiver.url, "--webhook-secret", SECRETS[0], "--webhook-secret", SECRETS[1]]
    started = LocalStripe(tmp_path_factory.mktemp("stripe"), *options)
    yield started
    started.stop()


@pytest.fixture
def api(server: LocalStripe) -> Iterator[stripe.StripeClient]:
    yield server.client()
    server.local.delete("/faults").raise_for_status()
    server.tell("/webhooks", duplicate=0, shuffle=False, hold=False, drop=0)
    server.tell("/clock", test_clock=None)
    server.tell("/settings", after_retries="cancel")


class Someone:
    """A customer under a test clock, with what a test does to him."""

    def __init__(self, server: LocalStripe, api: stripe.StripeClient) -> None:
        self.server, self.api = server, api
        self.clock = api.v1.test_helpers.test_clocks.create({"frozen_time": NOON}).id
        self.id = api.v1.customers.create({"email": "ann@example.com", "test_clock": self.clock}).id

    def card(self, token: str = "pm_card_visa") -> str:
        method = self.api.v1.payment_methods.attach(token, {"customer": self.id})
        self.api.v1.customers.update(self.id, {"invoice_settings": {"default_payment_method": method.id}})
        return method.id

    def subscribe(self, price: str = "price_pro", **params: Any) -> stripe.Subscription:
        body: Any = {"customer": self.id, "items": [{"price": price}], **params}
        return self.api.v1.subscriptions.create(body)

    def subscription(self) -> stripe.Subscription:
        return self.api.v1.subscriptions.list({"customer": self.id, "status": "all"}).data[0]

    def invoices(self) -> list[stripe.Invoice]:
        """Oldest first."""
        return list(reversed(self.api.v1.invoices.list({"customer": self.id, "limit": 100}).data))

    def after(self, *, days: float = 0, hours: float = 0) -> None:
        """Let time pass."""
        now = self.api.v1.test_helpers.test_clocks.retrieve(self.clock).frozen_time
        self.server.advance(self.clock, now + int(days * 86_400 + hours * 3_600))


@pytest.fixture
def someone(server: LocalStripe, api: stripe.StripeClient) -> Someone:
    return Someone(server, api)
