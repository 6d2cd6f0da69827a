"""Queries over metric points, and the series they answer."""

from datetime import UTC, datetime
from typing import Any

from marshmallow import ValidationError, fields, validate, validates_schema

from app.api_schema import Query, Schema, Text, Time
from app.metrics.grid import MAX_STEP
from app.metrics.queries import AGGREGATES

MAX_NAMES = 20
_bounds = validate.Range(datetime(1970, 1, 1, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC))
CSV = {
    200: {
        "content": {
            "text/csv": {
                "schema": {"type": "string"},
                "example": "time,name,device,value\r\n"
                "2026-11-22T21:51:00Z,cpu.usage_percent,3f2b8c1e-5d0a-4b7e-9c55-0e6f3a1d2b4c,12.5\r\n",
            }
        }
    }
}


class Names(fields.List):
    """Metric names: repeated, or separated by commas; each once."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(Text(metadata={"example": "cpu.usage_percent"}), **kwargs)

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> list[Any]:
        given: list[Any] = super()._deserialize(value, attr, data, **kwargs)
        names = list(dict.fromkeys(name for one in given for name in one.split(",")))
        if len(names) > MAX_NAMES or not all(1 <= len(name) <= 200 for name in names):
            raise ValidationError(f"At most {MAX_NAMES} names of 1 to 200 characters.")
        return names


class MetricQuery(Query):
    name = Names(
        load_default=(),
        metadata={"description": "dotted paths, repeated or separated by commas; none: a summary"},
    )
    from_ = Time(data_key="from", validate=_bounds, metadata={"description": "default: an hour before `to`"})
    to = Time(validate=_bounds, metadata={"description": "default: now"})
    step = fields.Integer(
        validate=validate.Range(1, MAX_STEP),
        metadata={"description": "seconds between points; default: at most some 300 points", "example": 60},
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


class Points(fields.List):
    """Points that are JSON already; there may be hundreds of thousands."""

    def _serialize(self, value: Any, attr: str | None, obj: Any, **kwargs: Any) -> Any:
        return value


class SeriesRead(Schema):
    name = fields.String(metadata={"example": "cpu.usage_percent"})
    labels = fields.Dict(
        keys=fields.String(),
        values=fields.String(),
        metadata={"example": {"device": "3f2b8c1e-5d0a-4b7e-9c55-0e6f3a1d2b4c"}},
    )
    points = Points(
        fields.List(fields.Raw()),
        metadata={"description": "[time, value] each, null in a gap", "example": [["2026-11-22T21:51:00Z", 12.5]]},
    )


class MetricsRead(Schema):
    """``series`` for a query with a name; else the organization's summary."""

    series = fields.List(fields.Nested(SeriesRead))
    devices = fields.Dict(
        keys=fields.String(),
        values=fields.Integer(),
        metadata={"description": "by status", "example": {"online": 9, "offline": 1}},
    )
    devices_drifting = fields.Integer(
        metadata={"description": "where a flow differs from what was deployed", "example": 1}
    )
    flows = fields.Integer(metadata={"example": 3})
    deployments = fields.Integer(metadata={"example": 12})
    commands = fields.Integer(metadata={"example": 240})
    points_stored = fields.Integer(metadata={"example": 86400})
    names = fields.List(fields.String(), metadata={"example": ["cpu.usage_percent", "memory.percent"]})


class DeviceMetricsRead(Schema):
    series = fields.List(fields.Nested(SeriesRead))
