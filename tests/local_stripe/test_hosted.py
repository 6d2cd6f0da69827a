"""Checkout and portal pages, invoices on paper, meters."""

import time
from typing import Any

import httpx
import pytest
import stripe

from tests.local_stripe.conftest import Someone
from tests.local_stripe.process import LocalStripe
from tests.platform import TLS


def post(url: str, **form: str) -> httpx.Response:
    return httpx.post(url, data=form, trust_env=False, verify=TLS)


def session_of(someone: Someone, **more: Any) -> stripe.checkout.Session:
    body: Any = {
        "mode": "subscription", "customer": someone.id, "line_items": [{"price": "price_pro", "quantity": 1}],
        "success_url": "https://app.example/done?s={CHECKOUT_SESSION_ID}", "cancel_url": "https://app.example/back",
        **more,
    }  # fmt: skip
    return someone.api.v1.checkout.sessions.create(body)


def test_checkout_makes_a_subscription(someone: Someone) -> None:
    session = session_of(someone, subscription_data={"metadata": {"plan": "pro"}})
    assert "Pro" in httpx.get(session.url, trust_env=False, verify=TLS).text
    answer = post(session.url, card="pm_card_visa")
    assert (answer.status_code, answer.headers["Location"]) == (303, f"https://app.example/done?s={session.id}")
    after = someone.api.v1.checkout.sessions.retrieve(session.id, {"expand": ["subscription", "line_items"]})
    assert (after.status, after.payment_status, after.subscription.status) == ("complete", "paid", "active")
    assert after.subscription.metadata["plan"] == "pro"
    assert after.line_items.data[0].amount_total == 4900
    assert "not open" in post(session.url, card="pm_card_visa").text


def test_checkout_refuses_cards_and_lets_go(someone: Someone) -> None:
    session = session_of(someone)
    refused = post(session.url, card="pm_card_chargeDeclined")
    assert (refused.status_code, "declined" in refused.text) == (402, True)
    assert someone.invoices() == []
    assert post(session.url, action="cancel").headers["Location"] == "https://app.example/back"
    assert someone.api.v1.checkout.sessions.expire(session.id).status == "expired"


def test_checkout_waits_for_the_owner(someone: Someone) -> None:
    session = session_of(someone)
    page = post(session.url, card="pm_card_threeDSecure2Required").headers["Location"]
    assert page.startswith("/_local/confirm/pi_")
    done = post(someone.server.base + page, outcome="succeed")
    assert done.headers["Location"] == f"https://app.example/done?s={session.id}"
    assert someone.api.v1.checkout.sessions.retrieve(session.id).status == "complete"
    assert someone.subscription().status == "active"


def test_checkout_with_a_trial_or_for_a_card_alone_takes_no_money(someone: Someone) -> None:
    post(session_of(someone, subscription_data={"trial_period_days": 14}).url, card="pm_card_visa")
    assert someone.subscription().status == "trialing"
    alone: Any = {"mode": "setup", "customer": someone.id, "success_url": "https://app.example", "currency": "eur"}
    session = someone.api.v1.checkout.sessions.create(alone)
    post(session.url, card="pm_card_mastercard")
    assert someone.api.v1.checkout.sessions.retrieve(session.id).payment_status == "no_payment_required"
    assert len(someone.api.v1.payment_methods.list({"customer": someone.id}).data) == 2


def test_the_portal_does_what_its_buttons_say(someone: Someone) -> None:
    method = someone.card()
    id = someone.subscribe().id
    wish: Any = {"customer": someone.id, "return_url": "https://app.example"}
    url = someone.api.v1.billing_portal.sessions.create(wish).url
    assert id in httpx.get(url, trust_env=False, verify=TLS).text
    assert post(url, action="cancel", subscription=id).status_code == 303
    assert someone.subscription().cancel_at_period_end
    post(url, action="resume", subscription=id)
    assert not someone.subscription().cancel_at_period_end
    post(url, action="add", card="pm_card_mastercard")
    second = someone.api.v1.payment_methods.list({"customer": someone.id}).data[0].id
    post(url, action="default", payment_method=second)
    post(url, action="remove", payment_method=method)
    assert [one.id for one in someone.api.v1.payment_methods.list({"customer": someone.id}).data] == [second]
    assert someone.api.v1.customers.retrieve(someone.id).invoice_settings.default_payment_method == second


def test_the_portal_shows_and_changes_only_its_customers_things(someone: Someone, server: LocalStripe) -> None:
    other = Someone(server, someone.api)
    method = other.card()
    url = someone.api.v1.billing_portal.sessions.create({"customer": someone.id}).url
    assert post(url, action="remove", payment_method=method).status_code == 402
    assert other.api.v1.payment_methods.retrieve(method).customer == other.id


def test_an_open_invoice_is_paid_on_its_page(someone: Someone) -> None:
    someone.card()
    someone.subscribe()
    someone.card("pm_card_authenticationRequired")
    someone.after(days=28, hours=2)
    invoice = someone.invoices()[-1]
    page = httpx.get(invoice.hosted_invoice_url, trust_env=False, verify=TLS).headers["Location"]
    question = post(page, action="pay", invoice=invoice.id).headers["Location"]
    post(someone.server.base + question, outcome="succeed")
    assert (someone.invoices()[-1].status, someone.subscription().status) == ("paid", "active")
    paper = httpx.get(invoice.hosted_invoice_url, trust_env=False, verify=TLS).headers["Location"]
    assert paper == f"/i/{invoice.id}/pdf"


def test_an_invoice_is_a_pdf_also_when_its_customer_is_gone(someone: Someone) -> None:
    someone.card()
    someone.subscribe()
    invoice = someone.invoices()[0]
    assert invoice.hosted_invoice_url == f"{someone.server.base}/i/{invoice.id}"
    someone.api.v1.customers.delete(someone.id)
    answer = httpx.get(invoice.invoice_pdf, trust_env=False, verify=TLS)
    assert (answer.headers["Content-Type"], answer.content[:5]) == ("application/pdf", b"%PDF-")


def test_meter_events_count_once(api: stripe.StripeClient) -> None:
    customer, now = api.v1.customers.create({}).id, int(time.time())

    def report(identifier: str, value: str = "5", at: int = now, name: str = "device_hours") -> None:
        payload = {"stripe_customer_id": customer, "value": value}
        body: Any = {"event_name": name, "payload": payload, "identifier": identifier, "timestamp": at}
        api.v1.billing.meter_events.create(body)

    report(f"{customer}-1")
    report(f"{customer}-2", "2.5")
    wrong: list[dict[str, Any]] = [
        {"identifier": f"{customer}-1"},
        {"identifier": f"{customer}-3", "at": now - 36 * 86_400},
        {"identifier": f"{customer}-4", "at": now + 600},
        {"identifier": f"{customer}-5", "name": "unheard_of"},
        {"identifier": f"{customer}-6", "value": "many"},
    ]
    for one in wrong:
        with pytest.raises(stripe.InvalidRequestError):
            report(**one)
    meter = next(m.id for m in api.v1.billing.meters.list().data if m.event_name == "device_hours")
    minute = now // 60 * 60
    span: Any = {"customer": customer, "start_time": minute - 60, "end_time": minute + 60}
    assert api.v1.billing.meters.event_summaries.list(meter, span).data[0].aggregated_value == 7.5
    with pytest.raises(stripe.InvalidRequestError, match="minute"):
        api.v1.billing.meters.event_summaries.list(meter, {**span, "start_time": minute - 59})
