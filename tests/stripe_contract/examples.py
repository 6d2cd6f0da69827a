"""How each function of ``stripe_client`` is called: one example at least for each that asks Stripe's API anything."""

from typing import Any

METER_TIME = 1_764_000_000
Example = tuple[tuple[Any, ...], dict[str, Any]]


def call(*positional: Any, **named: Any) -> Example:
    return positional, named


EXAMPLES: dict[str, list[Example]] = {
    "create_customer": [call(name="Pumps Ltd", metadata={"org_id": "9f0e"}, key="k")],
    "customer": [call("cus_1")],
    "set_default_payment_method": [call("cus_1", "pm_1", key="k")],
    "attach_payment_method": [call("pm_card_visa", "cus_1", key="k")],
    "detach_payment_method": [call("pm_1", key="k")],
    "payment_method": [call("pm_1")],
    "payment_methods": [call("cus_1")],
    "create_subscription": [
        call(
            {
                "customer": "cus_1",
                "items": [{"price": "price_1"}],
                "payment_behavior": "default_incomplete",
                "payment_settings": {"save_default_payment_method": "on_subscription"},
                "trial_period_days": 14,
                "trial_settings": {"end_behavior": {"missing_payment_method": "cancel"}},
                "default_payment_method": "pm_1",
                "metadata": {"org_id": "9f0e", "plan": "pro"},
            },
            key="k",
        )
    ],
    "update_subscription": [
        call("sub_1", {"cancel_at_period_end": True}, key="k"),
        call("sub_1", {"items": [{"id": "si_1", "price": "p"}], "proration_behavior": "create_prorations"}, key="k"),
    ],
    "cancel_subscription": [call("sub_1", key="k")],
    "subscription": [call("sub_1")],
    "subscriptions": [call("cus_1")],
    "invoices": [call("cus_1")],
    "invoice_lines": [call("in_1")],
    "invoice": [call("in_1")],
    "preview_change": [call("cus_1", "sub_1", "si_1", "price_2")],
    "create_checkout_session": [
        call(
            {
                "mode": "subscription",
                "customer": "cus_1",
                "line_items": [{"price": "price_1", "quantity": 1}],
                "success_url": "https://example.org/paid",
                "cancel_url": "https://example.org/left",
                "metadata": {"operation": "o"},
                "subscription_data": {"metadata": {"org_id": "9f0e"}, "trial_period_days": 14},
            },
            key="k",
        )
    ],
    "open_checkout_sessions": [call("cus_1")],
    "expire_checkout_session": [call("cs_1", key="k")],
    "paid_invoices": [call("sub_1")],
    "refund": [call("pi_1", key="k")],
    "create_portal_session": [call("cus_1", "https://example.org/back", key="k")],
    "create_meter_event": [
        call(name="commands", identifier="i", customer_id="cus_1", value=7, timestamp=METER_TIME, key="k")
    ],
    "meters": [call()],
    "meter_total": [call("mtr_1", "cus_1", METER_TIME, METER_TIME + 3600)],
    "price": [call("price_1")],
    "event_pages": [call(METER_TIME)],
}
ASKS_NO_API = {
    "check_signature": "asks nobody",
}
