"""Queries over metric points, and the series they answer."""

from typing import Any

from marshmallow import ValidationError, fields, validate, validates_schema

from app.api_schema import Query, Schema, Text, Time

AGGREGATES = ("avg", "min", "max", "sum", "count", "last")


class MetricQuery(Query):
    name = Text(
        validate=validate.Length(1, 200),
        metadata={"description": "dotted path; none: a summary", "example": "cpu.usage_percent"},
    )
    from_ = Time(data_key="from", metadata={"description": "default: an hour before `to`"})
    to = Time(metadata={"description": "default: now"})
    step = fields.Integer(
        validate=validate.Range(1, 86_400), metadata={"description": "seconds between points", "example": 60}
    )
    agg = fields.String(load_default="avg", validate=validate.OneOf(AGGREGATES), metadata={"example": "avg"})

    @validates_schema
    def _order(self, data: dict[str, Any], **_kwargs: Any) -> None:
        if "from_" in data and "to" in data and data["from_"] >= data["to"]:
            raise ValidationError("Must lie before to.", "from")


class OrganizationMetricQuery(MetricQuery):
    group_by = fields.String(
        validate=validate.OneOf(["device", "tag"]), metadata={"description": "one series each", "example": "device"}
    )


class SeriesRead(Schema):
    name = fields.String(metadata={"example": "cpu.usage_percent"})
    labels = fields.Dict(
        keys=fields.String(),
        values=fields.String(),
        metadata={"example": {"device": "3f2b8c1e-5d0a-4b7e-9c55-0e6f3a1d2b4c"}},
    )
    points = fields.List(
        fields.List(fields.Raw()),
        metadata={"description": "[time, value] each", "example": [["2026-11-22T21:51:00Z", 12.5]]},
    )


class MetricsRead(Schema):
    """``series`` for a query with a name; else the organization's summary."""

    series = fields.List(fields.Nested(SeriesRead))
    devices = fields.Dict(
        keys=fields.String(),
        values=fields.Integer(),
        metadata={"description": "by status", "example": {"online": 9, "offline": 1}},
    )
    flows = fields.Integer(metadata={"example": 3})
    deployments = fields.Integer(metadata={"example": 12})
    commands = fields.Integer(metadata={"example": 240})
    points_stored = fields.Integer(metadata={"example": 86400})
    names = fields.List(fields.String(), metadata={"example": ["cpu.usage_percent", "memory.percent"]})


class DeviceMetricsRead(Schema):
    series = fields.List(fields.Nested(SeriesRead))
