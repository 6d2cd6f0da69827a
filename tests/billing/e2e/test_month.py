"""A month in the life of a customer, and some more: real processes, REST, a Stripe whose clock is moved."""

import io
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pypdf import PdfReader

from tests.billing.e2e.shop import Customer, Shop, until

pytestmark = [pytest.mark.xdist_group("billing"), pytest.mark.slow]

DAY = 86_400
GOOD, FAILS_LATER = "pm_card_visa", "pm_card_chargeCustomerFail"
PRO, ENTERPRISE = 4_900, 49_900  # cents
FREE_DEVICES, PRO_DEVICES = 2, 4


def seconds(moment: str) -> int:
    return int(datetime.fromisoformat(moment).timestamp())


class Month:
    """One customer, and the clock that his subscription lives by."""

    def __init__(self, shop: Shop) -> None:
        self.shop, self.clock = shop, shop.stripe.clock()
        self.ada = shop.customer()

    def next_period(self) -> None:
        """To a day after the end of the current period: its invoice is finalized an hour after it was made."""
        self.shop.stripe.advance(self.clock, seconds(self.ada.subscription()["current_period_end"]) + DAY)

    def invoices(self) -> Any:
        """The newest first."""
        return self.ada("GET", "/billing/invoices?sort=-created_at")["items"]

    def paid(self, count: int) -> Any:
        """Wait until so many invoices that cost something are paid; the newest."""

        def there() -> Any:
            found = [one for one in self.invoices() if one["status"] == "paid" and one["total"]]
            return found[0] if len(found) == count else None

        return until(there)


def test_a_month_in_the_life(shop: Shop) -> None:
    # Whatever Stripe says, it says twice and in no order.
    shop.stripe.control("webhooks", duplicate=1, shuffle=True)
    month = Month(shop)
    tries_it(month)
    pays(month)
    uses_it(month)
    reads_the_invoice(month)
    cannot_pay(month)
    pays_after_all(month)
    grows_and_shrinks(month)
    leaves(month)


def tries_it(month: Month) -> None:
    ada = month.ada
    assert [plan["id"] for plan in ada("GET", "/billing/plans")["items"]] == ["free", "pro", "enterprise"]
    assert (ada.quota("devices")["limit"], ada.quota("devices")["used"]) == (FREE_DEVICES, 0)
    for _ in range(FREE_DEVICES):
        ada.device()
    refused = ada.device(expect=402)
    assert (refused["code"], refused["quota"], refused["limit"], refused["used"]) == ("QUOTA_EXCEEDED", "devices", 2, 2)
    begun = ada("POST", "/billing/subscription", {"plan": "pro", "trial": True}, expect=201)
    assert (begun["status"], begun["plan"]) == ("trialing", "pro")
    assert begun["trial_end"] == begun["current_period_end"]
    assert ada.quota("devices")["limit"] == PRO_DEVICES
    ada.device()


def pays(month: Month) -> None:
    card = month.ada("POST", "/billing/payment-methods", {"payment_method_id": GOOD}, expect=201)
    assert (card["brand"], card["last4"], card["is_default"]) == ("visa", "4242", True)
    month.next_period()
    month.ada.becomes("active")
    assert month.paid(1)["total"] == PRO


def uses_it(month: Month) -> None:
    """What was used in an hour that is over is counted once, and told to Stripe once, however often it is asked for."""
    shop, ada = month.shop, month.ada
    hour = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(hours=3)
    aged = "UPDATE billing_accounts SET created_at = created_at - interval '1 day' WHERE org_id = %(org)s"
    shop.rows(aged, org=ada.org_id)  # no hour is told of before there was a customer
    shop.rows(
        "INSERT INTO usage_points (org_id, hour, points) VALUES (%(org)s, %(hour)s, 1234)", org=ada.org_id, hour=hour
    )
    for _ in range(2):
        shop.job("billing.aggregate")
    stamp = hour.isoformat().replace("+00:00", "Z")
    until(lambda: points_at_stripe(shop, ada) == 1234)
    until(
        lambda: shop.rows(
            "SELECT 1 FROM usage_hours WHERE org_id = %(org)s AND reported_at IS NOT NULL", org=ada.org_id
        )
    )
    used = ada("GET", f"/billing/usage?from={stamp}&granularity=hour")
    assert sum(one["points"] for one in used["buckets"]) == 1234
    assert points_at_stripe(shop, ada) == 1234


