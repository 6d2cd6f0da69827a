"""An invoice on paper, from what is stored of it: for those that Stripe has no PDF of."""

import io
import unicodedata
from datetime import UTC, datetime
from html import escape
from typing import Any

from reportlab.lib.colors import Color, HexColor
from reportlab.lib.enums import TA_RIGHT
from reportlab.lib.pagesizes import A4
from reportlab.lib.styles import ParagraphStyle
from reportlab.lib.units import mm
from reportlab.pdfgen.canvas import Canvas
from reportlab.platypus import Flowable, Paragraph, SimpleDocTemplate, Spacer, Table

from app.billing.models import Invoice
from app.billing.money import formatted

SELLER = "EdgeFlow Cloud"
LONGEST_DESCRIPTION = 1_000
"""A row of the table must fit on a page."""
MARGIN = 20 * mm
_INK, _FAINT, _RULE, _ACCENT = (HexColor(code) for code in ("#16212e", "#5b6875", "#d5dbe1", "#0b7a75"))
_STATES = {"draft": "Draft", "open": "Open", "paid": "Paid", "uncollectible": "Uncollectible", "void": "Void"}


def _style(size: float, color: Color = _INK, *, bold: bool = False, right: bool = False) -> ParagraphStyle:
    font, alignment = "Helvetica-Bold" if bold else "Helvetica", {"alignment": TA_RIGHT} if right else {}
    return ParagraphStyle(
        f"{font}-{size}", fontName=font, fontSize=size, leading=size * 1.4, textColor=color, **alignment
    )


_TEXT, _NUMBER = _style(9), _style(9, right=True)
_SMALL, _SMALL_NUMBER = _style(8, _FAINT), _style(8, _FAINT, right=True)
_STRONG, _STRONG_NUMBER = _style(10, bold=True), _style(10, bold=True, right=True)


def render(invoice: Invoice, *, organization: str) -> bytes:
    """A PDF (A4, as many pages as the lines take): the same bytes for the same invoice."""
    file = io.BytesIO()
    title = f"Invoice {invoice.number}" if invoice.number else "Draft invoice"
    document = SimpleDocTemplate(
        file, pagesize=A4, leftMargin=MARGIN, rightMargin=MARGIN, topMargin=28 * mm, bottomMargin=24 * mm,
        title=title, author=SELLER, invariant=1,
    )  # fmt: skip

    def frame(canvas: Canvas, _: Any) -> None:
        _page_frame(canvas, title)

    width = document.width
    story: list[Flowable] = [
        Paragraph(title, _style(20, bold=True)),
        Spacer(0, 6 * mm),
        _facts(invoice, organization, width),
        Spacer(0, 8 * mm),
        _lines(invoice, width),
        Spacer(0, 4 * mm),
        _totals(invoice, width),
    ]
    document.build(story, onFirstPage=frame, onLaterPages=frame)
    return file.getvalue()


def _page_frame(canvas: Canvas, title: str) -> None:
    """What every page carries: the seller above, the invoice and the page's number below."""
    width, height = A4
    canvas.setFillColor(_ACCENT)
    canvas.rect(0, height - 5 * mm, width, 5 * mm, stroke=0, fill=1)
    canvas.setFont("Helvetica-Bold", 11)
    canvas.drawString(MARGIN, height - 18 * mm, SELLER)
    canvas.setFillColor(_FAINT)
    canvas.setFont("Helvetica", 8)
    canvas.drawString(MARGIN, 12 * mm, f"{SELLER} · {title}")
    canvas.drawRightString(width - MARGIN, 12 * mm, f"Page {canvas.getPageNumber()}")


def _facts(invoice: Invoice, organization: str, width: float) -> Table:
    facts = [
        ("Billed to", organization),
        ("Status", _STATES.get(invoice.status, invoice.status)),
        ("Date", _day(invoice.created_at)),
        ("Period", f"{_day(invoice.period_start)} to {_day(invoice.period_end)}"),
    ]
    if invoice.due_at and invoice.status == "open":
        facts.append(("Due", _day(invoice.due_at)))
    rows = [[Paragraph(name, _SMALL), _paragraph(value, _TEXT)] for name, value in facts]
    return Table(rows, colWidths=[28 * mm, width - 28 * mm], style=[("LEFTPADDING", (0, 0), (0, -1), 0), *_TIGHT])


def _lines(invoice: Invoice, width: float) -> Table:
    heads = [Paragraph("Description", _SMALL), Paragraph("Quantity", _SMALL_NUMBER), Paragraph("Amount", _SMALL_NUMBER)]
    rows = [heads, *(_line(line, invoice.currency) for line in invoice.lines)]
    numbers = 34 * mm
    return Table(
        rows,
        colWidths=[width - 24 * mm - numbers, 24 * mm, numbers],
        repeatRows=1,
        style=[
            ("VALIGN", (0, 0), (-1, -1), "TOP"),
            ("LINEBELOW", (0, 0), (-1, 0), 1, _INK),
            ("LINEBELOW", (0, 1), (-1, -1), 0.4, _RULE),
            ("LEFTPADDING", (0, 0), (0, -1), 0),
            ("RIGHTPADDING", (-1, 0), (-1, -1), 0),
        ],
    )


def _line(line: dict[str, Any], currency: str) -> list[Flowable]:
    quantity = line.get("quantity")
    return [
        _paragraph(str(line.get("description") or "")[:LONGEST_DESCRIPTION], _TEXT),
        Paragraph("" if quantity is None else f"{quantity:,}", _NUMBER),
        Paragraph(formatted(line["amount"], currency), _NUMBER),
    ]


def _totals(invoice: Invoice, width: float) -> Table:
    sums = [("Subtotal", invoice.subtotal), ("Tax", invoice.tax), ("Total", invoice.total)]
    sums += [("Amount paid", invoice.amount_paid), ("Amount due", invoice.amount_due)]
    strong = ("Total", "Amount due")
    rows = [
        [
            Paragraph(name, _STRONG if name in strong else _TEXT),
            Paragraph(formatted(amount, invoice.currency), _STRONG_NUMBER if name in strong else _NUMBER),
        ]
        for name, amount in sums
    ]
    style = [("LINEABOVE", (0, 2), (-1, 2), 0.4, _RULE), ("RIGHTPADDING", (-1, 0), (-1, -1), 0), *_TIGHT]
    # Never apart: a total on a page of its own, away from its subtotal, would be read twice.
    return Table(rows, colWidths=[36 * mm, 40 * mm], hAlign="RIGHT", style=[*style, ("NOSPLIT", (0, 0), (-1, -1))])


_TIGHT = [("TOPPADDING", (0, 0), (-1, -1), 1), ("BOTTOMPADDING", (0, 0), (-1, -1), 1)]


def _paragraph(text: str, style: ParagraphStyle) -> Paragraph:
    return Paragraph(escape(_printable(text)), style)


def _printable(text: str) -> str:
    """Within what the standard fonts have (Western European): é stays, ő loses its accents, 東 becomes ``?``."""
    return "".join(_glyph(one) for one in unicodedata.normalize("NFC", text))


def _glyph(one: str) -> str:
    for form in (one, unicodedata.normalize("NFKD", one)[:1]):
        if form.isprintable() and form.encode("cp1252", "ignore"):
            return form
    return " " if one.isspace() else "?"


def _day(when: datetime) -> str:
    """``2 November 2026``, in UTC."""
    day = when.astimezone(UTC)
    return f"{day.day} {day:%B %Y}"
