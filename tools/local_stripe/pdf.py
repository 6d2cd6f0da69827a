"""An invoice on paper."""

import io
from typing import Any

from reportlab.pdfgen.canvas import Canvas


def render(invoice: dict[str, Any], customer: dict[str, Any]) -> bytes:
    """A PDF of a finalized invoice (Stripe's objects, amounts in minor units) for its customer."""
    page = io.BytesIO()
    canvas = Canvas(page)
    lines = [f"Invoice {invoice['number']}", customer.get("name") or customer.get("email") or customer["id"]]
    lines += [f"{line['description']}: {line['amount'] / 100:.2f}" for line in invoice["lines"]["data"]]
    lines.append(f"Total {invoice['total'] / 100:.2f} {invoice['currency'].upper()}")
    for number, line in enumerate(lines):
        canvas.drawString(72, 770 - 18 * number, line)
    canvas.save()
    return page.getvalue()
