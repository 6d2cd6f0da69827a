"""A card number never passes: a request with one is refused before anything of it is kept, and no log shows it."""

import json
import logging
import random
import time
from typing import Any
from uuid import uuid4

import pytest

from app import cards
from app.observability import REDACTED, redact
from tests.billing.helpers_routes import GOOD, Buyer

# Stripe's test numbers: Visa (16, 13), Mastercard (5…, 2…), American Express, Discover, Diners Club, JCB, UnionPay (16,
# 19).
NUMBERS = [
    "4242424242424242", "4222222222222", "5555555555554444", "2223003122003222", "378282246310005", "6011111111111117",
    "30569309025904", "3566002020360505", "6200000000000005", "6205500000000000004",
]  # fmt: skip
WRITTEN = [
    "4242 4242 4242 4242", "4242-4242-4242-4242", "4242.4242.4242.4242", "4242\u00a04242\u00a04242\u00a04242",
    "4242–4242–4242–4242", "3782 822463 10005", "4242 4242 4242 4242 12/30 123", "42 4242 4242 4242 42",
    "my card is 4242424242424242, thanks", "card:4242424242424242;", "٤٢٤٢٤٢٤٢٤٢٤٢٤٢٤٢", "4242%204242%204242%204242",
]  # fmt: skip
HARMLESS: list[Any] = [
    "4242424242424241", "424242424242", "42424242424242424242", "1732449235123", "2026-11-24T12:00:00.123456Z",
    "pm_1QxYz2AbCdEf", "3f2b8c1e-5d0a-4b7e-9c55-0e6f3a1d2b4c", "https://example.com/paid?at=1732449235123", "",
    1732449235123, 0, -1, 0.5, 1e300, True, None,
]  # fmt: skip


@pytest.mark.parametrize("number", [*NUMBERS, *WRITTEN])
def test_a_number_is_known_wherever_it_stands(number: str) -> None:
    for value in (number, [number], {"a": {"b": [1, {"c": number}]}}, {number: 1}):
        assert cards.held(value)


@pytest.mark.parametrize("number", NUMBERS)
def test_a_number_that_is_no_text(number: str) -> None:
    assert cards.held(int(number))
    assert cards.held({"a": [float(number)]}) or len(number) > 16  # a float has no more digits


@pytest.mark.parametrize("value", HARMLESS, ids=repr)
def test_what_is_no_card_number(value: Any) -> None:
    assert not cards.held({"a": [value]})


def test_times_in_milliseconds_are_never_taken_for_one() -> None:
    assert not any(cards.held(moment) for moment in range(1_700_000_000_000, 1_700_000_002_000))


def test_a_hostile_text_costs_little() -> None:
    deep: Any = "4242"
    for _ in range(50_000):
        deep = [deep]
    began = time.process_time()
    assert not cards.held([deep, "1 " * 30_000, "1" * 60_000, "1-" * 30_000])
    assert time.process_time() - began < 2


# Refused


def requests(number: str) -> list[tuple[str, str, Any]]:
    """Every place where somebody may put one."""
    return [
        ("POST", "/billing/payment-methods", {"payment_method_id": number}),
        ("POST", "/billing/payment-methods", {"payment_method_id": GOOD, "card": {"number": number, "cvc": "123"}}),
        ("POST", "/billing/payment-methods", {"payment_method_id": GOOD, "number": int(number)}),
        ("POST", "/billing/subscription", {"plan": "pro", "payment_method_id": GOOD, "note": [number]}),
        ("POST", "/billing/subscription", {"plan": number}),
        ("PUT", "/billing/subscription", {"plan": "pro", number: True}),
        ("POST", "/billing/subscription/resume", {"card": number}),
        ("POST", "/billing/checkout-session", {"plan": "pro", "success_url": f"https://example.com/?card={number}"}),
        ("POST", "/billing/portal-session", {"return_url": f"https://example.com/{number}"}),
        ("DELETE", f"/billing/subscription?at={number}", None),
        ("GET", f"/billing/invoices?sort={number}", None),
    ]


