"""Plans, the subscription, usage, invoices, payment methods and Stripe's webhook: not carried out yet."""

from typing import Any, NoReturn
from uuid import UUID

from flask.views import MethodView

from app.api import Blueprint
from app.auth.roles import Role
from app.billing import schemas
from app.errors import NotBuilt
from app.organizations.access import public, requires
from app.pagination import PageQuery

blp = Blueprint("billing", __name__, description="Plans, subscription, usage, invoices (not in this release)")


def _not_built() -> NoReturn:
    raise NotBuilt("billing is not available in this release")


@blp.route("/billing/plans")
class Plans(MethodView):
    @requires(Role.VIEWER)
    @blp.response(200, schemas.PlansRead)
    @blp.errors(501)
    def get(self) -> NoReturn:
        """List the plans that one can subscribe to."""
        _not_built()


@blp.route("/billing/subscription")
class Subscription(MethodView):
    @requires(Role.VIEWER)
    @blp.response(200, schemas.SubscriptionRead)
    @blp.errors(404, 501)
    def get(self) -> NoReturn:
        """Show the organization's subscription."""
        _not_built()

    @requires(Role.ADMIN)
    @blp.arguments(schemas.SubscriptionCreate)
    @blp.response(201, schemas.SubscriptionRead)
    @blp.errors(402, 501)
    def post(self, data: dict[str, Any]) -> NoReturn:
        """Subscribe to a plan."""
        _not_built()

    @requires(Role.ADMIN)
    @blp.arguments(schemas.SubscriptionUpdate)
    @blp.response(200, schemas.SubscriptionRead)
    @blp.errors(402, 404, 409, 501)
    def put(self, data: dict[str, Any]) -> NoReturn:
        """Change the subscription's plan."""
        _not_built()

    @requires(Role.ADMIN)
    @blp.arguments(schemas.SubscriptionCancel, location="query")
    @blp.response(200, schemas.SubscriptionRead)
    @blp.errors(404, 409, 501)
    def delete(self, query: dict[str, Any]) -> NoReturn:
        """Cancel the subscription, at the end of its period or at once."""
        _not_built()


@blp.route("/billing/subscription/resume")
class SubscriptionResume(MethodView):
    @requires(Role.ADMIN)
    @blp.response(200, schemas.SubscriptionRead)
    @blp.errors(404, 409, 501)
    def post(self) -> NoReturn:
        """Resume a subscription that was to end with its period."""
        _not_built()


@blp.route("/billing/usage")
class Usage(MethodView):
    @requires(Role.VIEWER)
    @blp.response(200, schemas.UsageRead)
    @blp.errors(501)
    def get(self) -> NoReturn:
        """Show what the organization has used in this period."""
        _not_built()


@blp.route("/billing/quotas")
class Quotas(MethodView):
    @requires(Role.VIEWER)
    @blp.response(200, schemas.QuotasRead)
    @blp.errors(501)
    def get(self) -> NoReturn:
        """Show the limits of the organization's plan and what is used of them."""
        _not_built()


@blp.route("/billing/invoices")
class Invoices(MethodView):
    @requires(Role.VIEWER)
    @blp.arguments(PageQuery, location="query")
    @blp.response(200, schemas.InvoicePage)
    @blp.errors(501)
    def get(self, query: dict[str, Any]) -> NoReturn:
        """List the organization's invoices."""
        _not_built()


@blp.route("/billing/invoices/<uuid:invoice_id>")
class Invoice(MethodView):
    @requires(Role.VIEWER)
    @blp.response(200, schemas.InvoiceRead)
    @blp.errors(501)
    def get(self, invoice_id: UUID) -> NoReturn:
        """Show an invoice."""
        _not_built()


@blp.route("/billing/invoices/<uuid:invoice_id>/download")
class InvoiceDownload(MethodView):
    @requires(Role.VIEWER)
    @blp.response(200, {"type": "string", "format": "binary"}, content_type="application/pdf", example="%PDF-1.4 …")
    @blp.errors(501)
    def get(self, invoice_id: UUID) -> NoReturn:
        """Download an invoice as PDF."""
        _not_built()


@blp.route("/billing/payment-methods")
class PaymentMethods(MethodView):
    @requires(Role.VIEWER)
    @blp.response(200, schemas.PaymentMethodsRead)
    @blp.errors(501)
    def get(self) -> NoReturn:
        """List the organization's payment methods."""
        _not_built()

    @requires(Role.ADMIN)
    @blp.arguments(schemas.PaymentMethodCreate)
    @blp.response(201, schemas.PaymentMethodRead)
    @blp.errors(402, 501)
    def post(self, data: dict[str, Any]) -> NoReturn:
        """Add a payment method."""
        _not_built()


@blp.route("/billing/payment-methods/<uuid:payment_method_id>")
class PaymentMethod(MethodView):
    @requires(Role.ADMIN)
    @blp.response(204)
    @blp.errors(409, 501)
    def delete(self, payment_method_id: UUID) -> NoReturn:
        """Remove a payment method."""
        _not_built()


@blp.route("/billing/webhooks/stripe")
class StripeWebhook(MethodView):
    @public
    @blp.response(200, schemas.WebhookAnswer)
    @blp.errors(400, 501)
    def post(self) -> NoReturn:
        """Take an event from Stripe (its signature is the credential)."""
        _not_built()
