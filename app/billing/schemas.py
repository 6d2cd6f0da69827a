"""Bodies of plans, the subscription, usage, invoices and payment methods. Amounts are in the currency's least unit."""

from marshmallow import fields, validate

from app.api_schema import Query, Schema, Text, Time
from app.pagination import PageQuery, page_of

STATUSES = (
    "trialing", "active", "incomplete", "incomplete_expired", "past_due", "canceled", "unpaid", "paused",
)  # fmt: skip
INVOICE_STATUSES = ("draft", "open", "paid", "uncollectible", "void")
QUOTAS = {
    "devices": 500, "flows": 200, "members": 25, "deployments_per_month": 5000, "metric_points_per_day": 50_000_000,
    "retention_days": 14,
}  # fmt: skip

_PLAN = {"example": "pro", "description": "a plan's id, of `GET /billing/plans`"}
_METHOD = {"example": "pm_1QxYz2AbCdEf", "description": "Stripe's id of a payment method; never a card's number"}
_CURRENCY = {"example": "eur", "description": "ISO 4217, lower case, as Stripe writes it"}
_STRIPE_METHOD = validate.Regexp(r"^pm_[A-Za-z0-9_]{1,250}$", error="Must be Stripe's id of a payment method: pm_…")
_LEAST_UNIT = "in the currency's least unit"


def _amount(what: str, example: int) -> fields.Integer:
    return fields.Integer(metadata={"description": what, "example": example})


def _page(example: str) -> fields.Url:
    """Where Stripe sends the customer back to."""
    lengths = validate.Length(1, 2000)
    visible = validate.Regexp(r"^[!-~]+$", error="Must be a URL of visible ASCII characters.")
    return fields.Url(
        schemes={"http", "https"}, require_tld=False, validate=[lengths, visible], metadata={"example": example}
    )


class PlanRead(Schema):
    id = fields.String(metadata={"example": "pro"})
    name = fields.String(metadata={"example": "Pro"})
    price = _amount("for one interval, in the currency's least unit", 4900)
    currency = fields.String(allow_none=True, metadata={**_CURRENCY, "description": "ISO 4217; null: it is free"})
    interval = fields.String(allow_none=True, metadata={"description": "month or year", "example": "month"})
    trial_days = fields.Integer(metadata={"description": "0: it has no trial", "example": 14})
    quotas = fields.Dict(
        keys=fields.String(),
        values=fields.Integer(allow_none=True),
        metadata={"description": "quota to limit; null: unlimited", "example": QUOTAS},
    )


class PlansRead(Schema):
    items = fields.List(fields.Nested(PlanRead))


class SubscriptionCreate(Schema):
    plan = Text(required=True, validate=validate.Length(1, 100), metadata=_PLAN)
    payment_method_id = Text(validate=_STRIPE_METHOD, metadata=_METHOD)
    trial = fields.Boolean(
        load_default=False,
        metadata={"description": "begin with the plan's trial, which is given once", "example": False},
    )


class SubscriptionUpdate(Schema):
    plan = Text(required=True, validate=validate.Length(1, 100), metadata=_PLAN)


class SubscriptionUpdateQuery(Query):
    preview = fields.Boolean(
        load_default=False, metadata={"description": "only tell what it would cost", "example": False}
    )


class SubscriptionCancel(Query):
    at = fields.String(
        load_default="period_end",
        validate=validate.OneOf(["period_end", "now"]),
        metadata={"description": "when it ends", "example": "period_end"},
    )


class SubscriptionRead(Schema):
    id = fields.UUID()
    plan = fields.String(metadata={"example": "pro"})
    status = fields.String(validate=validate.OneOf(STATUSES), metadata={"example": "active"})
    current_period_start = Time(allow_none=True)
    current_period_end = Time(allow_none=True)
    cancel_at_period_end = fields.Boolean(metadata={"example": False})
    trial_end = Time(allow_none=True)
    ended_at = Time(allow_none=True)
    created_at = Time()
    requires_action = fields.Boolean(
        metadata={"description": "a payment waits for the customer, who confirms it at Stripe", "example": False}
    )
    client_secret = fields.String(
        metadata={
            "description": "only while a payment waits for the customer, and for admins: Stripe.js confirms it by this",
            "example": "pi_3Qx_secret_1a2b",
        }
    )


class PreviewLine(Schema):
    description = fields.String(allow_none=True, metadata={"example": "Unused time on Pro after 12 Nov 2026"})
    quantity = fields.Integer(allow_none=True, metadata={"example": 1})
    amount = _amount("in the currency's least unit; negative: given back", -2450)
    proration = fields.Boolean(metadata={"description": "for part of a period", "example": True})
    period_start = Time(allow_none=True)
    period_end = Time(allow_none=True)


class NextInvoice(Schema):
    amount_due = _amount(_LEAST_UNIT, 19900)
    at = Time(allow_none=True, metadata={"description": "when it comes"})


