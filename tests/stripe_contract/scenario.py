"""A life of customers of the local server, by Stripe's library: every endpoint is asked, every kind of object answered.

Prices are pounds a month here: 20.00 and 50.00. Times are a test clock's.
"""

import time
from collections.abc import Callable
from typing import Any

import httpx
import stripe

from tests.platform import TLS

HOUR, DAY = 3_600, 86_400
MONTH = 32 * DAY
PAGES = "https://example.org"


class Life:
    """``v1``: the library's services. Each chapter leaves what the next ones need."""

    def __init__(self, address: str, key: str) -> None:
        self.v1 = stripe.StripeClient(key, base_addresses={"api": address}, max_network_retries=0).v1
        self.now = int(time.time()) - 400 * DAY
        self.small = self.price("Small", 2_000)
        self.large = self.price("Large", 5_000)

    def live(self) -> None:
        self.catalog()
        self.customer = self.customers()
        self.card = self.payment_methods(self.customer)
        self.subscription = self.subscriptions(self.customer)
        self.changes()
        self.failing_payment()
        self.unpaid_and_settled()
        self.trial()
        self.confirmation()
        self.intents()
        self.sessions()
        self.usage()
        self.endings()
        self.what_happened()
        self.refusals()

    def price(self, name: str, amount: int) -> str:
        product = self.v1.products.create({"name": name, "metadata": {"plan": name.lower()}})
        recurring: Any = {"interval": "month"}
        made = self.v1.prices.create(
            {"product": product.id, "unit_amount": amount, "currency": "gbp", "recurring": recurring}
        )
        return made.id

    def customer_with(self, card: str, **more: Any) -> str:
        """A customer under the clock, whose card it is."""
        made = self.v1.customers.create(
            {"name": "Pumps Ltd", "email": "a@example.org", "test_clock": self.clock, **more}
        )
        method = self.v1.payment_methods.attach(card, {"customer": made.id})
        self.v1.customers.update(made.id, {"invoice_settings": {"default_payment_method": method.id}})
        return made.id

    def advance(self, seconds: int) -> None:
        self.now += seconds
        self.v1.test_helpers.test_clocks.advance(self.clock, {"frozen_time": self.now})
        until = time.monotonic() + 15
        while self.v1.test_helpers.test_clocks.retrieve(self.clock).status != "ready":
            assert time.monotonic() < until, "the clock does not get ready"
            time.sleep(0.05)

    def catalog(self) -> None:
        product = self.v1.products.list({"limit": 1}).data[0]
        self.v1.products.update(product.id, {"description": "A plan"})
        self.v1.products.retrieve(product.id)
        self.v1.prices.update(self.small, {"nickname": "small"})
        self.v1.prices.retrieve(self.small, {"expand": ["product"]})
        self.v1.prices.list({"product": product.id})
        self.v1.prices.create({"product": product.id, "unit_amount": 100, "currency": "jpy"})

    def customers(self) -> str:
        clock = self.v1.test_helpers.test_clocks.create({"frozen_time": self.now, "name": "a life"})
        self.clock = clock.id
        self.v1.test_helpers.test_clocks.list()
        address: Any = {"line1": "1 Wharf", "city": "Leeds", "country": "GB"}
        customer = self.customer_with("pm_card_visa", address=address, metadata={"org_id": "9f0e"})
        self.v1.customers.retrieve(customer, {"expand": ["invoice_settings.default_payment_method", "subscriptions"]})
        self.v1.customers.list({"email": "a@example.org"})
        return customer

    def payment_methods(self, customer: str) -> str:
        card = self.v1.payment_methods.create({"type": "card", "card": {"token": "tok_mastercard"}})
        self.v1.payment_methods.attach(card.id, {"customer": customer})
        self.v1.payment_methods.update(card.id, {"metadata": {"of": "spare"}})
        self.v1.payment_methods.retrieve(card.id)
        self.v1.payment_methods.list({"customer": customer, "expand": ["data.customer"]})
        self.v1.customers.payment_methods.list(customer)
        self.v1.customers.payment_methods.retrieve(customer, card.id)
        self.v1.payment_methods.detach(card.id)
        return card.id

    def subscriptions(self, customer: str) -> str:
        expand = ["latest_invoice.confirmation_secret", "latest_invoice.payments", "default_payment_method", "customer"]
        made = self.v1.subscriptions.create({"customer": customer, "items": [{"price": self.small}], "expand": expand})
        assert made.status == "active"
        self.v1.subscriptions.retrieve(made.id, {"expand": ["items.data.price.product"]})
        self.v1.subscriptions.list({"customer": customer, "status": "all", "expand": ["data.latest_invoice"]})
        self.v1.subscription_items.list({"subscription": made.id})
        return made.id

    def changes(self) -> None:
        """Up at once with proration, down; canceled at the end of the period and taken back; renewed."""
        item = self.item(self.subscription)
        to_large: Any = {"items": [{"id": item, "price": self.large}], "proration_behavior": "create_prorations"}
        self.advance(10 * DAY)
        preview = self.v1.invoices.create_preview({"subscription": self.subscription, "subscription_details": to_large})
        assert any(line.amount < 0 for line in preview.lines.data)
        self.v1.subscriptions.update(self.subscription, to_large)
        self.v1.invoice_items.list({"customer": self.customer, "pending": True})
        to_small: Any = {"items": [{"id": item, "price": self.small}], "proration_behavior": "always_invoice"}
        self.v1.subscriptions.update(self.subscription, to_small)
        self.v1.subscriptions.update(self.subscription, {"cancel_at_period_end": True})
        self.v1.subscriptions.update(self.subscription, {"cancel_at_period_end": False})
        self.advance(MONTH)
        invoices = self.v1.invoices.list({"customer": self.customer, "expand": ["data.payments"]})
        assert len(invoices.data) >= 3
        one = self.v1.invoices.retrieve(
            invoices.data[0].id, {"expand": ["customer", "parent.subscription_details.subscription"]}
        )
        self.v1.invoices.line_items.list(str(one.id))
        self.v1.invoices.update(str(one.id), {"metadata": {"seen": "yes"}})
        payment = self.v1.invoice_payments.list({"invoice": str(one.id)}).data[0]
        self.v1.invoice_payments.retrieve(payment.id, {"expand": ["payment.payment_intent.latest_charge"]})

    def item(self, subscription: str) -> str:
        found = self.v1.subscriptions.retrieve(subscription)
        return str(found["items"].data[0].id)

    def failing_payment(self) -> None:
        """Past due, then paid by another card."""
        self.debtor = self.customer_with("pm_card_visa")
        made = self.v1.subscriptions.create({"customer": self.debtor, "items": [{"price": self.small}]})
        bad = self.v1.payment_methods.attach("pm_card_chargeCustomerFail", {"customer": self.debtor})
        self.v1.customers.update(self.debtor, {"invoice_settings": {"default_payment_method": bad.id}})
        self.advance(MONTH)
        late = self.v1.subscriptions.retrieve(made.id, {"expand": ["latest_invoice.confirmation_secret"]})
        assert late.status == "past_due"
        invoice: Any = late.latest_invoice
        self.refused(lambda: self.v1.invoices.pay(invoice.id))
        good = self.v1.payment_methods.attach("pm_card_visa", {"customer": self.debtor})
        self.v1.invoices.pay(invoice.id, {"payment_method": good.id})
        assert self.v1.subscriptions.retrieve(made.id).status == "active"

    def unpaid_and_settled(self) -> None:
        """First invoices that are not paid: voided, finalized, written off, settled outside."""
        for what in ("void", "mark", "settle"):
            customer = self.customer_with("pm_card_chargeCustomerFail")
            made = self.v1.subscriptions.create(
                {"customer": customer, "items": [{"price": self.small}], "expand": ["latest_invoice"]}
            )
            assert made.status == "incomplete"
            invoice: Any = made.latest_invoice
            self.refused(lambda id=invoice.id: self.v1.invoices.finalize_invoice(id))
            if what == "void":
                self.v1.invoices.void_invoice(invoice.id)
            elif what == "mark":
                self.v1.invoices.mark_uncollectible(invoice.id)
            else:
                self.v1.invoices.pay(invoice.id, {"paid_out_of_band": True})
            self.v1.subscriptions.retrieve(made.id)

    def trial(self) -> None:
        """One that ends without a card and is paused, and one that is cut short."""
        bare = self.v1.customers.create({"name": "Trial Ltd", "test_clock": self.clock})
        ends: Any = {"end_behavior": {"missing_payment_method": "pause"}}
        asked: Any = {"items": [{"price": self.small}], "trial_period_days": 14, "trial_settings": ends}
        paused = self.v1.subscriptions.create({"customer": bare.id, **asked})
        assert paused.status == "trialing"
        short = self.v1.subscriptions.create({"customer": self.customer_with("pm_card_visa"), **asked})
        self.v1.subscriptions.update(short.id, {"trial_end": "now"})
        self.advance(15 * DAY)
        assert self.v1.subscriptions.retrieve(paused.id).status == "paused"
        method = self.v1.payment_methods.attach("pm_card_visa", {"customer": bare.id})
        self.v1.customers.update(bare.id, {"invoice_settings": {"default_payment_method": method.id}})
        self.v1.subscriptions.resume(paused.id, {"billing_cycle_anchor": "now"})

    def confirmation(self) -> None:
        """The bank wants to hear from the cardholder."""
        customer = self.customer_with("pm_card_authenticationRequired")
        made = self.v1.subscriptions.create(
            {
                "customer": customer,
                "items": [{"price": self.large}],
                "payment_behavior": "default_incomplete",
                "expand": ["latest_invoice.confirmation_secret", "pending_setup_intent"],
            }
        )
        invoice: Any = made.latest_invoice
        intent = invoice.confirmation_secret.client_secret.partition("_secret")[0]
        waiting = self.v1.payment_intents.confirm(intent, {"return_url": PAGES})
        assert waiting.status == "requires_action"
        self.v1.payment_intents.retrieve(intent, {"expand": ["customer", "payment_method"]})

    def intents(self) -> None:
        customer = self.customer_with("pm_card_visa")
        setup = self.v1.setup_intents.create({"customer": customer, "payment_method": "pm_card_visa", "confirm": True})
        self.v1.setup_intents.retrieve(setup.id)
        later = self.v1.setup_intents.create({"customer": customer, "payment_method": "pm_card_authenticationRequired"})
        self.v1.setup_intents.confirm(later.id, {"return_url": PAGES})
        self.v1.setup_intents.cancel(later.id)
        self.v1.setup_intents.list({"customer": customer})
        once: Any = {"amount": 100, "currency": "gbp", "customer": customer, "payment_method": "pm_card_visa"}
        paid = self.v1.payment_intents.create({**once, "confirm": True, "expand": ["latest_charge"]})
        self.v1.payment_intents.list({"customer": customer})
        self.v1.charges.list({"payment_intent": paid.id})
        charge: Any = paid.latest_charge
        self.v1.charges.retrieve(charge.id)
        back = self.v1.refunds.create({"payment_intent": paid.id, "amount": 40, "reason": "duplicate"})
        self.v1.refunds.create({"charge": charge.id, "metadata": {"of": "the rest"}})
        assert self.v1.charges.retrieve(charge.id).refunded
        self.refused(lambda: self.v1.refunds.create({"payment_intent": paid.id}))
        self.v1.refunds.retrieve(back.id, {"expand": ["charge"]})
        assert len(self.v1.refunds.list({"payment_intent": paid.id}).data) == 2
        self.v1.payment_intents.cancel(self.v1.payment_intents.create(once).id)
        declined: Any = {**once, "payment_method": "pm_card_chargeDeclined", "confirm": True}
        self.refused(lambda: self.v1.payment_intents.create(declined))

    def sessions(self) -> None:
        buyer = self.v1.customers.create({"name": "Buyer Ltd"})
        asked: Any = {
            "mode": "subscription",
            "customer": buyer.id,
            "line_items": [{"price": self.small, "quantity": 1}],
            "success_url": f"{PAGES}/paid?id={{CHECKOUT_SESSION_ID}}",
            "cancel_url": f"{PAGES}/left",
        }
        checkout = self.v1.checkout.sessions.create(asked)
        self.v1.checkout.sessions.line_items.list(checkout.id)
        httpx.post(str(checkout.url), data={"card": "pm_card_visa"}, trust_env=False, verify=TLS)
        expand = ["line_items", "customer", "subscription", "invoice"]
        done = self.v1.checkout.sessions.retrieve(checkout.id, {"expand": expand})
        assert done.status == "complete"
        self.v1.checkout.sessions.expire(self.v1.checkout.sessions.create(asked).id)
        self.v1.checkout.sessions.list({"customer": buyer.id})
        self.v1.billing_portal.sessions.create({"customer": self.customer, "return_url": PAGES})

    def usage(self) -> None:
        meter = self.v1.billing.meters.create(
            {"display_name": "Points", "event_name": "points", "default_aggregation": {"formula": "sum"}}
        )
        self.v1.billing.meters.list()
        event: Any = {"event_name": "points", "identifier": "hour-1", "timestamp": int(time.time())}
        event["payload"] = {"stripe_customer_id": self.customer, "value": "7"}
        self.v1.billing.meter_events.create(event)
        self.refused(lambda: self.v1.billing.meter_events.create(event))
        span: Any = {"start_time": int(time.time()) // 60 * 60 - HOUR, "end_time": int(time.time()) // 60 * 60 + HOUR}
        found = self.v1.billing.meters.event_summaries.list(meter.id, {"customer": self.customer, **span})
        assert [one.aggregated_value for one in found.data] == [7]
        self.v1.billing.meters.deactivate(meter.id)
        self.v1.billing.meters.reactivate(meter.id)
        self.v1.billing.meters.retrieve(meter.id)

    def endings(self) -> None:
        self.v1.subscriptions.cancel(self.subscription)
        self.v1.customers.delete(self.debtor)
        self.v1.customers.retrieve(self.debtor)
        spare = self.v1.test_helpers.test_clocks.create({"frozen_time": self.now})
        self.v1.test_helpers.test_clocks.delete(spare.id)

    def what_happened(self) -> None:
        events = list(self.v1.events.list({"limit": 100}).auto_paging_iter())
        self.v1.events.retrieve(events[0].id)
        self.events = events

    def refusals(self) -> None:
        self.refused(lambda: self.v1.customers.retrieve("cus_nobody"))
        self.refused(lambda: self.v1.subscriptions.update(self.subscription, {"cancel_at_period_end": True}))
        self.refused(lambda: self.v1.payment_methods.attach("pm_card_chargeDeclined", {"customer": self.customer}))
        self.refused(lambda: self.v1.customers.create({"colour": "red"}))  # type: ignore[typeddict-unknown-key]
        self.refused(lambda: self.v1.customers.retrieve(self.customer, options={"api_key": "sk_test_wrong"}))

    def refused(self, ask: Callable[[], Any]) -> None:
        try:
            ask()
        except stripe.StripeError:
            return
        raise AssertionError("that was to be refused")
