"""The pages that a person sees: checkout, customer portal, confirmation of a payment. Pure: objects in, HTML out.

Every form posts to the page's own address (no ``action``). What the server understands:

* checkout (``/c/pay/<session>``): ``card`` = one of `CARDS`' tokens completes it; ``action=cancel`` goes back.
* portal (``/p/session/<session>``): ``action`` = ``cancel`` | ``resume`` (with ``subscription``), ``add`` (``card``),
  ``default`` | ``remove`` (``payment_method``), ``pay`` (``invoice``).
* confirmation (``/_local/confirm/<pi_… or seti_…>``): ``outcome`` = ``succeed`` | ``fail``.
"""

import time
from html import escape
from typing import Any

from tools.local_stripe.money import shown

CARDS = {
    "pm_card_visa": "Visa 4242: pays",
    "pm_card_mastercard": "Mastercard 4444: pays",
    "pm_card_threeDSecure2Required": "Visa 3220: wants confirmation",
    "pm_card_chargeDeclined": "Visa 0002: is declined",
    "pm_card_chargeCustomerFail": "Visa 0341: is taken, then fails",
}
_STYLE = """
body{margin:0;background:#f6f8fa;color:#1a1f36;font:15px/1.5 system-ui,sans-serif}
main{max-width:38rem;margin:2rem auto;padding:0 1rem}
section{background:#fff;border:1px solid #e3e8ee;border-radius:8px;padding:1rem 1.25rem;margin:1rem 0}
h1{font-size:1.4rem}h2{font-size:1rem;margin:0 0 .5rem}
.row{display:flex;flex-wrap:wrap;gap:.5rem;align-items:center;padding:.4rem 0;border-top:1px solid #e3e8ee}
.row>:first-child{flex:1}form{display:inline}
button,select{font:inherit;padding:.35rem .8rem;border:1px solid #c1c9d2;border-radius:6px;background:#fff}
button{cursor:pointer}button.main{background:#635bff;border-color:#635bff;color:#fff}
.note{color:#697386}[role=alert]{background:#fde8e8;border-radius:6px;padding:.5rem .75rem}
"""


def checkout(session: dict[str, Any], error: str | None = None) -> str:
    """The page of a checkout session; only an open one can be paid. ``session["line_items"]`` is there."""
    lines = (session.get("line_items") or {}).get("data", [])
    rows = [_row(_line(line), f"<b>{shown(line['amount_total'], line['currency'])}</b>") for line in lines]
    total = ""
    if session.get("amount_total") is not None:
        total = _row("Due today", f"<b>{shown(session['amount_total'], session['currency'])}</b>")
    parts = [_section("Your order", *rows, total)] if rows else []
    if session["status"] != "open":
        parts.append(_section("", f"<p>This checkout is {escape(session['status'])}.</p>"))
        return _page("Checkout", _alert(error), *parts)
    label = "Save card" if session["mode"] == "setup" else "Subscribe"
    back = _button("cancel", "Back") if session.get("cancel_url") else ""
    parts.append(_section("Pay by card", _form(_cards(), label, main=True), back))
    return _page("Checkout", _alert(error), *parts)


def portal(
    session: dict[str, Any],
    customer: dict[str, Any],
    subscriptions: list[dict[str, Any]],
    payment_methods: list[dict[str, Any]],
    invoices: list[dict[str, Any]],
    error: str | None = None,
) -> str:
    """What a customer may see and change; ``session["return_url"]`` leads back."""
    default = customer["invoice_settings"]["default_payment_method"]
    nothing = "<p class='note'>None.</p>"
    back = session.get("return_url")
    return _page(
        "Billing",
        f"<p class='note'>{escape(customer.get('name') or customer.get('email') or customer['id'])}</p>",
        _alert(error),
        _section("Subscription", *([_subscription(one) for one in subscriptions] or [nothing])),
        _section(
            "Payment methods",
            *([_payment_method(one, one["id"] == default) for one in payment_methods] or [nothing]),
            _form(_hidden("action", "add") + _cards(), "Add card", main=True),
        ),
        _section("Invoices", *([_invoice(one) for one in invoices] or [nothing])),
        f"<p><a href='{escape(back)}'>Back</a></p>" if back else "",
    )