class ChangePreview(Schema):
    """What a change of plan would cost, were it made now."""

    amount_due_now = _amount(_LEAST_UNIT, 7450)
    currency = fields.String(metadata=_CURRENCY)
    lines = fields.List(fields.Nested(PreviewLine))
    next_invoice = fields.Nested(NextInvoice)


class CheckoutCreate(Schema):
    plan = Text(required=True, validate=validate.Length(1, 100), metadata=_PLAN)
    success_url = _page("https://example.com/paid")
    cancel_url = _page("https://example.com/plans")


class PortalCreate(Schema):
    return_url = _page("https://example.com/account")


class LinkRead(Schema):
    url = fields.String(
        metadata={"description": "a page of Stripe's, for a while", "example": "https://example.com/c/pay/cs_test_a1"}
    )


class UsageQuery(Query):
    from_ = Time(data_key="from", metadata={"description": "default: the beginning of the month (UTC)"})
    to = Time(metadata={"description": "default: now"})
    granularity = fields.String(
        load_default="day",
        validate=validate.OneOf(["hour", "day", "month"]),
        metadata={"description": "of the buckets, in UTC", "example": "day"},
    )


class UsageCounts(Schema):
    device_seconds = fields.Integer(metadata={"description": "that devices were connected", "example": 90_000})
    device_hours = fields.Float(metadata={"description": "the same in hours", "example": 25.0})
    commands = fields.Integer(metadata={"description": "sent to devices", "example": 12})
    deployments = fields.Integer(metadata={"description": "created", "example": 2})
    points = fields.Integer(metadata={"description": "of metrics, stored", "example": 43_200})
    points_refused = fields.Integer(metadata={"description": "of metrics, over the day's quota", "example": 0})


class UsageBucket(UsageCounts):
    start = Time()
    end = Time()
    provisional = fields.Boolean(metadata={"description": "its numbers may still change", "example": False})


class UsageRead(Schema):
    period_start = Time()
    period_end = Time()
    granularity = fields.String(metadata={"example": "day"})
    totals = fields.Nested(UsageCounts)
    buckets = fields.List(fields.Nested(UsageBucket))


class QuotaRead(Schema):
    quota = fields.String(metadata={"example": "devices"})
    limit = fields.Integer(allow_none=True, metadata={"description": "null: unlimited", "example": 500})
    used = fields.Integer(metadata={"example": 7})
    resets_at = Time(allow_none=True, metadata={"description": "null: never, it counts what there is"})


class QuotasRead(Schema):
    plan = fields.String(metadata={"example": "pro"})
    items = fields.List(fields.Nested(QuotaRead))


class InvoiceSummaryRead(Schema):
    id = fields.UUID()
    number = fields.String(allow_none=True, metadata={"description": "null: a draft", "example": "EF-2026-0042"})
    status = fields.String(validate=validate.OneOf(INVOICE_STATUSES), metadata={"example": "paid"})
    currency = fields.String(metadata=_CURRENCY)
    subtotal = _amount(_LEAST_UNIT, 4900)
    tax = _amount(_LEAST_UNIT, 0)
    total = _amount(_LEAST_UNIT, 4900)
    amount_paid = _amount(_LEAST_UNIT, 4900)
    amount_due = _amount(_LEAST_UNIT, 0)
    period_start = Time()
    period_end = Time()
    due_at = Time(allow_none=True)
    created_at = Time()


class InvoiceLineRead(Schema):
    description = fields.String(allow_none=True, metadata={"example": "1 × Pro (at €49.00 / month)"})
    quantity = fields.Integer(allow_none=True, metadata={"example": 1})
    amount = _amount(_LEAST_UNIT, 4900)


class InvoiceRead(InvoiceSummaryRead):
    lines = fields.List(fields.Nested(InvoiceLineRead))


class InvoiceQuery(PageQuery):
    status = fields.String(validate=validate.OneOf(INVOICE_STATUSES), metadata={"example": "paid"})


class PaymentMethodCreate(Schema):
    payment_method_id = Text(required=True, validate=_STRIPE_METHOD, metadata=_METHOD)
    default = fields.Boolean(
        load_default=False, metadata={"description": "pay by this from now on; the first one is it anyhow"}
    )


class PaymentMethodRead(Schema):
    id = fields.UUID()
    type = fields.String(metadata={"example": "card"})
    brand = fields.String(allow_none=True, metadata={"example": "visa"})
    last4 = fields.String(allow_none=True, metadata={"example": "4242"})
    expires = fields.String(allow_none=True, metadata={"example": "2029-11"})
    is_default = fields.Boolean(metadata={"example": True})
    created_at = Time()


class PaymentMethodsRead(Schema):
    items = fields.List(fields.Nested(PaymentMethodRead))


class WebhookAnswer(Schema):
    received = fields.Boolean(metadata={"example": True})


InvoicePage = page_of(InvoiceSummaryRead)

SUBSCRIPTION_OR_PREVIEW = {
    200: {
        "description": "the subscription, or with `preview=true` what the change would cost (`ChangePreview`)",
        "content": {"application/json": {"schema": {"oneOf": [SubscriptionRead, ChangePreview]}}},
    }
}