def points_at_stripe(shop: Shop, ada: Customer) -> int:
    (customer,) = shop.stripe.customers_of(ada.org_id)
    meters = {one["event_name"]: one["id"] for one in shop.stripe.get("/billing/meters", limit=100)["data"]}
    name = next(one for one in meters if "point" in one)
    now = int(datetime.now(UTC).timestamp()) // 60 * 60
    summaries = shop.stripe.get(
        f"/billing/meters/{meters[name]}/event_summaries",
        customer=customer["id"], start_time=now - 7 * DAY, end_time=now + 60,
    )  # fmt: skip
    return int(sum(one["aggregated_value"] for one in summaries["data"]))


def reads_the_invoice(month: Month) -> None:
    month.next_period()
    invoice = month.paid(2)
    shown = month.ada("GET", f"/billing/invoices/{invoice['id']}")
    assert shown["number"]
    assert (shown["currency"], shown["total"], shown["amount_paid"], shown["amount_due"]) == ("eur", PRO, PRO, 0)
    assert sum(line["amount"] for line in shown["lines"]) == PRO
    answer = month.ada.http.get(f"/billing/invoices/{invoice['id']}/download")
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, "application/pdf")
    text = " ".join(page.extract_text() for page in PdfReader(io.BytesIO(answer.content)).pages)
    assert shown["number"] in text
    assert "49.00" in text


def cannot_pay(month: Month) -> None:
    """The card is taken and then refuses: the fleet goes on, and may grow."""
    ada = month.ada
    card = ada("POST", "/billing/payment-methods", {"payment_method_id": FAILS_LATER}, expect=201)
    ada("POST", f"/billing/payment-methods/{card['id']}/default")
    month.next_period()
    ada.becomes("past_due")
    assert month.invoices()[0]["status"] == "open"
    assert ada.quota("devices")["limit"] == PRO_DEVICES
    ada.device()
    assert ada.device(expect=402)["limit"] == PRO_DEVICES


def pays_after_all(month: Month) -> None:
    """A card that works is the default from now on; Stripe tries the open invoice again some days later."""
    shop, ada = month.shop, month.ada
    good = next(one for one in ada("GET", "/billing/payment-methods")["items"] if one["last4"] == "4242")
    ada("POST", f"/billing/payment-methods/{good['id']}/default")
    now = shop.stripe.get(f"/test_helpers/test_clocks/{month.clock}")["frozen_time"]
    shop.stripe.advance(month.clock, now + 8 * DAY)
    ada.becomes("active")
    assert month.paid(3)["total"] == PRO


def grows_and_shrinks(month: Month) -> None:
    ada = month.ada
    preview = ada("PUT", "/billing/subscription?preview=true", {"plan": "enterprise"})
    assert ada.subscription()["plan"] == "pro", "a preview changes nothing"
    assert sum(line["amount"] for line in preview["lines"]) == preview["next_invoice"]["amount_due"]
    assert ENTERPRISE < preview["next_invoice"]["amount_due"] < 2 * ENTERPRISE, "the rest of this period, and the next"
    assert ada("PUT", "/billing/subscription", {"plan": "enterprise"})["plan"] == "enterprise"
    more = [ada.device() for _ in range(2)]
    refused = ada("PUT", "/billing/subscription", {"plan": "pro"}, expect=409)
    assert refused["too_much"] == [{"quota": "devices", "limit": PRO_DEVICES, "used": PRO_DEVICES + 2}]
    assert ada("GET", "/devices")["total"] == PRO_DEVICES + 2, "nothing is deleted"
    for device in more:
        ada("DELETE", f"/devices/{device['id']}", expect=204)
    assert ada("PUT", "/billing/subscription", {"plan": "pro"})["plan"] == "pro"
    assert ada.quota("devices")["limit"] == PRO_DEVICES


def leaves(month: Month) -> None:
    ada = month.ada
    assert ada("DELETE", "/billing/subscription")["cancel_at_period_end"] is True
    resumed = ada("POST", "/billing/subscription/resume")
    assert (resumed["status"], resumed["cancel_at_period_end"]) == ("active", False)
    assert ada("DELETE", "/billing/subscription?at=period_end")["status"] == "active"
    month.next_period()
    ada.becomes("canceled")
    devices = ada.quota("devices")
    assert (devices["limit"], devices["used"]) == (FREE_DEVICES, PRO_DEVICES), "nothing is deleted"
    assert ada.device(expect=402)["limit"] == FREE_DEVICES
    (customer,) = month.shop.stripe.customers_of(ada.org_id)
    listed = month.shop.stripe.get("/subscriptions", customer=customer["id"], status="all")["data"]
    assert [one["status"] for one in listed] == ["canceled"]
