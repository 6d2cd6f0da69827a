"""Bodies of alert rules, their alerts and their history."""

from typing import Any

from marshmallow import ValidationError, fields, validate, validates_schema

from app.alerts import rules
from app.api_schema import JsonObject, Name, Query, Schema, Text, Time
from app.logs.models import LEVELS
from app.pagination import PageQuery, page_of

_DEVICE = "3f2b8c1e-5d0a-4b7e-9c55-0e6f3a1d2b4c"
_WEBHOOK = {"id": "5b1f3c2a", "type": "webhook", "url": "https://example.com/hook", "secret": "********"}
_MAX = 1e15  # beyond, neighbouring whole numbers are one float
OPEN = ("pending", "firing", "resolved")


class AlertTarget(Schema):
    """Which devices a rule watches; exactly one of the three. Disabled devices never raise an alert."""

    device_ids = fields.List(
        fields.UUID(), validate=validate.Length(1, 10_000), metadata={"description": "these", "example": [_DEVICE]}
    )
    tags = fields.List(
        Text(validate=validate.Length(1, 100)),
        validate=validate.Length(1, 50),
        metadata={"description": "every device that has one of these tags", "example": ["pump"]},
    )
    all = fields.Boolean(
        truthy={True}, falsy=set(), validate=validate.Equal(True), metadata={"example": True, "enum": [True]}
    )

    @validates_schema
    def _one(self, data: dict[str, Any], **_kwargs: Any) -> None:
        if len(data) != 1:
            raise ValidationError("Exactly one of device_ids, tags, all.")


class AlertChannel(Schema):
    """Where it is told. With the ``id`` of a stored channel, what is left out or masked stays as it is stored."""

    id = Text(validate=validate.Length(1, 40), metadata={"description": "of a channel that the rule has"})
    type = fields.String(required=True, validate=validate.OneOf(["webhook", "email"]), metadata={"example": "email"})
    url = Text(
        validate=validate.Length(1, 2_000),
        metadata={"description": "of a webhook: http or https", "example": "https://example.com/hook"},
    )
    format = fields.String(
        validate=validate.OneOf(["edgeflow", "slack"]), metadata={"description": "of a webhook", "example": "edgeflow"}
    )
    secret = Text(
        validate=validate.Length(1, 200),
        metadata={"description": "of a webhook: what it is signed with; generated if left out, and shown once"},
    )
    to = fields.List(fields.Email(), validate=validate.Length(1, 20), metadata={"description": "of an email"})

    @validates_schema
    def _address(self, data: dict[str, Any], **_kwargs: Any) -> None:
        needed = "url" if data.get("type") == "webhook" else "to"
        if needed not in data:
            raise ValidationError("Missing data for required field.", needed)


class LogCriteria(Schema):
    """Which log entries match: q, level or both."""

    q = Text(validate=validate.Length(1, 200), metadata={"description": "full text", "example": "valve stuck"})
    level = fields.String(
        validate=validate.OneOf(LEVELS), metadata={"description": "this level and graver ones", "example": "error"}
    )


def _number(description: str, example: float) -> fields.Float:
    return fields.Float(
        allow_none=True,
        validate=validate.Range(-_MAX, _MAX),
        metadata={"description": description, "example": example},
    )


class AlertUpdate(Schema):
    """What is left out stays; a field that the rule's type does not have is refused."""

    name = Name(metadata={"example": "Pump too hot"})
    type = fields.String(validate=validate.OneOf(rules.TYPES), metadata={"example": "metric"})
    metric = Text(allow_none=True, validate=validate.Length(1, 200), metadata={"example": "temperature"})
    condition = fields.String(
        allow_none=True, validate=validate.OneOf(list(rules.CONDITIONS)), metadata={"example": "gt"}
    )
    threshold = _number("of log_match: how many entries within for_seconds, 1 by default", 80.0)
    clear_threshold = _number("it is over once the condition fails for this one too (hysteresis)", 75.0)
    for_seconds = fields.Integer(
        strict=True,
        validate=validate.Range(0, 86_400),
        metadata={"description": "how long before it fires; of log_match: its window, 300 by default", "example": 60},
    )
    no_data = fields.String(
        validate=validate.OneOf(rules.NO_DATA),
        metadata={"description": "what silence means: alerts stay as they are, end, or begin", "example": "keep"},
    )
    query = fields.Nested(
        LogCriteria,
        allow_none=True,
        metadata={"description": "of log_match: which entries count", "example": None},
    )
    severity = fields.String(validate=validate.OneOf(rules.SEVERITIES), metadata={"example": "warning"})
    target = fields.Nested(AlertTarget, metadata={"example": {"tags": ["pump"]}})
    channels = fields.List(
        fields.Nested(AlertChannel),
        validate=validate.Length(max=10),
        metadata={"example": [{"type": "email", "to": ["ada@example.com"]}]},
    )
    repeat_seconds = fields.Integer(
        strict=True,
        validate=validate.Range(0, 2_592_000),
        metadata={"description": "reminders while it fires unacknowledged; 0: none", "example": 14_400},
    )
    enabled = fields.Boolean(metadata={"example": True})
    silenced_until = Time(allow_none=True, metadata={"description": "nobody is told until then; null: at once"})


class AlertCreate(AlertUpdate):
    name = Name(required=True, metadata={"example": "Pump too hot"})
    type = fields.String(required=True, validate=validate.OneOf(rules.TYPES), metadata={"example": "metric"})


