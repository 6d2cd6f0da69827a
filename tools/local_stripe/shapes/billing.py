"""Products, prices, subscriptions, invoices."""

from typing import Any

from tools.local_stripe.account import listing, new_id
from tools.local_stripe.store import Obj

_SELF = {"type": "self"}


def product(id: str, name: str, created: int) -> Obj:
    return {
        "id": id, "object": "product", "active": True, "created": created, "default_price": None,
        "description": None, "images": [], "livemode": False, "marketing_features": [], "metadata": {}, "name": name,
        "package_dimensions": None, "shippable": None, "statement_descriptor": None, "tax_code": None,
        "unit_label": None, "updated": created, "url": None,
    }  # fmt: skip


def price(id: str, product: str, amount: int, currency: str, recurring: Obj | None, created: int) -> Obj:
    """``recurring``: ``{interval, interval_count}``, or None for one that is paid once. Amounts are minor units."""
    if recurring:
        recurring = {"meter": None, "usage_type": "licensed", **recurring}
    return {
        "id": id, "object": "price", "active": True, "billing_scheme": "per_unit", "created": created,
        "currency": currency, "custom_unit_amount": None, "livemode": False, "lookup_key": None, "metadata": {},
        "nickname": None, "product": product, "recurring": recurring, "tax_behavior": "unspecified",
        "tiers_mode": None, "transform_quantity": None, "type": "recurring" if recurring else "one_time",
        "unit_amount": amount, "unit_amount_decimal": str(amount),
    }  # fmt: skip


def subscription_item(subscription: str, price: Obj, quantity: int, period: tuple[int, int], created: int) -> Obj:
    return {
        "id": new_id("si", 14), "object": "subscription_item", "billing_thresholds": None, "created": created,
        "current_period_start": period[0], "current_period_end": period[1], "discounts": [], "metadata": {},
        "price": price, "quantity": quantity, "subscription": subscription, "tax_rates": [],
    }  # fmt: skip


def subscription(customer: Obj, currency: str, created: int) -> Obj:
    """Without items; incomplete until its first invoice is paid."""
    id = new_id("sub")
    return {
        "id": id, "object": "subscription", "application": None, "application_fee_percent": None,
        "automatic_tax": {"disabled_reason": None, "enabled": False, "liability": None},
        "billing_cycle_anchor": created, "billing_cycle_anchor_config": None,
        "billing_mode": {"flexible": {"proration_discounts": "included"}, "type": "flexible"},
        "billing_schedules": [], "billing_thresholds": None, "cancel_at": None, "cancel_at_period_end": False,
        "canceled_at": None, "cancellation_details": {
            "comment": None, "feedback": None, "feedback_option": None, "reason": None,
        },
        "collection_method": "charge_automatically", "created": created, "currency": currency,
        "customer": customer["id"], "customer_account": None, "days_until_due": None, "default_payment_method": None,
        "default_source": None, "default_tax_rates": [], "description": None, "discounts": [], "ended_at": None,
        "invoice_settings": {
            "account_tax_ids": None, "custom_fields": None, "description": None, "footer": None, "issuer": _SELF,
        },
        "items": listing([], f"/v1/subscription_items?subscription={id}"), "latest_invoice": None, "livemode": False,
        "managed_payments": None, "metadata": {}, "next_pending_invoice_item_invoice": None, "on_behalf_of": None,
        "pause_collection": None, "payment_settings": {
            "payment_method_options": None, "payment_method_types": None, "save_default_payment_method": "off",
        },
        "pending_invoice_item_interval": None, "pending_setup_intent": None, "pending_update": None, "schedule": None,
        "start_date": created, "status": "incomplete", "test_clock": customer["test_clock"], "transfer_data": None,
        "trial_end": None, "trial_settings": {"end_behavior": {"missing_payment_method": "create_invoice"}},
        "trial_start": None,
    }  # fmt: skip


