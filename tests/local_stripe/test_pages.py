"""Checkout, portal and confirmation as a person uses them: pages are read, forms are filled in and sent."""

import io
import re
from html.parser import HTMLParser
from typing import Any
from urllib.parse import urljoin

import httpx
import pytest
import stripe
from pypdf import PdfReader

from tests.local_stripe.conftest import Someone
from tests.local_stripe.process import LocalStripe
from tests.platform import TLS
from tools.local_stripe.money import shown

HOME = "http://shop.example"


class Browser(HTMLParser):
    """Shows one page: ``forms`` (fields by name, ``label`` of the button), ``text``. Stops at pages of others."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self.client = httpx.Client(timeout=20, trust_env=False, verify=TLS)
        self.show(self.client.get(url))

    def show(self, answer: httpx.Response) -> None:
        while answer.has_redirect_location:
            target = urljoin(str(answer.url), answer.headers["Location"])
            if target.startswith(HOME):
                self.url, self.forms, self.text, self.html = target, [], "", ""
                return
            answer = self.client.get(target)
        assert answer.status_code in (200, 402), answer.text
        self.url, self.forms, self.text, self.html, self._in = str(answer.url), [], "", answer.text, ""
        self.feed(answer.text)
        self.text = " ".join(self.text.split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self._in = tag
        if tag == "form":
            assert given["method"] == "post"
            self.forms.append({"label": "", "fields": {}})
        elif tag in ("input", "select"):
            self.forms[-1]["fields"][given["name"]] = given.get("value", "")

    def handle_endtag(self, tag: str) -> None:
        self._in = ""

    def handle_data(self, data: str) -> None:
        if self._in == "button":
            self.forms[-1]["label"] = data
        elif self._in not in ("style", "title", "option"):
            self.text += f" {data}"

    def press(self, label: str, number: int = 0, **fields: str) -> None:
        form = [one for one in self.forms if one["label"] == label][number]
        assert set(fields) <= set(form["fields"])
        self.show(self.client.post(self.url, data={**form["fields"], **fields}))

    @property
    def labels(self) -> list[str]:
        return [form["label"] for form in self.forms]


def checkout(api: stripe.StripeClient, customer: str, **params: Any) -> Any:
    asked: Any = {
        "mode": "subscription",
        "customer": customer,
        "line_items": [{"price": "price_pro", "quantity": 1}],
        "success_url": f"{HOME}/paid?id={{CHECKOUT_SESSION_ID}}",
        "cancel_url": f"{HOME}/left",
        **params,
    }
    return api.v1.checkout.sessions.create(asked)


def test_a_checkout_is_paid(api: stripe.StripeClient, someone: Someone) -> None:
    session = checkout(api, someone.id)
    page = Browser(session.url)
    assert "Pro, every month €49.00" in page.text
    assert "Due today €49.00" in page.text
    page.press("Subscribe", card="pm_card_visa")
    assert page.url == f"{HOME}/paid?id={session.id}"
    done = api.v1.checkout.sessions.retrieve(session.id, {"expand": ["subscription"]})
    assert done.status == "complete"
    assert done.subscription.status == "active"  # type: ignore[union-attr]
    assert someone.invoices()[0].status == "paid"
    assert "This checkout is complete." in Browser(session.url).text


def test_a_trial_costs_nothing_today(api: stripe.StripeClient, someone: Someone) -> None:
    page = Browser(checkout(api, someone.id, subscription_data={"trial_period_days": 14}).url)
    assert "Due today €0.00" in page.text
    page.press("Subscribe", card="pm_card_mastercard")
    assert someone.subscription().status == "trialing"


def test_a_declined_card_is_told_and_another_one_pays(api: stripe.StripeClient, someone: Someone) -> None:
    page = Browser(checkout(api, someone.id).url)
    page.press("Subscribe", card="pm_card_chargeDeclined")
    assert "Your card was declined." in page.text
    assert api.v1.subscriptions.list({"customer": someone.id}).data == []
    page.press("Subscribe", card="pm_card_visa")
    assert page.url.startswith(f"{HOME}/paid")
    assert someone.subscription().status == "active"


@pytest.mark.parametrize(("answer", "status"), [("Confirm", "active"), ("Refuse", None)])
def test_the_bank_asks(api: stripe.StripeClient, someone: Someone, answer: str, status: str | None) -> None:
    page = Browser(checkout(api, someone.id).url)
    page.press("Subscribe", card="pm_card_threeDSecure2Required")
    assert "Your bank Pay €49.00?" in page.text
    page.press(answer)
    if status:
        assert page.url.startswith(f"{HOME}/paid")
        assert someone.subscription().status == status
    else:
        assert "Pay by card" in page.text
        assert not [one for one in api.v1.subscriptions.list({"customer": someone.id}) if one.status == "active"]


def test_one_can_leave(api: stripe.StripeClient, someone: Someone) -> None:
    page = Browser(checkout(api, someone.id).url)
    page.press("Back")
    assert page.url == f"{HOME}/left"


def test_the_portal_changes_what_it_shows(api: stripe.StripeClient, someone: Someone) -> None:
    first = someone.card()
    someone.subscribe()
    page = Browser(api.v1.billing_portal.sessions.create({"customer": someone.id, "return_url": HOME}).url)
    assert "active · €49.00 / month · renews" in page.text
    assert "Visa •••• 4242, 12/2034 default" in page.text
    assert "€49.00 · paid" in page.text
    page.press("Cancel")
    assert someone.subscription().cancel_at_period_end
    assert "ends" in page.text
    page.press("Keep it")
    assert not someone.subscription().cancel_at_period_end
    page.press("Add card", card="pm_card_mastercard")
    assert "Mastercard •••• 4444" in page.text
    page.press("Make default")
    customer = api.v1.customers.retrieve(someone.id, {"expand": ["invoice_settings.default_payment_method"]})
    assert customer.invoice_settings.default_payment_method.card.last4 == "4444"  # type: ignore[union-attr]
    page.press("Remove", number=page_forms(page).index(first))
    assert "4242" not in page.text
    assert [one.card.last4 for one in api.v1.payment_methods.list({"customer": someone.id})] == ["4444"]


def page_forms(page: Browser) -> list[str]:
    """The payment methods of the buttons that remove one."""
    return [form["fields"]["payment_method"] for form in page.forms if form["label"] == "Remove"]


def test_an_open_invoice_is_paid_in_the_portal(api: stripe.StripeClient, someone: Someone) -> None:
    someone.card()
    someone.subscribe()
    someone.card("pm_card_chargeCustomerFail")
    someone.after(days=40)
    page = Browser(api.v1.billing_portal.sessions.create({"customer": someone.id}).url)
    assert "past due" in page.text
    page.press("Pay")
    assert "Your card was declined." in page.text
    page.press("Add card", card="pm_card_mastercard")
    page.press("Make default", number=0)
    page.press("Pay")
    assert someone.subscription().status == "active"


def test_a_portal_changes_nothing_of_others(api: stripe.StripeClient, server: LocalStripe, someone: Someone) -> None:
    someone.card()
    theirs = someone.subscribe()
    stranger = Someone(server, api)
    session = api.v1.billing_portal.sessions.create({"customer": stranger.id})
    answer = httpx.post(session.url, data={"action": "cancel", "subscription": theirs.id}, trust_env=False, verify=TLS)
    assert answer.status_code == 402
    assert not someone.subscription().cancel_at_period_end


def test_pages_load_nothing_from_elsewhere_and_show_names_as_text(api: stripe.StripeClient, someone: Someone) -> None:
    api.v1.customers.update(someone.id, {"name": "<script>alert(1)</script>"})
    someone.card()
    someone.subscribe()
    portal = Browser(api.v1.billing_portal.sessions.create({"customer": someone.id}).url)
    assert "<script>" not in portal.html
    assert "<script>alert(1)</script>" in portal.text
    for html in (portal.html, Browser(checkout(api, someone.id).url).html):
        assert re.findall(r"https?://(?!127\.0\.0\.1)", html) == []


def test_an_invoice_is_read_back_from_its_pdf(api: stripe.StripeClient, someone: Someone) -> None:
    address: Any = {"line1": "1 Wharf", "city": "Leeds", "postal_code": "LS1"}
    api.v1.customers.update(someone.id, {"name": "Pumps & Söhne", "address": address})
    someone.card()
    someone.subscribe()
    (invoice,) = someone.invoices()
    answer = httpx.get(str(invoice.invoice_pdf), trust_env=False, verify=TLS)
    assert answer.headers["Content-Type"] == "application/pdf"
    (page,) = read(answer.content)
    assert f"Invoice {invoice.number}" in page
    assert "Bill to Pumps & Söhne 1 Wharf LS1 Leeds ann@example.com" in page
    assert re.search(r"Pro .*2026-\d\d-\d\d – 2026-\d\d-\d\d 1 €49\.00", page)
    assert "Subtotal €49.00 Total €49.00 Amount paid €49.00 Amount due €0.00" in page


def test_many_lines_take_many_pages() -> None:
    from tools.local_stripe import pdf
    from tools.local_stripe.shapes import billing, payments

    customer = payments.customer(0, None, "ABC")
    price = billing.price("price_1", "prod_1", 500, "jpy", {"interval": "month", "interval_count": 1}, 0)
    item = billing.subscription_item("sub_1", price, 1, (0, 86_400), 0)
    invoice = billing.invoice(customer, "jpy", 0)
    invoice.update(number="ABC-1", total=100_000, subtotal=100_000, amount_remaining=100_000)
    invoice["lines"]["data"] = [billing.line(500, f"Device {number}", (0, 86_400), item) for number in range(200)]
    pages = read(pdf.render(invoice, customer))
    assert len(pages) > 3
    assert all(f"Device {number} 1970-01-01 – 1970-01-02 1 ¥500" in " ".join(pages) for number in range(200))
    assert "Total ¥100,000" in pages[-1]


def read(document: bytes) -> list[str]:
    return [" ".join(page.extract_text().split()) for page in PdfReader(io.BytesIO(document)).pages]


@pytest.mark.parametrize(
    ("amount", "currency", "text"),
    [(4900, "eur", "€49.00"), (-5, "usd", "-$0.05"), (4900, "jpy", "¥4,900"), (1234, "kwd", "KWD 1.234")],
)
def test_an_amount_is_shown_in_its_currency(amount: int, currency: str, text: str) -> None:
    assert shown(amount, currency) == text