class AlertRead(Schema):
    id = fields.UUID()
    name = fields.String(metadata={"example": "Pump too hot"})
    type = fields.String(metadata={"example": "metric"})
    metric = fields.String(allow_none=True, metadata={"example": "temperature"})
    condition = fields.String(allow_none=True, metadata={"example": "gt"})
    threshold = fields.Float(allow_none=True, metadata={"example": 80.0})
    clear_threshold = fields.Float(allow_none=True, metadata={"example": 75.0})
    for_seconds = fields.Integer(metadata={"example": 60})
    no_data = fields.String(metadata={"example": "keep"})
    query = JsonObject(allow_none=True, metadata={"description": "of log_match", "example": {"q": "valve stuck"}})
    severity = fields.String(metadata={"example": "warning"})
    target = JsonObject(metadata={"example": {"tags": ["pump"]}})
    channels = fields.List(
        JsonObject(),
        metadata={"description": "a new secret is shown once, in the answer that made it", "example": [_WEBHOOK]},
    )
    repeat_seconds = fields.Integer(metadata={"example": 14_400})
    enabled = fields.Boolean(metadata={"example": True})
    silenced_until = Time(allow_none=True)
    state = fields.String(validate=validate.OneOf(rules.STATES), metadata={"example": "firing"})
    alerts = fields.Dict(
        keys=fields.String(),
        values=fields.Integer(),
        metadata={
            "description": "the rule's alerts by state; acknowledged ones fire too",
            "example": {"pending": 0, "firing": 1, "acknowledged": 0, "resolved": 4},
        },
    )
    created_by = fields.String(allow_none=True, metadata={"example": "user:ada@example.com"})
    created_at = Time()
    updated_at = Time()
    evaluated_at = Time(allow_none=True, metadata={"description": "when it was looked at last"})


class AlertQuery(PageQuery):
    state = fields.String(validate=validate.OneOf(rules.STATES), metadata={"example": "firing"})
    type = fields.String(validate=validate.OneOf(rules.TYPES), metadata={"example": "metric"})
    severity = fields.String(validate=validate.OneOf(rules.SEVERITIES), metadata={"example": "critical"})
    enabled = fields.Boolean(metadata={"example": True})


class Acknowledgement(Schema):
    comment = Text(validate=validate.Length(max=1000), metadata={"example": "on my way"})


class InstanceQuery(PageQuery):
    state = fields.String(validate=validate.OneOf(OPEN), metadata={"example": "firing"})
    device_id = fields.UUID(metadata={"description": "only this device's"})


class InstanceRead(Schema):
    """One alert: the rule and what it is about."""

    id = fields.UUID()
    subject = fields.String(metadata={"description": "id of the device or deployment", "example": _DEVICE})
    device_id = fields.UUID(allow_none=True)
    device_name = fields.String(allow_none=True, metadata={"example": "pump-7"})
    deployment_id = fields.UUID(allow_none=True)
    state = fields.String(validate=validate.OneOf(OPEN), metadata={"example": "firing"})
    value = fields.Float(allow_none=True, metadata={"description": "when it fired", "example": 81.5})
    since = Time(metadata={"description": "since when the condition holds"})
    fired_at = Time(allow_none=True)
    resolved_at = Time(allow_none=True)
    acknowledged_at = Time(allow_none=True)
    acknowledged_by = fields.String(allow_none=True, metadata={"example": "user:ada@example.com"})
    comment = fields.String(allow_none=True, metadata={"example": "on my way"})


class EventQuery(PageQuery):
    kind = Text(validate=validate.Length(1, 40), metadata={"example": "firing"})


class AlertEventRead(Schema):
    id = fields.Integer(metadata={"example": 4711})
    alert_id = fields.UUID(allow_none=True)
    device_id = fields.UUID(allow_none=True)
    device_name = fields.String(allow_none=True, metadata={"example": "pump-7"})
    kind = fields.String(metadata={"description": "created, changed, firing, resolved, acknowledged …"})
    actor = fields.String(allow_none=True, metadata={"example": "user:ada@example.com"})
    data = JsonObject(metadata={"example": {"value": 81.5}})
    created_at = Time()


class PreviewQuery(Query):
    days = fields.Integer(
        load_default=7, validate=validate.Range(1, 7), metadata={"description": "how far back", "example": 7}
    )


class IntervalRead(Schema):
    """``resolved_at`` null: it would still fire."""

    since = Time()
    firing_at = Time()
    resolved_at = Time(allow_none=True)


class PreviewSubjectRead(Schema):
    subject = fields.String(metadata={"example": _DEVICE})
    device_id = fields.UUID(allow_none=True)
    device_name = fields.String(allow_none=True, metadata={"example": "pump-7"})
    deployment_id = fields.UUID(allow_none=True)
    fired = fields.Integer(metadata={"description": "how often", "example": 2})
    firing_seconds = fields.Integer(metadata={"example": 1800})
    intervals = fields.List(fields.Nested(IntervalRead), metadata={"description": "the newest, oldest first"})


class PreviewRead(Schema):
    """When a rule would have fired; ``subjects`` are those that fired most often."""

    from_ = Time(data_key="from")
    to = Time()
    watched = fields.Integer(metadata={"description": "subjects that were looked at", "example": 200})
    matching = fields.Integer(metadata={"description": "subjects that the target names", "example": 200})
    fired_subjects = fields.Integer(metadata={"example": 1})
    fired = fields.Integer(metadata={"description": "how often in all", "example": 2})
    subjects = fields.List(fields.Nested(PreviewSubjectRead))


AlertPage = page_of(AlertRead)
InstancePage = page_of(InstanceRead)
AlertEventPage = page_of(AlertEventRead)