def invoice(customer: Obj, currency: str, created: int) -> Obj:
    """A draft without lines."""
    id = new_id("in")
    return {
        "id": id, "object": "invoice", "account_country": "US", "account_name": "EdgeFlow Cloud",
        "account_tax_ids": None, "amount_due": 0, "amount_overpaid": 0, "amount_paid": 0, "amount_paid_off_stripe": 0,
        "amount_remaining": 0, "amount_shipping": 0, "application": None, "attempt_count": 0, "attempted": False,
        "auto_advance": True, "automatic_tax": {
            "disabled_reason": None, "enabled": False, "liability": None, "provider": None, "status": None,
        },
        "automatically_finalizes_at": None, "billing_reason": "manual", "collection_method": "charge_automatically",
        "confirmation_secret": None, "created": created, "currency": currency, "custom_fields": None,
        "customer": customer["id"], "customer_account": None, "customer_address": customer["address"],
        "customer_email": customer["email"], "customer_name": customer["name"], "customer_phone": customer["phone"],
        "customer_shipping": None, "customer_tax_exempt": "none", "customer_tax_ids": [],
        "default_payment_method": None, "default_source": None, "default_tax_rates": [], "description": None,
        "discounts": [], "due_date": None, "effective_at": None, "ending_balance": None, "footer": None,
        "from_invoice": None, "hosted_invoice_url": None, "invoice_pdf": None, "issuer": _SELF,
        "last_finalization_error": None, "latest_revision": None, "lines": listing([], f"/v1/invoices/{id}/lines"),
        "livemode": False, "metadata": {}, "next_payment_attempt": None, "number": None, "on_behalf_of": None,
        "parent": None, "payment_settings": {
            "default_mandate": None, "payment_method_options": None, "payment_method_types": None,
        },
        "period_end": created, "period_start": created, "post_payment_credit_notes_amount": 0,
        "pre_payment_credit_notes_amount": 0, "receipt_number": None, "rendering": None, "shipping_cost": None,
        "shipping_details": None, "starting_balance": 0, "statement_descriptor": None, "status": "draft",
        "status_transitions": {
            "finalized_at": None, "marked_uncollectible_at": None, "paid_at": None, "voided_at": None,
        },
        "subtotal": 0, "subtotal_excluding_tax": 0, "test_clock": customer["test_clock"], "total": 0,
        "total_discount_amounts": [], "total_excluding_tax": 0, "total_pretax_credit_amounts": [], "total_taxes": [],
        "webhooks_delivered_at": None,
    }  # fmt: skip


def line(
    amount: int, description: str, period: tuple[int, int], item: Obj, *, proration: bool = False,
    invoice_item: str | None = None,
) -> Obj:  # fmt: skip
    """What an invoice charges (or, negative, gives back) for a subscription item over a period."""
    price = item["price"]
    details: dict[str, Any] = {
        "invoice_item": invoice_item, "proration": proration,
        "proration_details": {"credited_items": None} if proration else None, "subscription": item["subscription"],
        "subscription_item": item["id"],
    }  # fmt: skip
    return {
        "id": new_id("il"), "object": "line_item", "amount": amount, "currency": price["currency"],
        "description": description, "discount_amounts": [], "discountable": not proration, "discounts": [],
        "invoice": None, "livemode": False, "metadata": {},
        "parent": {
            "invoice_item_details": None, "subscription_item_details": details, "type": "subscription_item_details",
        },
        "period": {"start": period[0], "end": period[1]}, "pretax_credit_amounts": [],
        "pricing": {
            "price_details": {"price": price["id"], "product": price["product"]}, "type": "price_details",
            "unit_amount_decimal": price["unit_amount_decimal"],
        },
        "quantity": item["quantity"], "quantity_decimal": str(item["quantity"]), "subscription": item["subscription"],
        "subtotal": amount, "taxes": [],
    }  # fmt: skip


def invoice_payment(invoice: Obj, intent: str, created: int) -> Obj:
    return {
        "id": new_id("inpay"), "object": "invoice_payment", "amount_paid": None,
        "amount_requested": invoice["amount_due"], "created": created, "currency": invoice["currency"],
        "invoice": invoice["id"], "is_default": True, "livemode": False,
        "payment": {"payment_intent": intent, "type": "payment_intent"}, "status": "open",
        "status_transitions": {"canceled_at": None, "paid_at": None}, "_customer": invoice["customer"],
    }  # fmt: skip


def invoice_item(customer: str, waiting: Obj, created: int, clock: str | None) -> Obj:
    """A line that waits for the next invoice."""
    id, details = new_id("ii"), waiting["parent"]["subscription_item_details"]
    details["invoice_item"] = id
    return {
        "id": id, "object": "invoiceitem", "amount": waiting["amount"], "currency": waiting["currency"],
        "customer": customer, "customer_account": None, "date": created, "description": waiting["description"],
        "discountable": waiting["discountable"], "discounts": [], "invoice": None, "livemode": False, "metadata": {},
        "net_amount": waiting["amount"],
        "parent": {
            "subscription_details": {
                "subscription": details["subscription"], "subscription_item": details["subscription_item"],
            },
            "type": "subscription_details",
        },
        "period": waiting["period"], "pricing": waiting["pricing"], "proration": details["proration"],
        "quantity": waiting["quantity"], "quantity_decimal": waiting["quantity_decimal"], "tax_rates": [],
        "test_clock": clock, "_line": waiting,
    }  # fmt: skip
