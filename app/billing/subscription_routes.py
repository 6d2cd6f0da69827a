"""The subscription and what pays it. A change is stored as an operation, which a worker carries out at Stripe."""

from collections.abc import Callable
from typing import Any
from uuid import UUID

from flask import Response, jsonify
from flask.views import MethodView

from app import replay
from app.api import PREFIX
from app.auth.roles import Role
from app.billing import operations, payment_methods, previews, schemas, subscription
from app.billing.routes import blp, demand_stripe
from app.organizations.access import current, requires
from config.settings import settings

FAILURES = (402, 409)


def _carry_out(kind: str, payload: dict[str, Any], admit: Callable[[], Any] = lambda: None) -> dict[str, Any]:
    """An operation's result. This request's transaction ends with it stored; then the wait for Stripe begins.

    The same request again, under its Idempotency-Key, begins nothing: it waits for what the first one began.
    ``admit`` raises what speaks against it. Raises also what the operation failed with, or ServiceUnavailable while it
    goes on.
    """
    demand_stripe()
    work = replay.begun()
    if work is None:
        admit()
        work = operations.submit(current.org, kind, payload, current.actor)
        admit()  # again: only now does nobody else change it
        replay.answer_comes_of(work)
    replay.commit_before_waiting()
    return operations.wait(current.org, work, operations.WAIT_SECONDS)


def _subscription() -> dict[str, Any]:
    return subscription.get(current.org, secret=True)


@blp.route("/billing/subscription")
class Subscription(MethodView):
    @requires(Role.VIEWER)
    @blp.response(200, schemas.SubscriptionRead)
    @blp.errors(404)
    def get(self) -> dict[str, Any]:
        """Show the organization's subscription, the last one if it is over; 404 if there never was one."""
        demand_stripe()
        return subscription.get(current.org, secret=current.role.includes(Role.ADMIN))

    @requires(Role.ADMIN)
    @blp.arguments(schemas.SubscriptionCreate)
    @blp.response(201, schemas.SubscriptionRead)
    @blp.errors(*FAILURES)
    def post(self, data: dict[str, Any]) -> Any:
        """Subscribe to a plan, by a payment method or with its trial.

        402 if the bank declines. Where the customer has to confirm the payment: 201, `incomplete`, with
        `requires_action` and the `client_secret` for Stripe.js.
        """
        _carry_out("subscription.create", data, lambda: subscription.admit_new(current.org, **data))
        return _subscription(), {"Location": f"{PREFIX}/billing/subscription"}

    @requires(Role.ADMIN)
    @blp.arguments(schemas.SubscriptionUpdate)
    @blp.arguments(schemas.SubscriptionUpdateQuery, location="query")
    @blp.response(200, schemas.SubscriptionRead)
    @blp.doc(responses=schemas.SUBSCRIPTION_OR_PREVIEW)
    @blp.errors(404, *FAILURES)
    def put(self, data: dict[str, Any], query: dict[str, Any]) -> Any:
        """Change the subscription's plan, or with `preview=true` only tell what that would cost.

        409 with `too_much` for a plan that allows less than there is; nothing is deleted.
        """
        demand_stripe()
        if query["preview"]:
            return _preview(**data)
        if subscription.admit_change(current.org, **data):
            _carry_out("subscription.change", data, lambda: subscription.admit_change(current.org, **data))
        return _subscription()

    @requires(Role.ADMIN)
    @blp.arguments(schemas.SubscriptionCancel, location="query")
    @blp.response(200, schemas.SubscriptionRead)
    @blp.errors(404, 409)
    def delete(self, query: dict[str, Any]) -> dict[str, Any]:
        """Cancel the subscription, at the end of its period or at once. What was never paid for ends at once."""
        demand_stripe()
        if at := subscription.admit_cancel(current.org, **query):
            _carry_out("subscription.cancel", {"at": at}, lambda: subscription.admit_cancel(current.org, at))
        return _subscription()


def _preview(plan: str) -> Response:
    asked = previews.ask(current.org, plan)
    replay.commit_before_waiting()
    return jsonify(schemas.ChangePreview().dump(previews.answer(asked)))


@blp.route("/billing/subscription/resume")
class SubscriptionResume(MethodView):
    @requires(Role.ADMIN)
    @blp.response(200, schemas.SubscriptionRead)
    @blp.errors(402, 404, 409)
    def post(self) -> dict[str, Any]:
        """Resume a subscription that was to end with its period."""
        _carry_out("subscription.resume", {}, lambda: subscription.admit_resume(current.org))
        return _subscription()


@blp.route("/billing/payment-methods")
class PaymentMethods(MethodView):
    @requires(Role.VIEWER)
    @blp.response(200, schemas.PaymentMethodsRead)
    def get(self) -> dict[str, Any]:
        """List the organization's payment methods, the default one first."""
        demand_stripe()
        return {"items": payment_methods.listed(current.org)}

    @requires(Role.ADMIN)
    @blp.arguments(schemas.PaymentMethodCreate)
    @blp.response(201, schemas.PaymentMethodRead)
    @blp.errors(*FAILURES)
    def post(self, data: dict[str, Any]) -> dict[str, Any]:
        """Add a payment method, by the id that Stripe.js gave; the same one again may become the default."""
        done = _carry_out("payment_method.add", data)
        return payment_methods.by_stripe_id(current.org, done["stripe_id"])


@blp.route("/billing/payment-methods/<uuid:method_id>")
class PaymentMethod(MethodView):
    @requires(Role.ADMIN)
    @blp.response(204)
    @blp.errors(409)
    def delete(self, method_id: UUID) -> None:
        """Remove a payment method. 409 for the last one while a subscription lives."""
        demand_stripe()
        stripe_id = payment_methods.admit_removal(current.org, method_id)
        _carry_out(
            "payment_method.remove",
            {"stripe_id": stripe_id},
            lambda: payment_methods.admit_removal(current.org, method_id),
        )


@blp.route("/billing/payment-methods/<uuid:method_id>/default")
class PaymentMethodDefault(MethodView):
    @requires(Role.ADMIN)
    @blp.response(200, schemas.PaymentMethodRead)
    def post(self, method_id: UUID) -> dict[str, Any]:
        """Pay by this payment method from now on."""
        demand_stripe()
        stripe_id = payment_methods.stripe_id(current.org, method_id)
        _carry_out("payment_method.default", {"stripe_id": stripe_id})
        return payment_methods.by_stripe_id(current.org, stripe_id)


@blp.route("/billing/checkout-session")
class CheckoutSession(MethodView):
    @requires(Role.ADMIN)
    @blp.arguments(schemas.CheckoutCreate)
    @blp.response(201, schemas.LinkRead)
    def post(self, data: dict[str, Any]) -> dict[str, Any]:
        """Make a link to Stripe's page on which one subscribes to a plan; links made before lead nowhere any more."""
        home = settings().url
        asked = {"success_url": f"{home}/?checkout=success", "cancel_url": f"{home}/?checkout=canceled", **data}
        return _carry_out("checkout.create", asked, lambda: subscription.admit_checkout(current.org, data["plan"]))


@blp.route("/billing/portal-session")
class PortalSession(MethodView):
    @requires(Role.ADMIN)
    @blp.arguments(schemas.PortalCreate, required=False)
    @blp.response(201, schemas.LinkRead)
    def post(self, data: dict[str, Any]) -> dict[str, Any]:
        """Make a link to Stripe's page on which one manages payment methods, invoices and the subscription."""
        return _carry_out("portal.create", {"return_url": settings().url, **data})
