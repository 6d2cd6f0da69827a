"""Bodies of deployments."""

from typing import Any

from marshmallow import ValidationError, fields, validate, validates_schema

from app.api_schema import Schema, Text, Time
from app.deployments.rollout import EXECUTION_STATES, STATUSES, Strategy
from app.pagination import PageQuery

_DEFAULTS = Strategy()
MAX_DEVICES = 10_000


class TargetCreate(Schema):
    """Which devices: exactly one of the three. Disabled devices are never among them."""

    device_ids = fields.List(
        fields.UUID(), validate=validate.Length(1, MAX_DEVICES), metadata={"description": "these devices"}
    )
    tags = fields.List(
        Text(validate=validate.Length(1, 100)),
        validate=validate.Length(1, 50),
        metadata={"description": "every device that has one of these tags", "example": ["pump"]},
    )
    all = fields.Boolean(
        truthy={True},
        falsy=set(),
        validate=validate.Equal(True),
        metadata={"description": "every device", "enum": [True]},
    )

    @validates_schema
    def _one_kind(self, data: dict[str, Any], **_kwargs: Any) -> None:
        if len(data) != 1:
            raise ValidationError("Give exactly one of device_ids, tags, all.")


def _count(name: str, low: int, high: int, description: str) -> fields.Integer:
    default = getattr(_DEFAULTS, name)
    return fields.Integer(
        strict=True,
        load_default=default,
        validate=validate.Range(low, high),
        metadata={"description": description, "example": default},
    )


class StrategyCreate(Schema):
    """How the rollout goes on; what is left out has its default."""

    max_in_flight = _count("max_in_flight", 1, 10_000, "devices that install at the same time")
    timeout_seconds = _count("timeout_seconds", 5, 86_400, "a device that has not answered by then has failed its try")
    retries = _count("retries", 0, 10, "further tries after the first; never after a permanent error")
    retry_backoff_seconds = _count("retry_backoff_seconds", 1, 3600, "pause before the first retry; doubles each time")
    failure_threshold = _count("failure_threshold", 0, 100, "percent of the finished devices that may fail")
    min_executed = _count("min_executed", 1, 1_000_000, "the threshold counts once so many devices are finished")
    on_failure = fields.String(
        load_default="pause",
        validate=validate.OneOf(["pause"]),
        metadata={"description": "what happens when the threshold is exceeded", "example": "pause"},
    )


class DeploymentCreate(Schema):
    flow_id = fields.UUID(required=True)
    version = fields.Integer(
        strict=True,
        validate=validate.Range(1, 2**31 - 1),
        metadata={"description": "a published version; the newest by default", "example": 3},
    )
    name = Text(validate=validate.Length(1, 200), metadata={"example": "Temperature watch v3"})
    target = fields.Nested(TargetCreate, required=True, metadata={"example": {"tags": ["pump"]}})
    strategy = fields.Nested(StrategyCreate, load_default=lambda: StrategyCreate().load({}))
    start = fields.Boolean(load_default=False, truthy={True}, falsy={False}, metadata={"description": "start at once"})


class DeploymentStart(Schema):
    acknowledge_failures = fields.Boolean(
        load_default=False,
        truthy={True},
        falsy={False},
        metadata={"description": "go on although too many devices have failed; those count no more", "example": True},
    )


class DeploymentQuery(PageQuery):
    status = fields.String(validate=validate.OneOf(STATUSES), metadata={"example": "in_progress"})
    flow_id = fields.UUID()


class ExecutionQuery(PageQuery):
    state = fields.String(validate=validate.OneOf(EXECUTION_STATES), metadata={"example": "failed"})
    kind = fields.String(validate=validate.OneOf(["install", "rollback"]), metadata={"example": "install"})
    device_id = fields.UUID()


class ProgressRead(Schema):
    """How many executions are in each state."""

    queued = fields.Integer(metadata={"example": 2})
    in_progress = fields.Integer(metadata={"example": 1})
    succeeded = fields.Integer(metadata={"example": 6})
    failed = fields.Integer(metadata={"example": 1})
    timed_out = fields.Integer(metadata={"example": 0})
    rejected = fields.Integer(metadata={"example": 0})
    canceled = fields.Integer(metadata={"example": 0})
    removed = fields.Integer(metadata={"description": "deleted devices", "example": 0})
    superseded = fields.Integer(metadata={"description": "overtaken by a rollback or a newer one", "example": 0})
    already_installed = fields.Integer(metadata={"description": "counts as success", "example": 0})
    total = fields.Integer(metadata={"example": 10})


class StageRead(Schema):
    number = fields.Integer(metadata={"example": 0})
    percent = fields.Integer(metadata={"description": "of all devices, cumulative", "example": 100})
    size = fields.Integer(metadata={"description": "devices", "example": 10})
    status = fields.String(metadata={"example": "running"})
    started_at = Time(allow_none=True)
    finished_at = Time(allow_none=True)


class TargetRead(Schema):
    device_ids = fields.List(fields.UUID())
    tags = fields.List(fields.String(), metadata={"example": ["pump"]})
    all = fields.Boolean()


class DeploymentSummaryRead(Schema):
    """A deployment in a list."""

    id = fields.UUID()
    name = fields.String(metadata={"example": "Temperature watch v3"})
    flow_id = fields.UUID()
    version = fields.Integer(metadata={"example": 3})
    status = fields.String(validate=validate.OneOf(STATUSES), metadata={"example": "in_progress"})
    reason = fields.String(metadata={"description": "in one sentence", "example": "waiting: 3 of 10 devices offline"})
    allowed_actions = fields.List(fields.String(), metadata={"example": ["pause", "rollback", "cancel"]})
    target = fields.Nested(TargetRead, metadata={"example": {"tags": ["pump"]}})
    strategy = fields.Nested(StrategyCreate)
    progress = fields.Nested(ProgressRead)
    acknowledged_failures = fields.Integer(metadata={"example": 0})
    created_by = fields.String(allow_none=True, metadata={"example": "ada@example.com"})
    created_at = Time()
    updated_at = Time()
    started_at = Time(allow_none=True)
    finished_at = Time(allow_none=True)


class DeploymentRead(DeploymentSummaryRead):
    """A deployment."""

    rollback_progress = fields.Nested(ProgressRead, allow_none=True)
    stages = fields.List(fields.Nested(StageRead))


class ExecutionRead(Schema):
    """One device's part in a deployment."""

    id = fields.UUID()
    device_id = fields.UUID(allow_none=True, metadata={"description": "null: the device was deleted"})
    device_name = fields.String(metadata={"example": "pump-7"})
    kind = fields.String(metadata={"example": "install"})
    stage = fields.Integer(metadata={"example": 0})
    state = fields.String(metadata={"example": "succeeded"})
    attempt = fields.Integer(metadata={"example": 1})
    error = fields.String(allow_none=True, metadata={"description": "of the last try", "example": None})
    error_code = fields.String(allow_none=True, metadata={"example": None})
    version = fields.Integer(
        allow_none=True, metadata={"description": "what it gets; null: the flow is removed", "example": 3}
    )
    previous_version = fields.Integer(allow_none=True, metadata={"description": "what it had", "example": 2})
    queued_at = Time()
    started_at = Time(allow_none=True)
    finished_at = Time(allow_none=True)