@pytest.mark.parametrize("number", ["4242424242424242", "378282246310005"])
def test_every_endpoint_refuses_it_and_keeps_nothing(
    buyer: Buyer, number: str, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    for method, path, body in requests(number):
        refused = buyer.request(method, path, body, expect=400, headers={"Idempotency-Key": "k"})
        assert refused["code"] == "VALIDATION_ERROR"
        assert refused["details"] == {"_body": ["Must not hold a card number."]}
        assert number not in json.dumps(refused)
    assert buyer.rows("SELECT 1 FROM billing_operations UNION ALL SELECT 1 FROM idempotency_keys") == []
    assert buyer.calls("POST", "/v1/") == []
    said = capsys.readouterr()
    assert number not in caplog.text + said.out + said.err


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        ("application/x-www-form-urlencoded", b"payment_method_id=pm_1&card[number]=4242424242424242"),
        ("text/plain", b"4242 4242 4242 4242"),
        ("application/json", b'{"card": "4242424242424242"'),
        ("application/json", b'{"card": "\\u0034242424242424242"}'),
        ("application/json", b"\xff 4242424242424242"),
    ],
)
def test_whatever_the_body_is(buyer: Buyer, kind: str, data: bytes) -> None:
    answer = buyer.http.post(
        "/api/v1/billing/payment-methods", data=data, headers={**buyer.headers, "Content-Type": kind}
    )
    assert (answer.status_code, answer.json["details"]) == (400, {"_body": ["Must not hold a card number."]})


def test_a_body_without_one_passes(buyer: Buyer) -> None:
    assert buyer.post("/billing/payment-methods", {"payment_method_id": GOOD}, expect=201)["last4"] == "4242"


def test_a_large_body_is_413(buyer: Buyer) -> None:
    assert buyer.post("/billing/payment-methods", {"payment_method_id": "x" * 70_000}, expect=413)


def test_the_webhook_is_judged_by_its_signature_alone(buyer: Buyer) -> None:
    refused = buyer.post("/billing/webhooks/stripe", {"network_transaction_id": "4242424242424242"}, expect=400)
    assert "card number" not in refused["error"]


# Redacted


def line(value: Any) -> Any:
    return redact(None, "info", {"event": value})["event"]


@pytest.mark.parametrize("number", [*NUMBERS, "4242 4242 4242 4242", "4242-4242-4242-4242", "3782 822463 10005"])
def test_a_log_line_does_not_show_it(number: str) -> None:
    assert line(f"POST /x {number} refused") == f"POST /x {REDACTED} refused"
    assert line({"card": [number]}) == f"{{'card': ['{REDACTED}']}}"
    assert line(f"number={number}") == f"number={REDACTED}"


@pytest.mark.parametrize("number", NUMBERS)
def test_nor_as_a_number(number: str) -> None:
    assert line(int(number)) == REDACTED


@pytest.mark.parametrize(
    "secret", ["sk_test_51AbC", "rk_live_51AbC", "whsec_abc123", "pi_3Qx_secret_1a2b", "seti_1Q_secret_x"]
)
def test_nor_what_opens_stripe(secret: str) -> None:
    assert line(f"with {secret}: refused") == f"with {REDACTED}: refused"


def test_what_else_has_many_digits_stays() -> None:
    dice = random.Random(7)
    for _ in range(20_000):
        identifier = uuid4()
        told = [
            str(identifier), identifier.hex, f"/api/v1/devices/{identifier}/shadow", str(time.time_ns()),
            str(dice.randrange(1_600_000_000_000, 2_000_000_000_000)), repr(dice.random()), f"{dice.random():.16f}",
            f"cus_{dice.randrange(10**15, 10**16)}", str(dice.randrange(10**11, 10**12)),
        ]  # fmt: skip
        assert [line(text) for text in told] == told
        assert line(dice.randrange(1_600_000_000_000, 2_000_000_000_000)) != REDACTED
