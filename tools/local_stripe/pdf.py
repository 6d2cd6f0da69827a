"""An invoice on paper: A4, Helvetica, as many pages as its lines take."""

import io
import time
from html import escape
from typing import Any

from reportlab.lib.colors import HexColor
from reportlab.lib.pagesizes import A4
from reportlab.lib.styles import ParagraphStyle
from reportlab.lib.units import mm
from reportlab.platypus import Flowable, Paragraph, SimpleDocTemplate, Spacer, Table

from tools.local_stripe.money import shown

_GREY = HexColor("#697386")
_TEXT = ParagraphStyle("text", fontName="Helvetica", fontSize=9, leading=12)
_BOLD = ParagraphStyle("bold", _TEXT, fontName="Helvetica-Bold")
_HEAD = ParagraphStyle("head", _BOLD, fontSize=18, leading=24)
_LONGEST = 800  # letters of a description: a row must fit on a page
_ADDRESS = ("line1", "line2", "postal_code", "city", "state", "country")


def render(invoice: dict[str, Any], customer: dict[str, Any]) -> bytes:
    """A PDF of a finalized invoice (Stripe's objects, amounts in minor units) for its customer."""
    file = io.BytesIO()
    title = f"Invoice {invoice['number']}"
    document = SimpleDocTemplate(
        file, pagesize=A4, title=title, author=invoice["account_name"] or "", invariant=1,
        leftMargin=20 * mm, rightMargin=20 * mm, topMargin=20 * mm, bottomMargin=20 * mm,
    )  # fmt: skip

    def footer(canvas: Any, _: Any) -> None:
        canvas.setFont("Helvetica", 8)
        canvas.setFillColor(_GREY)
        canvas.drawString(20 * mm, 12 * mm, f"{invoice['number']} · {shown(invoice['total'], invoice['currency'])}")
        canvas.drawRightString(A4[0] - 20 * mm, 12 * mm, f"Page {canvas.getPageNumber()}")

    story: list[Flowable] = [
        _text(title, _HEAD),
        _text(invoice["account_name"] or "", _BOLD),
        *(_text(line) for line in _facts(invoice)),
        Spacer(0, 5 * mm),
        _text("Bill to", _BOLD),
        *(_text(line) for line in _addressee(customer)),
        Spacer(0, 8 * mm),
        _lines(invoice, document.width),
        Spacer(0, 4 * mm),
        _sums(invoice),
    ]
    document.build(story, onFirstPage=footer, onLaterPages=footer)
    return file.getvalue()


def _facts(invoice: dict[str, Any]) -> list[str]:
    facts = [f"Date of issue {_day(invoice['effective_at'] or invoice['created'])}", f"Status {invoice['status']}"]
    return facts + ([f"Date due {_day(invoice['due_date'])}"] if invoice["due_date"] else [])


def _addressee(customer: dict[str, Any]) -> list[str]:
    address = customer.get("address") or {}
    lines = [customer.get("name"), *(address.get(part) for part in _ADDRESS), customer.get("email")]
    return [str(line) for line in lines if line] or [customer["id"]]


def _lines(invoice: dict[str, Any], width: float) -> Table:
    rows: list[list[Any]] = [["Description", "Period", "Qty", "Amount"]]
    for line in invoice["lines"]["data"]:
        period = f"{_day(line['period']['start'])} – {_day(line['period']['end'])}"
        quantity = "" if line["quantity"] is None else str(line["quantity"])
        description = _text((line["description"] or "")[:_LONGEST])
        rows.append([description, period, quantity, shown(line["amount"], line["currency"])])
    style = [
        ("FONT", (0, 0), (-1, -1), "Helvetica", 9),
        ("TEXTCOLOR", (0, 0), (-1, 0), _GREY),
        ("ALIGN", (2, 0), (-1, -1), "RIGHT"),
        ("VALIGN", (0, 0), (-1, -1), "TOP"),
        ("LINEBELOW", (0, 0), (-1, 0), 0.8, _GREY),
        ("LINEBELOW", (0, -1), (-1, -1), 0.4, _GREY),
        ("LEFTPADDING", (0, 0), (0, -1), 0),
    ]
    fixed = [44 * mm, 14 * mm, 32 * mm]
    return Table(rows, colWidths=[width - sum(fixed), *fixed], repeatRows=1, style=style)


def _sums(invoice: dict[str, Any]) -> Table:
    tax = sum(one["amount"] for one in invoice["total_taxes"] or ())
    sums = [("Subtotal", invoice["subtotal"]), *([("Tax", tax)] if tax else []), ("Total", invoice["total"])]
    # What a customer's balance has paid or asks for besides, so that the sums add up.
    if balance := (invoice["ending_balance"] or 0) - (invoice["starting_balance"] or 0):
        sums.append(("Applied balance", -balance))
    sums += [("Amount paid", invoice["amount_paid"]), ("Amount due", invoice["amount_remaining"])]
    style = [
        ("FONT", (0, 0), (-1, -1), "Helvetica", 9),
        ("FONT", (0, -1), (-1, -1), "Helvetica-Bold", 10),
        ("ALIGN", (1, 0), (1, -1), "RIGHT"),
        ("NOSPLIT", (0, 0), (-1, -1)),
    ]
    rows = [[name, shown(amount, invoice["currency"])] for name, amount in sums]
    return Table(rows, colWidths=[40 * mm, 40 * mm], hAlign="RIGHT", style=style)


def _text(text: str, style: ParagraphStyle = _TEXT) -> Paragraph:
    """The standard fonts have Western European letters; others become ``?``."""
    return Paragraph(escape(text.encode("cp1252", "replace").decode("cp1252")), style)


def _day(at: int) -> str:
    """``2026-11-02``, of seconds since 1970."""
    return time.strftime("%Y-%m-%d", time.gmtime(at))
