"""Customers, payment methods, intents, charges."""

from typing import Any

from tools.local_stripe.account import new_id
from tools.local_stripe.cards import Card
from tools.local_stripe.store import Obj

NO_ADDRESS = dict.fromkeys(("city", "country", "line1", "line2", "postal_code", "state"))


def customer(created: int, clock: str | None, prefix: str) -> Obj:
    """``prefix`` begins its invoices' numbers."""
    return {
        "id": new_id("cus", 14), "object": "customer", "address": None, "balance": 0, "created": created,
        "currency": None, "customer_account": None, "default_source": None, "delinquent": False, "description": None,
        "discount": None, "email": None, "invoice_prefix": prefix,
        "invoice_settings": {
            "custom_fields": None, "default_payment_method": None, "footer": None, "rendering_options": None,
        },
        "livemode": False, "metadata": {}, "name": None, "next_invoice_sequence": 1, "phone": None,
        "preferred_locales": [], "shipping": None, "tax_exempt": "none", "test_clock": clock,
    }  # fmt: skip


def billing_details() -> Obj:
    return {"address": dict(NO_ADDRESS), "email": None, "name": None, "phone": None, "tax_id": None}


def payment_method(token: str, card: Card, created: int) -> Obj:
    return {
        "id": new_id("pm"), "object": "payment_method", "allow_redisplay": "unspecified",
        "billing_details": billing_details(), "created": created, "customer": None, "customer_account": None,
        "livemode": False, "metadata": {}, "type": "card", "_card": token, "_state": "new",
        "card": {
            "brand": card.brand, "checks": {
                "address_line1_check": None, "address_postal_code_check": None, "cvc_check": "pass",
            },
            "country": "US", "display_brand": card.brand, "exp_month": 12, "exp_year": 2034,
            "fingerprint": f"local{card.last4}", "funding": "credit", "generated_from": None, "last4": card.last4,
            "networks": {"available": [card.brand], "preferred": None}, "regulated_status": "unregulated",
            "three_d_secure_usage": {"supported": True}, "wallet": None,
        },
    }  # fmt: skip


def payment_intent(amount: int, currency: str, customer: str | None, created: int) -> Obj:
    id = new_id("pi")
    return {
        "id": id, "object": "payment_intent", "amount": amount, "amount_capturable": 0, "amount_details": {"tip": {}},
        "amount_received": 0, "application": None, "application_fee_amount": None, "automatic_payment_methods": None,
        "canceled_at": None, "cancellation_reason": None, "capture_method": "automatic",
        "client_secret": new_id(f"{id}_secret"), "confirmation_method": "automatic", "created": created,
        "currency": currency, "customer": customer, "customer_account": None, "description": None,
        "excluded_payment_method_types": None, "last_payment_error": None, "latest_charge": None, "livemode": False,
        "metadata": {}, "next_action": None, "on_behalf_of": None, "payment_method": None,
        "payment_method_configuration_details": None, "payment_method_options": {}, "payment_method_types": ["card"],
        "processing": None, "receipt_email": None, "review": None, "setup_future_usage": None, "shipping": None,
        "statement_descriptor": None, "statement_descriptor_suffix": None, "status": "requires_payment_method",
        "transfer_data": None, "transfer_group": None,
    }  # fmt: skip


def setup_intent(customer: str | None, created: int) -> Obj:
    id = new_id("seti")
    return {
        "id": id, "object": "setup_intent", "application": None, "automatic_payment_methods": None,
        "cancellation_reason": None, "client_secret": new_id(f"{id}_secret"), "created": created,
        "customer": customer, "customer_account": None, "description": None, "excluded_payment_method_types": None,
        "flow_directions": None, "last_setup_error": None, "latest_attempt": None, "livemode": False, "mandate": None,
        "metadata": {}, "next_action": None, "on_behalf_of": None, "payment_method": None,
        "payment_method_configuration_details": None, "payment_method_options": {}, "payment_method_types": ["card"],
        "single_use_mandate": None, "status": "requires_payment_method", "usage": "off_session",
    }  # fmt: skip


def charge(intent: Obj, method: Obj, created: int, failure: dict[str, Any] | None) -> Obj:
    """One attempt of an intent; ``failure``: the error it ended with, ``{code, message, decline_code?}``."""
    paid, amount = failure is None, intent["amount"]
    return {
        "id": new_id("ch"), "object": "charge", "amount": amount, "amount_captured": amount if paid else 0,
        "amount_refunded": 0, "application": None, "application_fee": None, "application_fee_amount": None,
        "balance_transaction": None, "billing_details": method["billing_details"],
        "calculated_statement_descriptor": None, "captured": paid, "created": created,
        "currency": intent["currency"], "customer": intent["customer"], "description": intent["description"],
        "disputed": False, "failure_balance_transaction": None,
        "failure_code": failure["code"] if failure else None,
        "failure_message": failure["message"] if failure else None,
        "fraud_details": {}, "livemode": False, "metadata": {}, "on_behalf_of": None,
        "outcome": {
            "advice_code": None, "network_advice_code": None, "network_decline_code": None,
            "network_status": "approved_by_network" if paid else "declined_by_network",
            "reason": failure.get("decline_code") if failure else None, "risk_level": "normal",
            "seller_message": "Payment complete." if paid else "The bank declined the payment.",
            "type": "authorized" if paid else "issuer_declined",
        },
        "paid": paid, "payment_intent": intent["id"], "payment_method": method["id"],
        "payment_method_details": {"type": "card", "card": _charged(method["card"])},
        "receipt_email": None, "receipt_number": None, "receipt_url": None, "refunded": False, "review": None,
        "shipping": None, "source_transfer": None, "statement_descriptor": None, "statement_descriptor_suffix": None,
        "status": "succeeded" if paid else "failed", "transfer_data": None, "transfer_group": None,
    }  # fmt: skip


def refund(charge: Obj, amount: int, reason: str | None, metadata: Obj, created: int) -> Obj:
    return {
        "id": new_id("re"), "object": "refund", "amount": amount, "balance_transaction": None, "charge": charge["id"],
        "created": created, "currency": charge["currency"], "metadata": metadata,
        "payment_intent": charge["payment_intent"], "reason": reason, "receipt_number": None,
        "source_transfer_reversal": None, "status": "succeeded", "transfer_reversal": None,
    }  # fmt: skip


def _charged(card: Obj) -> Obj:
    shared = {name: card[name] for name in (
        "brand", "checks", "country", "exp_month", "exp_year", "fingerprint", "funding", "last4", "wallet",
    )}  # fmt: skip
    nothing = dict.fromkeys(("installments", "mandate", "three_d_secure", "network_transaction_id"))
    return {**shared, **nothing, "network": card["brand"]}
