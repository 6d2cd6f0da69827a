"""The pages that a person sees: checkout, customer portal, confirmation of a payment. Pure: objects in, HTML out.

Every form posts to the page's own address (no ``action``). What the server understands:

* checkout (``/c/pay/<session>``): ``card`` = one of `CARDS`' tokens completes it; ``action=cancel`` goes back.
* portal (``/p/session/<session>``): ``action`` = ``cancel`` | ``resume`` (with ``subscription``), ``add`` (``card``),
  ``default`` | ``remove`` (``payment_method``), ``pay`` (``invoice``).
* confirmation (``/_local/confirm/<pi_… or seti_…>``): ``outcome`` = ``succeed`` | ``fail``.
"""

from html import escape
from typing import Any

CARDS = {
    "pm_card_visa": "Visa 4242: pays",
    "pm_card_mastercard": "Mastercard 4444: pays",
    "pm_card_threeDSecure2Required": "Visa 3220: wants confirmation",
    "pm_card_chargeDeclined": "Visa 0002: is declined",
    "pm_card_chargeCustomerFail": "Visa 0341: is taken, then fails",
}


def checkout(session: dict[str, Any], error: str | None = None) -> str:
    """The page of an open checkout session. ``session["line_items"]`` is there, prices are whole objects."""
    lines = (session.get("line_items") or {}).get("data", [])
    rows = "".join(f"<li>{escape(str(line['description']))}: {_money(line)}</li>" for line in lines)
    return _page("Checkout", f"<ul>{rows}</ul>{_alert(error)}{_form(_cards(), 'Pay')}{_button('cancel', 'Back')}")


def portal(
    session: dict[str, Any],
    customer: dict[str, Any],
    subscriptions: list[dict[str, Any]],
    payment_methods: list[dict[str, Any]],
    invoices: list[dict[str, Any]],
    error: str | None = None,
) -> str:
    """What a customer may see and change; ``session["return_url"]`` leads back."""
    parts = [f"<p>{escape(customer.get('email') or customer['id'])}</p>", _alert(error)]
    for subscription in subscriptions:
        action = "resume" if subscription["cancel_at_period_end"] else "cancel"
        parts.append(f"<p>{subscription['id']}: {subscription['status']}</p>")
        parts.append(_button(action, action.capitalize(), subscription=subscription["id"]))
    for method in payment_methods:
        parts.append(f"<p>{method['card']['brand']} {method['card']['last4']}</p>")
        parts.append(_button("default", "Make default", payment_method=method["id"]))
        parts.append(_button("remove", "Remove", payment_method=method["id"]))
    for invoice in invoices:
        parts.append(f"<p><a href='{escape(invoice['invoice_pdf'] or '')}'>{invoice['number']}</a></p>")
        if invoice["status"] == "open":
            parts.append(_button("pay", "Pay", invoice=invoice["id"]))
    parts.append(_form(_hidden("action", "add") + _cards(), "Add card"))
    if session.get("return_url"):
        parts.append(f"<p><a href='{escape(session['return_url'])}'>Back</a></p>")
    return _page("Billing", "".join(parts))


def confirmation(intent: dict[str, Any], error: str | None = None) -> str:
    """The bank's question of a payment or setup intent that ``requires_action``."""
    yes, no = (_form(_hidden("outcome", outcome), outcome.capitalize()) for outcome in ("succeed", "fail"))
    return _page("Confirm", f"<p>{escape(intent['id'])}: {intent['status']}</p>{_alert(error)}{yes}{no}")


def _page(title: str, body: str) -> str:
    return f"<!doctype html><html lang='en'><meta charset='utf-8'><title>{title}</title><h1>{title}</h1>{body}</html>"


def _alert(error: str | None) -> str:
    return f"<p role='alert'>{escape(error)}</p>" if error else ""


def _form(fields: str, label: str) -> str:
    return f"<form method='post'>{fields}<button>{label}</button></form>"


def _button(action: str, label: str, **fields: str) -> str:
    return _form(_hidden("action", action) + "".join(_hidden(*pair) for pair in fields.items()), label)


def _hidden(name: str, value: str) -> str:
    return f"<input type='hidden' name='{name}' value='{escape(value)}'>"


def _cards() -> str:
    options = "".join(f"<option value='{token}'>{text}</option>" for token, text in CARDS.items())
    return f"<select name='card'>{options}</select>"


def _money(line: dict[str, Any]) -> str:
    return f"{line['amount_total'] / 100:.2f} {line['currency'].upper()}"
