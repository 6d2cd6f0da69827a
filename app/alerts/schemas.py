"""Bodies of alert rules."""

from typing import Any

from marshmallow import ValidationError, fields, validate, validates_schema

from app.api_schema import JsonObject, Schema, Text, Time
from app.pagination import PageQuery, page_of

TYPES = ("metric", "device_offline", "deployment_failed", "log_match")
CONDITIONS = ("gt", "gte", "lt", "lte", "eq", "ne")
SEVERITIES = ("info", "warning", "critical")
STATES = ("ok", "pending", "firing")
_DEVICE = "3f2b8c1e-5d0a-4b7e-9c55-0e6f3a1d2b4c"


class AlertTarget(Schema):
    """Which devices a rule watches; exactly one of the three."""

    device_ids = fields.List(fields.UUID(), validate=validate.Length(1, 10_000), metadata={"example": [_DEVICE]})
    tags = fields.List(
        Text(validate=validate.Length(1, 100)), validate=validate.Length(1, 50), metadata={"example": ["pump"]}
    )
    all = fields.Boolean(validate=validate.Equal(True), metadata={"example": True})

    @validates_schema
    def _one(self, data: dict[str, Any], **_kwargs: Any) -> None:
        if len(data) != 1:
            raise ValidationError("Exactly one of device_ids, tags, all.")


class AlertChannel(Schema):
    type = fields.String(required=True, validate=validate.OneOf(["webhook", "email"]), metadata={"example": "email"})
    url = fields.Url(
        schemes={"http", "https"}, metadata={"description": "of a webhook", "example": "https://example.com/hook"}
    )
    to = fields.List(fields.Email(), validate=validate.Length(1, 20), metadata={"description": "of an email"})

    @validates_schema
    def _address(self, data: dict[str, Any], **_kwargs: Any) -> None:
        needed = "url" if data.get("type") == "webhook" else "to"
        if needed not in data:
            raise ValidationError("Missing data for required field.", needed)


class AlertUpdate(Schema):
    name = Text(validate=validate.Length(1, 200), metadata={"example": "Pump too hot"})
    type = fields.String(validate=validate.OneOf(TYPES), metadata={"example": "metric"})
    metric = Text(validate=validate.Length(1, 200), metadata={"example": "temperature"})
    condition = fields.String(validate=validate.OneOf(CONDITIONS), metadata={"example": "gt"})
    threshold = fields.Float(metadata={"example": 80.0})
    for_seconds = fields.Integer(
        validate=validate.Range(0, 86_400), metadata={"description": "how long before it fires", "example": 60}
    )
    severity = fields.String(validate=validate.OneOf(SEVERITIES), metadata={"example": "warning"})
    target = fields.Nested(AlertTarget, metadata={"example": {"tags": ["pump"]}})
    channels = fields.List(
        fields.Nested(AlertChannel),
        validate=validate.Length(max=10),
        metadata={"example": [{"type": "email", "to": ["ada@example.com"]}]},
    )
    enabled = fields.Boolean(metadata={"example": True})


class AlertCreate(AlertUpdate):
    name = Text(required=True, validate=validate.Length(1, 200), metadata={"example": "Pump too hot"})
    type = fields.String(required=True, validate=validate.OneOf(TYPES), metadata={"example": "metric"})

    @validates_schema
    def _complete(self, data: dict[str, Any], **_kwargs: Any) -> None:
        if data.get("type") != "metric":
            return
        missing = {"metric", "condition", "threshold"} - data.keys()
        if missing:
            raise ValidationError({name: ["Missing data for required field."] for name in sorted(missing)})


class AlertRead(Schema):
    id = fields.UUID()
    name = fields.String(metadata={"example": "Pump too hot"})
    type = fields.String(metadata={"example": "metric"})
    metric = fields.String(allow_none=True, metadata={"example": "temperature"})
    condition = fields.String(allow_none=True, metadata={"example": "gt"})
    threshold = fields.Float(allow_none=True, metadata={"example": 80.0})
    for_seconds = fields.Integer(metadata={"example": 60})
    severity = fields.String(metadata={"example": "warning"})
    target = JsonObject(metadata={"example": {"tags": ["pump"]}})
    channels = fields.List(JsonObject(), metadata={"example": [{"type": "email", "to": ["ada@example.com"]}]})
    enabled = fields.Boolean(metadata={"example": True})
    state = fields.String(validate=validate.OneOf(STATES), metadata={"example": "ok"})
    alerts = fields.Dict(
        keys=fields.String(),
        values=fields.Integer(),
        metadata={"description": "the rule's alerts by state", "example": {"firing": 1, "resolved": 4}},
    )
    created_at = Time()
    updated_at = Time()


class AlertQuery(PageQuery):
    state = fields.String(validate=validate.OneOf(STATES), metadata={"example": "firing"})


class Acknowledgement(Schema):
    comment = Text(validate=validate.Length(max=1000), metadata={"example": "on my way"})


AlertPage = page_of(AlertRead)
