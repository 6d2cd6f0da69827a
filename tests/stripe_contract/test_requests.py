"""Every request of ``stripe_client`` is one that Stripe knows: by its ``stripe-mock``, and in depth by its OpenAPI."""

import inspect
from collections.abc import Iterator
from types import GeneratorType
from typing import Any

import httpx
import pytest

from app.billing import stripe_client
from config.settings import settings
from tests.platform import TLS
from tests.stripe_contract.examples import ASKS_NO_API, EXAMPLES, Example
from tests.stripe_contract.openapi import OpenAPI
from tests.stripe_contract.recorder import Recorder, recording
from tests.stripe_contract.stripe_mock import AUTHORIZED

pytestmark = pytest.mark.xdist_group("stripe_contract")


@pytest.fixture(scope="module")
def recorder(stripe_mock: str) -> Iterator[Recorder]:
    with recording(stripe_mock) as one:
        yield one


@pytest.fixture
def stripe(recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The module, with a key and with stripe-mock for Stripe."""
    monkeypatch.setenv("STRIPE_API_KEY", "sk_test_123")
    monkeypatch.setenv("STRIPE_API_BASE", recorder.address)
    settings.cache_clear()
    yield stripe_client
    monkeypatch.undo()
    settings.cache_clear()


def functions() -> list[str]:
    """What ``stripe_client`` offers to the rest."""
    found = inspect.getmembers(stripe_client, inspect.isfunction)
    return [name for name, one in found if one.__module__ == stripe_client.__name__ and not name.startswith("_")]


def test_every_function_that_asks_has_an_example() -> None:
    assert sorted(functions()) == sorted([*EXAMPLES, *ASKS_NO_API])


@pytest.mark.parametrize(
    ("name", "example"), [pytest.param(name, one, id=name) for name, many in EXAMPLES.items() for one in many]
)
def test_stripe_takes_it(name: str, example: Example, stripe: Any, recorder: Recorder, openapi: OpenAPI) -> None:
    recorder.exchanges.clear()
    answer = getattr(stripe, name)(*example[0], **example[1])
    if isinstance(answer, GeneratorType):
        list(answer)
    assert recorder.exchanges
    for asked in recorder.exchanges:
        assert asked.status == 200, asked.body
        assert openapi.faults_of_request(asked.method, asked.path, asked.parameters) == []


def test_what_has_an_effect_carries_its_key(recorder: Recorder, stripe: Any) -> None:
    recorder.exchanges.clear()
    for name, many in EXAMPLES.items():
        for positional, named in many:
            if "key" in named:
                getattr(stripe, name)(*positional, **named)
    assert recorder.exchanges
    assert {asked.headers.get("idempotency-key") for asked in recorder.exchanges} == {"k"}


@pytest.mark.parametrize(
    ("method", "path", "parameters", "status"),
    [
        ("POST", "/v1/customers", {"name": "Pumps", "colour": "red"}, 400),
        ("GET", "/v1/invoices", {"colour": "red"}, 400),
        ("POST", "/v1/subscriptions", {"customer": "c", "payment_behavior": "hope"}, 400),
        ("POST", "/v1/subscriptionz", {"customer": "c"}, 404),
    ],
)
def test_stripe_mock_refuses_what_stripe_does_not_know(
    stripe_mock: str, openapi: OpenAPI, method: str, path: str, parameters: dict[str, str], status: int
) -> None:
    where = "params" if method == "GET" else "data"
    refused: Any = httpx.request(
        method, stripe_mock + path, headers=AUTHORIZED, trust_env=False, **{where: parameters}, verify=TLS
    )  # type: ignore[arg-type]
    assert refused.status_code == status
    assert openapi.faults_of_request(method, path, list(parameters.items()))


@pytest.mark.parametrize(
    ("parameters", "fault"),
    [
        ([("customer", "c"), ("items[0][pric]", "p")], "items.0: Additional properties"),
        ([("customer", "c"), ("items[0][quantity]", "many")], "items.0.quantity"),
        ([("customer", "c"), ("trial_end", "later")], "trial_end"),
        ([("customer", "c"), ("transfer_data[amount_percent]", "1.5")], "transfer_data"),
        ([("customer", "c"), ("expand[0]", "latest_invoice.secret")], "expand: latest_invoice.secret"),
    ],
)
def test_faults_deep_in_a_request_are_found(openapi: OpenAPI, parameters: list[tuple[str, str]], fault: str) -> None:
    """stripe-mock takes all of these."""
    found = openapi.faults_of_request("POST", "/v1/subscriptions", parameters)
    assert len(found) == 1
    assert fault in found[0]
