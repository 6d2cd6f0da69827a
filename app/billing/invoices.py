"""Invoices, as Stripe told them last, and their papers: Stripe's own, or drawn here where it has none."""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import structlog
from sqlalchemy import select

from app import db
from app.billing import stripe_client, stripe_paper
from app.billing.models import Invoice
from app.errors import InvalidState, NotFound, ServiceUnavailable
from app.organizations.models import Organization
from app.pagination import Page, Sortable, paginate

log = structlog.get_logger(__name__)

SORTABLE: Sortable = {
    "created_at": Invoice.created_at, "number": Invoice.number, "total": Invoice.total, "id": Invoice.id,
}  # fmt: skip


@dataclass(frozen=True)
class Paper:
    """A PDF, piece by piece; ``close`` ends it, whether all of it was read or not."""

    filename: str
    pieces: Iterator[bytes]
    close: Any


def list_invoices(org_id: UUID, *, status: str | None = None, **page: Any) -> Page:
    """Newest first. Raises ValidationFailed."""
    query = select(Invoice).where(Invoice.org_id == org_id)
    if status is not None:
        query = query.where(Invoice.status == status)
    return paginate(query, **{"sort": None, **page}, by=SORTABLE, default="-created_at")


def get(org_id: UUID, invoice_id: UUID) -> Invoice:
    """Raises NotFound."""
    row = db.session.scalar(select(Invoice).where(Invoice.org_id == org_id, Invoice.id == invoice_id))
    if row is None:
        raise NotFound("invoice")
    return row


def printable(org_id: UUID, invoice_id: UUID) -> tuple[Invoice, str]:
    """An invoice that can be printed, and the name of whom it bills. Raises NotFound, or InvalidState for a draft."""
    row = get(org_id, invoice_id)
    if row.status == "draft":
        raise InvalidState("a draft is no invoice yet", current_state="draft", allowed_actions=[])
    return row, db.session.scalars(select(Organization.name).where(Organization.id == org_id)).one()


def paper(row: Invoice, billed: str) -> Paper:
    """The invoice's PDF. No transaction may be open: it is asked of Stripe. Raises ServiceUnavailable."""
    filename = f"{row.number or row.stripe_id}.pdf"
    stack = ExitStack()
    try:
        url = stripe_client.invoice(row.stripe_id).get("invoice_pdf")
        if url:
            return Paper(filename, stack.enter_context(stripe_paper.fetched(url)), stack.close)
        why = "it names none"
    except stripe_client.StripeRefused as refused:
        why = str(refused)
    except stripe_client.StripeDown:
        raise ServiceUnavailable("Stripe does not answer; try again") from None
    log.info("invoice drawn here", invoice=row.stripe_id, reason=why)
    # Not at the top: what draws pages takes 17 MB of each process, and few ever draw one.
    from app.billing import invoice_pdf  # noqa: PLC0415

    return Paper(filename, iter([invoice_pdf.render(row, organization=billed)]), stack.close)
