"""Queries over log entries, and the entries they answer."""

from typing import Any

from marshmallow import ValidationError, fields, validate, validates_schema

from app.api_schema import Query, Schema, Text, Time

LEVELS = ("debug", "info", "warning", "error")
SOURCES = ("device", "platform")


class LogQuery(Query):
    level = fields.String(
        validate=validate.OneOf(LEVELS), metadata={"description": "this level and graver ones", "example": "warning"}
    )
    q = Text(validate=validate.Length(1, 200), metadata={"description": "full text", "example": "valve stuck"})
    source = fields.String(validate=validate.OneOf(SOURCES), metadata={"example": "device"})
    from_ = Time(data_key="from")
    to = Time()
    cursor = Text(validate=validate.Length(1, 500), metadata={"description": "`next_cursor` of the page before"})
    limit = fields.Integer(load_default=50, validate=validate.Range(1, 500))

    @validates_schema
    def _order(self, data: dict[str, Any], **_kwargs: Any) -> None:
        if "from_" in data and "to" in data and data["from_"] >= data["to"]:
            raise ValidationError("Must lie before to.", "from")


class OrganizationLogQuery(LogQuery):
    device_id = fields.UUID(metadata={"description": "only this device's"})


class LogRead(Schema):
    id = fields.UUID()
    time = Time()
    level = fields.String(metadata={"example": "warning"})
    source = fields.String(metadata={"example": "device"})
    device_id = fields.UUID(allow_none=True)
    message = fields.String(metadata={"example": "valve stuck"})
    fields_ = fields.Dict(keys=fields.String(), data_key="fields", metadata={"example": {"valve": 3}})


class LogsRead(Schema):
    """Newest first."""

    items = fields.List(fields.Nested(LogRead))
    next_cursor = fields.String(
        allow_none=True, metadata={"description": "null: nothing older", "example": "MTczMjMxMjI2NQ"}
    )
