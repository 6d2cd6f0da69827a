"""What was answered is kept, whatever happens to the process."""

import signal
import sqlite3
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import stripe

from tests.local_stripe.conftest import NOON
from tests.local_stripe.process import SECRETS, LocalStripe, Receiver, until


@pytest.fixture
def own(tmp_path: Path, receiver: Receiver) -> Any:
    """A server that a test may kill."""
    server = LocalStripe(tmp_path, "--webhook", receiver.url, "--webhook-secret", SECRETS[0])
    yield server
    server.stop(signal.SIGKILL)


def test_a_killed_server_knows_all_that_it_said(own: LocalStripe, receiver: Receiver) -> None:
    api, told = own.client(), []

    def ask() -> None:
        try:
            for number in range(10_000):
                told.append(api.v1.customers.create({}, {"idempotency_key": f"kill-{number}"}).id)
        except stripe.APIConnectionError:
            pass

    thread = threading.Thread(target=ask)
    thread.start()
    until(lambda: len(told) > 20)
    own.stop(signal.SIGKILL)
    thread.join()
    own.start()
    # The one under way at the kill happened wholly or not at all, and asked again it is there once.
    for number in range(len(told) + 1):
        again = api.v1.customers.create({}, {"idempotency_key": f"kill-{number}"}).id
        assert again == (told[number] if number < len(told) else again)
    listed = [one.id for one in api.v1.customers.list({"limit": 100}).auto_paging_iter()]
    assert len(listed) == len(told) + 1
    until(lambda: {event["data"]["object"]["id"] for event in receiver.events()} >= set(listed))


def test_an_advance_that_was_cut_short_goes_on(own: LocalStripe, tmp_path: Path) -> None:
    api = own.client()
    clock = api.v1.test_helpers.test_clocks.create({"frozen_time": NOON}).id
    customer = api.v1.customers.create({"test_clock": clock, "payment_method": "pm_card_visa"})
    card = api.v1.payment_methods.list({"customer": customer.id}).data[0].id
    wish: Any = {"customer": customer.id, "items": [{"price": "price_pro"}], "default_payment_method": card}
    api.v1.subscriptions.create(wish)
    own.stop(signal.SIGKILL)
    with sqlite3.connect(tmp_path / "stripe.sqlite") as db:
        changed = "json_set(body, '$.status', 'advancing', '$.frozen_time', ?)"
        db.execute(f"UPDATE objects SET body = {changed} WHERE id = ?", (NOON + 60 * 86_400, clock))
    own.start()
    until(lambda: api.v1.test_helpers.test_clocks.retrieve(clock).status == "ready")
    assert [invoice.status for invoice in api.v1.invoices.list({"customer": customer.id}).data] == ["paid"] * 3


def test_what_nobody_can_ask_for_is_forgotten(own: LocalStripe, tmp_path: Path) -> None:
    api = own.client()
    made = [api.v1.customers.create({}, {"idempotency_key": f"old-{number}"}).id for number in range(2)]
    until(lambda: own.local.get("/webhooks").json()["pending"] == 0)
    own.stop()
    with sqlite3.connect(tmp_path / "stripe.sqlite") as db:
        db.execute("UPDATE idempotency SET created = created - 86401 WHERE key = 'old-0'")
        body = "json_set(body, '$.created', body ->> '$.created' - 31 * 86400)"
        db.execute(f"UPDATE objects SET body = {body} WHERE kind = 'event' AND body LIKE '%' || ? || '%'", (made[0],))
    own.start()
    until(lambda: [event.data.object["id"] for event in api.v1.events.list().data] == made[1:])
    again = [api.v1.customers.create({}, {"idempotency_key": f"old-{number}"}).id for number in range(2)]
    assert (again[0] != made[0], again[1]) == (True, made[1])


def test_without_a_clock_real_time_renews(own: LocalStripe, tmp_path: Path) -> None:
    api = own.client()
    customer = api.v1.customers.create({"payment_method": "pm_card_visa"})
    card = api.v1.payment_methods.list({"customer": customer.id}).data[0].id
    wish: Any = {"customer": customer.id, "items": [{"price": "price_pro"}], "default_payment_method": card}
    made = api.v1.subscriptions.create({**wish, "trial_end": int(time.time()) + 2})
    assert made.status == "trialing"
    until(lambda: api.v1.subscriptions.retrieve(made.id).status == "active")
    newest = api.v1.invoices.list({"customer": customer.id}).data[0]
    assert (newest.status, newest.amount_due) == ("draft", 4900)
