"""Bodies of plans, the subscription, usage, invoices and payment methods. Amounts are in the currency's least unit."""

from marshmallow import fields, validate

from app.api_schema import Query, Schema, Text, Time
from app.pagination import page_of

STATUSES = (
    "trialing", "active", "incomplete", "incomplete_expired", "past_due", "canceled", "unpaid", "paused",
)  # fmt: skip
QUOTAS = {
    "devices": 100, "flows": 50, "members": 10, "deployments_per_month": 1000, "metric_points_per_day": 1_000_000,
    "retention_days": 30,
}  # fmt: skip

_PLAN = {"example": "team", "description": "a plan's id, of `GET /billing/plans`"}
_METHOD = {"example": "pm_1QxYz2AbCdEf", "description": "Stripe's id of a payment method"}
_CURRENCY = {"example": "eur", "description": "ISO 4217"}


def _amount(what: str, example: int) -> fields.Integer:
    return fields.Integer(metadata={"description": what, "example": example})


class PlanRead(Schema):
    id = fields.String(metadata={"example": "team"})
    name = fields.String(metadata={"example": "Team"})
    price = _amount("for one interval, in the currency's least unit", 4900)
    currency = fields.String(metadata=_CURRENCY)
    interval = fields.String(validate=validate.OneOf(["month", "year"]), metadata={"example": "month"})
    quotas = fields.Dict(
        keys=fields.String(), values=fields.Integer(), metadata={"description": "quota to limit", "example": QUOTAS}
    )


class PlansRead(Schema):
    items = fields.List(fields.Nested(PlanRead))


class SubscriptionCreate(Schema):
    plan = Text(required=True, validate=validate.Length(1, 100), metadata=_PLAN)
    payment_method_id = Text(validate=validate.Regexp(r"^pm_\w{1,250}$"), metadata=_METHOD)
    trial = fields.Boolean(metadata={"description": "begin with the plan's trial", "example": False})


class SubscriptionUpdate(Schema):
    plan = Text(required=True, validate=validate.Length(1, 100), metadata=_PLAN)


class SubscriptionCancel(Query):
    at = fields.String(
        load_default="period_end",
        validate=validate.OneOf(["period_end", "now"]),
        metadata={"description": "when it ends", "example": "period_end"},
    )


class SubscriptionRead(Schema):
    id = fields.UUID()
    plan = fields.String(metadata={"example": "team"})
    status = fields.String(validate=validate.OneOf(STATUSES), metadata={"example": "active"})
    current_period_start = Time()
    current_period_end = Time()
    cancel_at_period_end = fields.Boolean(metadata={"example": False})
    trial_end = Time(allow_none=True)
    client_secret = fields.String(
        metadata={"description": "only while a payment waits for the customer", "example": "pi_3Qx_secret_1a2b"}
    )


class UsageRead(Schema):
    period_start = Time()
    period_end = Time()
    usage = fields.Dict(
        keys=fields.String(),
        values=fields.Integer(),
        metadata={"description": "quota to what is used of it", "example": dict.fromkeys(QUOTAS, 7)},
    )


class QuotaRead(Schema):
    quota = fields.String(metadata={"example": "devices"})
    limit = fields.Integer(allow_none=True, metadata={"description": "null: unlimited", "example": 100})
    used = fields.Integer(metadata={"example": 7})


class QuotasRead(Schema):
    plan = fields.String(metadata={"example": "team"})
    items = fields.List(fields.Nested(QuotaRead))


class InvoiceLineRead(Schema):
    description = fields.String(metadata={"example": "Team, November 2026"})
    quantity = fields.Integer(metadata={"example": 1})
    amount = _amount("in the currency's least unit", 4900)


class InvoiceRead(Schema):
    id = fields.UUID()
    number = fields.String(metadata={"example": "EF-2026-0042"})
    status = fields.String(
        validate=validate.OneOf(["draft", "open", "paid", "uncollectible", "void"]), metadata={"example": "paid"}
    )
    currency = fields.String(metadata=_CURRENCY)
    total = _amount("in the currency's least unit", 4900)
    amount_paid = _amount("in the currency's least unit", 4900)
    amount_due = _amount("in the currency's least unit", 0)
    period_start = Time()
    period_end = Time()
    created_at = Time()
    lines = fields.List(fields.Nested(InvoiceLineRead))


class PaymentMethodCreate(Schema):
    payment_method_id = Text(required=True, validate=validate.Regexp(r"^pm_\w{1,250}$"), metadata=_METHOD)


class PaymentMethodRead(Schema):
    id = fields.UUID()
    type = fields.String(metadata={"example": "card"})
    brand = fields.String(metadata={"example": "visa"})
    last4 = fields.String(metadata={"example": "4242"})
    expires = fields.String(metadata={"example": "2029-11"})
    is_default = fields.Boolean(metadata={"example": True})
    created_at = Time()


class PaymentMethodsRead(Schema):
    items = fields.List(fields.Nested(PaymentMethodRead))


class WebhookAnswer(Schema):
    received = fields.Boolean(metadata={"example": True})


InvoicePage = page_of(InvoiceRead)
