"""Plans, quotas, usage and invoices, and Stripe's webhook. The rest is in ``subscription_routes``."""

from typing import Any
from uuid import UUID

import orjson
from flask import Response, request
from flask.views import MethodView

from app import cards
from app.api import Blueprint
from app.auth.roles import Role
from app.billing import events, invoices, plans, quotas, schemas, usage
from app.errors import BillingNotConfigured, TooLarge, ValidationFailed
from app.organizations.access import current, public, requires
from app.pagination import Page
from app.replay import commit_before_waiting
from config.settings import settings

blp = Blueprint("billing", __name__, description="Plans, subscription, usage, invoices")

MOST_BYTES = 64 * 1024  # of a body; Stripe's own, which a signature covers, may be larger
WEBHOOK = "billing.StripeWebhook"


@blp.before_request
def refuse_card_numbers() -> None:
    """No card number passes: a request that holds one ends before anything of it is kept, a digest of it included.

    Raises ValidationFailed or TooLarge. Stripe's events hold none, but numbers of banks' that may look like one.
    """
    if request.endpoint == WEBHOOK:
        return
    body = request.get_data(cache=True)
    if len(body) > MOST_BYTES:
        raise TooLarge(f"at most {MOST_BYTES} bytes")
    texts = [body.decode(errors="replace"), request.query_string.decode(errors="replace")]
    if cards.held(texts) or cards.held(_json(body)):
        message = "this holds what looks like a card number; send one to Stripe alone, and its pm_… id here"
        raise ValidationFailed(message, details={"_body": ["Must not hold a card number."]})


def _json(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        return None  # told later, in its place


def demand_stripe() -> None:
    """Raises BillingNotConfigured."""
    if not settings().sells:
        raise BillingNotConfigured


@blp.route("/billing/plans")
class Plans(MethodView):
    @requires(Role.VIEWER)
    @blp.response(200, schemas.PlansRead)
    def get(self) -> dict[str, Any]:
        """List the plans, the smallest first: what they cost and what they allow."""
        return {"items": plans.listed()}


@blp.route("/billing/quotas")
class Quotas(MethodView):
    @requires(Role.VIEWER)
    @blp.response(200, schemas.QuotasRead)
    def get(self) -> dict[str, Any]:
        """Show the limits of the organization's plan and what is used of them."""
        return quotas.overview(current.org)


@blp.route("/billing/usage")
class Usage(MethodView):
    @requires(Role.VIEWER)
    @blp.arguments(schemas.UsageQuery, location="query")
    @blp.response(200, schemas.UsageRead)
    def get(self, query: dict[str, Any]) -> dict[str, Any]:
        """Show what the organization has used, by hour, day or month."""
        return usage.read(current.org, query.get("from_"), query.get("to"), query["granularity"])


@blp.route("/billing/invoices")
class Invoices(MethodView):
    @requires(Role.VIEWER)
    @blp.arguments(schemas.InvoiceQuery, location="query")
    @blp.response(200, schemas.InvoicePage)
    def get(self, query: dict[str, Any]) -> Page:
        """List the organization's invoices, newest first."""
        demand_stripe()
        return invoices.list_invoices(current.org, **query)


@blp.route("/billing/invoices/<uuid:invoice_id>")
class Invoice(MethodView):
    @requires(Role.VIEWER)
    @blp.response(200, schemas.InvoiceRead)
    def get(self, invoice_id: UUID) -> Any:
        """Show an invoice with its lines."""
        demand_stripe()
        return invoices.get(current.org, invoice_id)


@blp.route("/billing/invoices/<uuid:invoice_id>/download")
class InvoiceDownload(MethodView):
    @requires(Role.VIEWER)
    @blp.response(200, {"type": "string", "format": "binary"}, content_type="application/pdf", example="%PDF-1.4 …")
    @blp.errors(409)
    def get(self, invoice_id: UUID) -> Response:
        """Download an invoice as PDF. 409 for a draft."""
        demand_stripe()
        asked = invoices.printable(current.org, invoice_id)
        commit_before_waiting()
        paper = invoices.paper(*asked)
        answer = Response(paper.pieces, mimetype="application/pdf", headers={"Cache-Control": "private, no-store"})
        answer.headers.set("Content-Disposition", "attachment", filename=paper.filename)
        answer.call_on_close(paper.close)
        return answer


@blp.route("/billing/webhooks/stripe")
class StripeWebhook(MethodView):
    @public
    @blp.response(200, schemas.WebhookAnswer)
    @blp.errors(400)
    def post(self) -> dict[str, Any]:
        """Take an event from Stripe (its signature is the credential)."""
        events.take(request.get_data(cache=True), request.headers.get("Stripe-Signature", ""))
        return {"received": True}
