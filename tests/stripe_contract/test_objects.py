"""Every answer of the local server is one that Stripe could give: by the schemas of Stripe's own OpenAPI."""

import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.platform import ROOT, free_port
from tests.stripe_contract.openapi import OpenAPI
from tests.stripe_contract.recorder import HOOK, Exchange, recording
from tests.stripe_contract.scenario import Life
from tools.local_stripe import resources  # noqa: F401  (declares the endpoints)
from tools.local_stripe.endpoints import ENDPOINTS

pytestmark = pytest.mark.xdist_group("stripe_contract")
KEY = "sk_test_contract"


@pytest.fixture(scope="module")
def exchanges(openapi: OpenAPI, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Exchange]]:
    """All that was asked and answered in a life, webhooks among it."""
    folder, port = tmp_path_factory.mktemp("local-stripe"), free_port()
    address = f"http://127.0.0.1:{port}"
    with recording(address) as recorder:
        hook = f"{recorder.address}{HOOK}"
        command = [sys.executable, "-m", "tools.local_stripe", "--port", str(port), "--data", str(folder / "data")]
        command += ["--key", KEY, "--webhook", hook, "--webhook-secret", "whsec_contract"]
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)
        try:
            _wait_ready(address, process, folder / "log")
            life = Life(recorder.address, KEY)
            life.live()
            _wait_for_webhooks(recorder.exchanges, len(life.events))
            yield list(recorder.exchanges)
        finally:
            process.terminate()
            process.wait(timeout=10)


def _wait_ready(address: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + 20
    while True:
        try:
            httpx.get(f"{address}/_local/health", trust_env=False).raise_for_status()
            return
        except httpx.HTTPError:
            assert time.monotonic() < deadline, log.read_text()
            assert process.poll() is None, log.read_text()
            time.sleep(0.05)


def _wait_for_webhooks(exchanges: list[Exchange], number: int) -> None:
    deadline = time.monotonic() + 20
    while len(_hooks(exchanges)) < number:
        assert time.monotonic() < deadline, f"{len(_hooks(exchanges))} webhooks of {number}"
        time.sleep(0.1)


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
    "plan",
    "price",
    "product",
    "setup_intent",
    "subscription",
    "subscription_item",
    "test_helpers.test_clock",
}
