"""Bodies of notifications."""

from marshmallow import fields, validate

from app.api_schema import JsonObject, Rows, Schema, Time
from app.pagination import PageQuery, page_of

KINDS = ("firing", "resolved", "reminder")
STATES = ("queued", "sending", "delivered", "failed")


class AttemptRead(Schema):
    attempt = fields.Integer(metadata={"example": 1})
    status_code = fields.Integer(
        allow_none=True, metadata={"description": "the webhook's HTTP status or the mail server's code", "example": 503}
    )
    error = fields.String(allow_none=True, metadata={"example": "answered 503"})
    ms = fields.Integer(metadata={"description": "how long it took, in milliseconds", "example": 41})
    created_at = Time()


class NotificationRead(Schema):
    id = fields.UUID(metadata={"description": "what a webhook gets as `X-EdgeFlow-Delivery`"})
    kind = fields.String(validate=validate.OneOf(KINDS), metadata={"example": "firing"})
    channel = JsonObject(metadata={"example": {"id": "5f0c2d6e", "type": "email", "to": ["ada@example.com"]}})
    payload = JsonObject(metadata={"description": "what it says", "example": {"kind": "firing", "count": 500}})
    state = fields.String(validate=validate.OneOf(STATES), metadata={"example": "delivered"})
    attempt = fields.Integer(metadata={"description": "how often it was tried", "example": 1})
    error = fields.String(allow_none=True, metadata={"description": "of the last try", "example": "answered 503"})
    attempts = Rows(AttemptRead, metadata={"description": "the last 50 tries, newest first"})
    next_attempt_at = Time(allow_none=True)
    created_at = Time()
    finished_at = Time(allow_none=True)


class NotificationQuery(PageQuery):
    state = fields.String(validate=validate.OneOf(STATES), metadata={"example": "failed"})
    kind = fields.String(validate=validate.OneOf(KINDS), metadata={"example": "firing"})


NotificationPage = page_of(NotificationRead)
