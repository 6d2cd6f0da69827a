"""An invoice's PDF, opened and read back."""

import io
from datetime import UTC, datetime
from typing import Any

from pypdf import PdfReader

from app.billing.invoice_pdf import render
from app.billing.models import Invoice

NOVEMBER, DECEMBER = datetime(2026, 11, 1, tzinfo=UTC), datetime(2026, 12, 1, tzinfo=UTC)


def invoice(**changes: Any) -> Invoice:
    fields: dict[str, Any] = {
        "number": "EF-2026-0042",
        "status": "open",
        "currency": "eur",
        "subtotal": 4900,
        "tax": 931,
        "total": 5831,
        "amount_paid": 1000,
        "amount_due": 4831,
        "period_start": NOVEMBER,
        "period_end": DECEMBER,
        "due_at": datetime(2026, 12, 14, 23, tzinfo=UTC),
        "created_at": NOVEMBER,
        "lines": [
            {"description": "Pro, November 2026", "quantity": 1, "amount": 5150},
            {"description": "Unused time on Small", "quantity": 1, "amount": -250},
        ],
    }
    return Invoice(**{**fields, **changes})


def read(pdf: bytes) -> list[str]:
    """The words of each page in the order in which they stand, with one space between."""
    return [" ".join(page.extract_text().split()) for page in PdfReader(io.BytesIO(pdf)).pages]


def test_numbers_lines_and_totals_are_read_back() -> None:
    pdf = render(invoice(), organization="Pumps & Söhne <GmbH>")
    (page,) = read(pdf)
    for told in (
        "Invoice EF-2026-0042 Billed to Pumps & Söhne <GmbH> Status Open Date 1 November 2026",
        "Period 1 November 2026 to 1 December 2026 Due 14 December 2026",
        "Pro, November 2026 1 €51.50 Unused time on Small 1 -€2.50",
        "Subtotal €49.00 Tax €9.31 Total €58.31 Amount paid €10.00 Amount due €48.31",
        "Page 1",
    ):
        assert told in page
    assert PdfReader(io.BytesIO(pdf)).metadata["/Title"] == "Invoice EF-2026-0042"


def test_a_draft_has_no_number_and_a_paid_one_no_due_day() -> None:
    (page,) = read(render(invoice(number=None, status="draft"), organization="Pumps"))
    assert "Draft invoice Billed to Pumps Status Draft" in page
    (page,) = read(render(invoice(status="paid"), organization="Pumps"))
    assert "Status Paid" in page
    assert "14 December" not in page


def test_currencies_keep_their_decimals() -> None:
    lines = [{"description": "Pro", "quantity": 2, "amount": 4900}]
    (page,) = read(render(invoice(currency="jpy", lines=lines, total=4900), organization="Pumps"))
    assert "Pro 2 ¥4,900" in page
    assert "Total ¥4,900" in page
    (page,) = read(render(invoice(currency="kwd", lines=lines, total=4900), organization="Pumps"))
    assert "Total KWD 4.900" in page


def test_many_lines_take_many_pages_and_none_is_lost() -> None:
    lines = [{"description": f"Device {number}", "quantity": 1, "amount": number} for number in range(300)]
    pages = read(render(invoice(lines=lines), organization="Pumps"))
    assert len(pages) > 5
    whole = " ".join(pages)
    for number in range(300):
        assert f"Device {number} 1 €{number / 100:.2f}" in whole
    assert all("Description Quantity Amount" in page for page in pages[:-1])
    assert [f"Page {number}" in page for number, page in enumerate(pages, 1)] == [True] * len(pages)
    assert "Subtotal" in pages[-1]
    assert "Amount due" in pages[-1]


def test_any_text_can_be_printed() -> None:
    """Markup is text, letters outside the standard fonts are replaced, no description is too long for a page."""
    lines = [
        {"description": "<b>bold</b> & <para>", "quantity": 1, "amount": 1},
        {"description": "Č ő 東京 \x00 \U0001f600", "quantity": None, "amount": 2},
        {"description": "x" * 20_000, "amount": 3},
        {"description": None, "quantity": 1, "amount": 4},
    ]
    whole = " ".join(read(render(invoice(lines=lines), organization="東 " * 500)))
    assert "<b>bold</b> & <para> 1 €0.01" in whole
    assert "C o ?? ? ? €0.02" in whole
    assert "€0.03" in whole
    assert "1 €0.04" in whole


def test_without_lines_there_are_totals() -> None:
    (page,) = read(render(invoice(lines=[]), organization="Pumps"))
    assert "Total €58.31" in page


def test_the_same_invoice_is_the_same_file() -> None:
    assert render(invoice(), organization="Pumps") == render(invoice(), organization="Pumps")
