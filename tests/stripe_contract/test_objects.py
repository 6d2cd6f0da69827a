"""Every answer of the local server is one that Stripe could give: by the schemas of Stripe's own OpenAPI."""

import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from tests.local_stripe.process import KEY, LocalStripe, until
from tests.stripe_contract.openapi import OpenAPI
from tests.stripe_contract.recorder import HOOK, Exchange, recording
from tests.stripe_contract.scenario import Life
from tools.local_stripe import resources  # noqa: F401  (declares the endpoints)
from tools.local_stripe.endpoints import ENDPOINTS

pytestmark = pytest.mark.xdist_group("stripe_contract")


@pytest.fixture(scope="module")
def exchanges(openapi: OpenAPI, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Exchange]]:
    """All that was asked and answered in a life, webhooks among it."""
    server = LocalStripe(tmp_path_factory.mktemp("stripe"))
    try:
        with recording(server.base) as recorder:
            server.tell("/webhooks", url=f"{recorder.address}{HOOK}", secrets=["whsec_contract"])
            life = Life(recorder.address, KEY)
            life.live()
            until(lambda: len(_hooks(recorder.exchanges)) >= len(life.events), 20)
            yield list(recorder.exchanges)
    finally:
        server.stop()


def _hooks(exchanges: list[Exchange]) -> list[Exchange]:
    return [one for one in exchanges if one.path == HOOK]


def _asked(exchanges: list[Exchange]) -> list[Exchange]:
    return [one for one in exchanges if one.path.startswith("/v1/")]


def _objects(node: Any) -> Iterator[dict[str, Any]]:
    """Every object in an answer that names its kind."""
    if isinstance(node, dict):
        if isinstance(node.get("object"), str):
            yield node
        node = list(node.values())
    for one in node if isinstance(node, list) else ():
        yield from _objects(one)


def test_every_endpoint_is_asked(exchanges: list[Exchange], openapi: OpenAPI) -> None:
    """So that a new one cannot stay unchecked."""
    asked = {openapi.operation(one.method, one.path) for one in _asked(exchanges)}
    served = {openapi.operation(one.method, one.path.replace("<", "").replace(">", "")) for one in ENDPOINTS}
    assert None not in served
    assert served - asked == set()


def test_every_endpoint_and_its_parameters_are_stripes(openapi: OpenAPI) -> None:
    """One that took more would let us send what Stripe refuses."""
    faults = []
    for one in ENDPOINTS:
        known = openapi.parameters(one.method, one.path.replace("<", "").replace(">", ""))
        faults += [f"{one.method} {one.path}: {name}" for name in sorted(one.allowed - known)]
    assert faults == []


def test_every_answer_is_as_described(exchanges: list[Exchange], openapi: OpenAPI) -> None:
    faults: Counter[str] = Counter()
    for one in _asked(exchanges):
        faults.update(set(openapi.faults_of_answer(one.method, one.path, one.status, one.body)))
    assert dict(faults) == {}


def test_what_is_taken_is_taken_by_stripe(exchanges: list[Exchange], openapi: OpenAPI) -> None:
    """To the depth of nested parameters and of what is expanded."""
    faults: Counter[str] = Counter()
    for one in _asked(exchanges):
        if one.status == 200:
            faults.update(set(openapi.faults_of_request(one.method, one.path, one.parameters)))
    assert dict(faults) == {}


def test_what_was_refused_is_said_as_described(exchanges: list[Exchange]) -> None:
    """By the schema of ``error``, as `test_every_answer_is_as_described` has seen; here: there were many kinds."""
    refused = [one.body["error"] for one in _asked(exchanges) if one.status >= 400]
    assert {error["type"] for error in refused} == {"card_error", "invalid_request_error"}
    assert {one.status for one in _asked(exchanges)} == {200, 400, 401, 402, 404}


def test_events_carry_objects_as_described(exchanges: list[Exchange], openapi: OpenAPI) -> None:
    faults: Counter[str] = Counter()
    events = [json.loads(one.sent) for one in _hooks(exchanges)]
    assert len({event["type"] for event in events}) > 20
    for event in events:
        faults.update(set(openapi.faults(event)))
        faults.update({f"{event['type']}: {fault}" for fault in openapi.faults(event["data"]["object"])})
    assert dict(faults) == {}


def test_every_kind_is_seen(exchanges: list[Exchange]) -> None:
    """The kinds that are judged above, by name: one that came no more would be judged no more."""
    kinds = {one["object"] for exchange in _asked(exchanges) for one in _objects(exchange.body)}
    assert kinds == KINDS


def test_subscriptions_are_seen_in_every_state(exchanges: list[Exchange]) -> None:
    found = [one for exchange in exchanges for one in _objects(exchange.body)]
    states = {one["status"] for one in found if one["object"] == "subscription"}
    assert states >= {"trialing", "active", "past_due", "incomplete", "paused", "canceled"}
    states = {one["status"] for one in found if one["object"] == "invoice"}
    assert states == {"draft", "open", "paid", "void", "uncollectible"}


def test_faults_are_found(exchanges: list[Exchange], openapi: OpenAPI) -> None:
    """A field away, one too many, one of another type, a fault in an expanded object: each is told."""
    found = [one for exchange in _asked(exchanges) for one in _objects(exchange.body) if one["object"] == "invoice"]
    invoice = next(one for one in found if one["lines"]["data"])
    assert openapi.faults(invoice) == []
    path = f"/v1/invoices/{invoice['id']}"
    for spoiled in (
        {name: value for name, value in invoice.items() if name != "total"},
        {**invoice, "colour": "red"},
        {**invoice, "total": "12"},
        {**invoice, "status": "lost"},
        {**invoice, "customer": {"object": "customer", "id": "cus_1"}},
        {**invoice, "lines": {**invoice["lines"], "data": [{**invoice["lines"]["data"][0], "amount": None}]}},
    ):
        assert openapi.faults(spoiled) != []
        assert openapi.faults_of_answer("GET", path, 200, spoiled) != []
    assert openapi.faults_of_answer("GET", path, 404, {"error": {"message": "no"}}) != []


KINDS = {
    "billing.meter",
    "billing.meter_event",
    "billing.meter_event_summary",
    "billing_portal.session",
    "charge",
    "checkout.session",
    "customer",
    "event",
    "invoice",
    "invoice_payment",
    "invoiceitem",
    "item",
    "line_item",
    "list",
    "payment_intent",
    "payment_method",
    "price",
    "product",
    "refund",
    "setup_intent",
    "subscription",
    "subscription_item",
    "test_helpers.test_clock",
}
