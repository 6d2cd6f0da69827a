"""Checkout and portal sessions, meters, test clocks."""

from typing import Any

from tools.local_stripe.account import new_id
from tools.local_stripe.store import Obj

_DAY = 86_400


def checkout_session(mode: str, created: int) -> Obj:
    return {
        "id": new_id("cs_test", 58), "object": "checkout.session", "adaptive_pricing": None, "after_expiration": None,
        "allow_promotion_codes": None, "amount_subtotal": None, "amount_total": None,
        "automatic_tax": {"enabled": False, "liability": None, "provider": None, "status": None},
        "billing_address_collection": None, "cancel_url": None, "client_reference_id": None, "client_secret": None,
        "collected_information": None, "consent": None, "consent_collection": None, "created": created,
        "currency": None, "currency_conversion": None, "custom_fields": [],
        "custom_text": dict.fromkeys(("after_submit", "shipping_address", "submit", "terms_of_service_acceptance")),
        "customer": None, "customer_account": None, "customer_creation": None, "customer_details": None,
        "customer_email": None, "discounts": [], "expires_at": created + _DAY, "invoice": None,
        "invoice_creation": None, "livemode": False, "locale": None, "metadata": {}, "mode": mode,
        "origin_context": None, "payment_intent": None, "payment_link": None, "payment_method_collection": "always",
        "payment_method_configuration_details": None, "payment_method_options": {}, "payment_method_types": ["card"],
        "payment_status": "unpaid", "permissions": None, "phone_number_collection": {"enabled": False},
        "recovered_from": None, "saved_payment_method_options": None, "setup_intent": None,
        "shipping_address_collection": None, "shipping_cost": None, "shipping_options": [], "status": "open",
        "submit_type": None, "subscription": None, "success_url": None, "total_details": None,
        "ui_mode": "hosted_page", "url": None, "wallet_options": None,
    }  # fmt: skip


def checkout_item(price: Obj, name: str, quantity: int) -> Obj:
    amount = price["unit_amount"] * quantity
    return {
        "id": new_id("li"), "object": "item", "adjustable_quantity": None, "amount_discount": 0,
        "amount_subtotal": amount, "amount_tax": 0, "amount_total": amount, "currency": price["currency"],
        "description": name, "metadata": {}, "price": price, "quantity": quantity,
    }  # fmt: skip


def portal_session(customer: str, return_url: str | None, created: int) -> Obj:
    return {
        "id": new_id("bps"), "object": "billing_portal.session", "configuration": "bpc_local", "created": created,
        "customer": customer, "customer_account": None, "flow": None, "livemode": False, "locale": None,
        "on_behalf_of": None, "return_url": return_url, "url": None,
    }  # fmt: skip


def meter(event_name: str, display_name: str, formula: str, created: int) -> Obj:
    return {
        "id": new_id("mtr"), "object": "billing.meter", "created": created,
        "customer_mapping": {"event_payload_key": "stripe_customer_id", "type": "by_id"},
        "default_aggregation": {"formula": formula}, "display_name": display_name, "event_name": event_name,
        "event_time_window": None, "livemode": False, "status": "active",
        "status_transitions": {"deactivated_at": None}, "updated": created,
        "value_settings": {"event_payload_key": "value"},
    }  # fmt: skip


def test_clock(frozen_time: int, name: str | None, created: int) -> Obj:
    return {
        "id": new_id("clock"), "object": "test_helpers.test_clock", "created": created,
        "deletes_after": created + 30 * _DAY, "frozen_time": frozen_time, "livemode": False, "name": name,
        "status": "ready", "status_details": {}, "_now": frozen_time,
    }  # fmt: skip


def deleted(obj: Obj) -> dict[str, Any]:
    return {"id": obj["id"], "object": obj["object"], "deleted": True}
