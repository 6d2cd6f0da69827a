"""Queries over log entries, and the entries they answer."""

from typing import Any

from marshmallow import ValidationError, fields, validate, validates_schema

from app.api_schema import Query, Rows, Schema, Text, Time
from app.logs.models import LEVELS, SOURCES

NDJSON = "application/x-ndjson"
_EXAMPLE = """id: 81927:81930:
event: log
data: {"id": 42, "time": "2026-11-22T21:51:05.123456Z", "level": "warning", "message": "valve stuck"}

"""
LOG_STREAM = {200: {"content": {"text/event-stream": {"schema": {"type": "string"}, "example": _EXAMPLE}}}}
LOG_LINES = {
    200: {"content": {NDJSON: {"schema": {"type": "string"}, "example": '{"id": 42, "message": "valve stuck"}\n'}}}
}


class LogFilter(Query):
    """What a list and a stream can be narrowed to."""

    level = fields.String(
        validate=validate.OneOf(LEVELS), metadata={"description": "this level and graver ones", "example": "warning"}
    )
    q = Text(validate=validate.Length(1, 200), metadata={"description": "full text", "example": "valve stuck"})
    source = fields.String(validate=validate.OneOf(SOURCES), metadata={"example": "device"})
    kind = Text(
        validate=validate.Length(1, 100), metadata={"description": "of a platform entry", "example": "device.connected"}
    )


class LogQuery(LogFilter):
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


class LogStreamQuery(LogFilter):
    device_id = fields.UUID(metadata={"description": "only this device's"})


class LogStreamHeaders(Schema):
    last_event_id = Text(
        data_key="Last-Event-ID",
        validate=validate.Length(1, 8_000),
        metadata={"description": "the last event seen; the stream goes on after it", "example": "81927:81930:"},
    )


class Level(fields.String):
    """A place in ``LEVELS``, by its name."""

    def _serialize(self, value: Any, attr: str | None, obj: Any, **kwargs: Any) -> str | None:
        return None if value is None else LEVELS[value]


class LogRead(Schema):
    """An entry. A device's own time counts unless it is too far off: then ``claimed_at`` has it."""

    id = fields.Integer(metadata={"example": 42})
    time = Time()
    claimed_at = Time(
        allow_none=True, metadata={"description": "the time that the device gave, if another", "example": None}
    )
    received_at = Time()
    level = Level(metadata={"example": "warning"})
    source = fields.String(metadata={"example": "device"})
    kind = fields.String(
        allow_none=True, metadata={"description": "what happened, of a platform entry", "example": None}
    )
    device_id = fields.UUID(allow_none=True)
    message = fields.String(metadata={"example": "valve stuck"})
    fields_ = fields.Dict(
        keys=fields.String(), data_key="fields", attribute="fields", metadata={"example": {"valve": 3}}
    )


class LogsRead(Schema):
    """Newest first."""

    items = Rows(LogRead)
    next_cursor = fields.String(
        allow_none=True, metadata={"description": "null: nothing older", "example": "MTczMjMxMjI2NTEyMzQ1Ni40Mg"}
    )