def confirmation(intent: dict[str, Any], error: str | None = None) -> str:
    """The bank's question of a payment or setup intent that ``requires_action``."""
    asked = f"Pay {shown(intent['amount'], intent['currency'])}?" if "amount" in intent else "Save this card?"
    if intent["status"] != "requires_action":
        return _page("Your bank", _section("", f"<p>Nothing to confirm: {escape(intent['status'])}.</p>"))
    agree = _form(_hidden("outcome", "succeed"), "Confirm", main=True)
    refuse = _form(_hidden("outcome", "fail"), "Refuse")
    return _page("Your bank", _alert(error), _section(asked, agree, " ", refuse))


def _subscription(subscription: dict[str, Any]) -> str:
    items = subscription["items"]["data"]
    told = f"<b>{escape(subscription['status'].replace('_', ' '))}</b>"
    if items:
        price, until = items[0]["price"], _day(items[0]["current_period_end"])
        every = f" / {escape(price['recurring']['interval'])}" if price["recurring"] else ""
        ends = "ends" if subscription["cancel_at_period_end"] else "renews"
        told += f" · {shown(price['unit_amount'], price['currency'])}{every} · {ends} {until}"
    action, label = ("resume", "Keep it") if subscription["cancel_at_period_end"] else ("cancel", "Cancel")
    return _row(told, _button(action, label, subscription=subscription["id"]))


def _payment_method(method: dict[str, Any], default: bool) -> str:
    card = method["card"]
    told = f"{escape(card['brand'].capitalize())} •••• {card['last4']}, {card['exp_month']:02}/{card['exp_year']}"
    remove = _button("remove", "Remove", payment_method=method["id"])
    if default:
        return _row(f"{told} <b>default</b>", remove)
    return _row(told, _button("default", "Make default", payment_method=method["id"]), remove)


def _invoice(invoice: dict[str, Any]) -> str:
    link = f"<a href='{escape(invoice['invoice_pdf'] or '')}'>{escape(invoice['number'])}</a>"
    told = f"{link} · {_day(invoice['created'])} · {shown(invoice['total'], invoice['currency'])}"
    pay = _button("pay", "Pay", invoice=invoice["id"]) if invoice["status"] == "open" else ""
    return _row(f"{told} · {escape(invoice['status'])}", pay)


def _line(line: dict[str, Any]) -> str:
    many = f"{line['quantity']} × " if (line.get("quantity") or 1) != 1 else ""
    recurring = (line.get("price") or {}).get("recurring")
    return escape(f"{many}{line['description']}" + (f", every {recurring['interval']}" if recurring else ""))


def _page(title: str, *parts: str) -> str:
    return (
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width,initial-scale=1'>"
        f"<title>{title}</title><style>{_STYLE}</style></head>"
        f"<body><main><h1>{title}</h1>{''.join(parts)}"
        "<p class='note'>Test mode: no money moves.</p></main></body></html>"
    )


def _section(title: str, *parts: str) -> str:
    return f"<section>{f'<h2>{title}</h2>' if title else ''}{''.join(parts)}</section>"


def _row(*parts: str) -> str:
    return f"<div class='row'><span>{parts[0]}</span>{''.join(parts[1:])}</div>"


def _alert(error: str | None) -> str:
    return f"<p role='alert'>{escape(error)}</p>" if error else ""


def _form(fields: str, label: str, *, main: bool = False) -> str:
    kind = " class='main'" if main else ""
    return f"<form method='post'>{fields}<button{kind}>{label}</button></form>"


def _button(action: str, label: str, **fields: str) -> str:
    return _form(_hidden("action", action) + "".join(_hidden(*pair) for pair in fields.items()), label)


def _hidden(name: str, value: str) -> str:
    return f"<input type='hidden' name='{name}' value='{escape(value)}'>"


def _cards() -> str:
    options = "".join(f"<option value='{token}'>{text}</option>" for token, text in CARDS.items())
    return f"<select name='card' aria-label='Card'>{options}</select>"


def _day(at: int) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(at))
