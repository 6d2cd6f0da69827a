"""Bodies of deployments."""

from datetime import UTC, datetime
from functools import cache
from typing import Any
from zoneinfo import available_timezones

from marshmallow import ValidationError, fields, validate, validates_schema

from app.api_schema import Schema, Text, Time
from app.auth.roles import Role
from app.deployments.rollout import EXECUTION_STATES, STATUSES, Strategy
from app.deployments.strategy import DAYS
from app.pagination import PageQuery

_DEFAULTS = Strategy()
MAX_DEVICES = 10_000


class TargetCreate(Schema):
    """Which devices: exactly one of device_ids, tags, all. Disabled devices are never among them."""

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

    dynamic = fields.Boolean(
        truthy={True},
        falsy={False},
        metadata={
            "description": "devices that come to match while it runs join (not with device_ids); it goes on until "
            "it is canceled",
            "example": False,
        },
    )

    @validates_schema
    def _one_kind(self, data: dict[str, Any], **_kwargs: Any) -> None:
        if len(data.keys() & {"device_ids", "tags", "all"}) != 1:
            raise ValidationError("Give exactly one of device_ids, tags, all.")
        if data.get("dynamic") and "device_ids" in data:
            raise ValidationError("Only tags or all can come to match further devices.", "dynamic")


def _count(name: str, low: int, high: int, description: str) -> fields.Integer:
    default = getattr(_DEFAULTS, name)
    return fields.Integer(
        strict=True,
        load_default=default,
        validate=validate.Range(low, high),
        metadata={"description": description, "example": default},
    )


class RateCreate(Schema):
    """A rate that grows as the rollout proves itself (AWS IoT Jobs); ``max_per_minute`` caps it."""

    base_per_minute = fields.Integer(
        required=True,
        strict=True,
        validate=validate.Range(1, 1000),
        metadata={"description": "devices a minute at the beginning", "example": 10},
    )
    increment_factor = fields.Float(
        load_default=2.0,
        validate=validate.Range(1.1, 5),
        metadata={"description": "the rate is multiplied by this each time", "example": 2.0},
    )
    increase_after_notified = fields.Integer(
        strict=True,
        validate=validate.Range(1, 1_000_000),
        metadata={"description": "each time so many further devices were sent to; or else:", "example": 100},
    )
    increase_after_succeeded = fields.Integer(
        strict=True,
        validate=validate.Range(1, 1_000_000),
        metadata={"description": "each time so many further devices have succeeded", "example": 100},
    )

    @validates_schema
    def _one_criterion(self, data: dict[str, Any], **_kwargs: Any) -> None:
        if len(data.keys() & {"increase_after_notified", "increase_after_succeeded"}) != 1:
            raise ValidationError("Give exactly one of increase_after_notified, increase_after_succeeded.")


def _known_zone(name: str) -> None:
    if name not in _zones():
        raise ValidationError("There is no such time zone; give one like Europe/Paris.")


@cache
def _zones() -> frozenset[str]:
    return frozenset(available_timezones())


def _time_of_day(name: str, description: str, example: str) -> fields.String:
    return fields.String(
        data_key=name,
        attribute=name,
        required=True,
        validate=validate.Regexp(r"^([01][0-9]|2[0-3]):[0-5][0-9]\Z", error="Must be a time of day like 22:00."),
        metadata={"description": description, "example": example},
    )


class WindowCreate(Schema):
    """A time of the week in which devices may be changed."""

    days = fields.List(
        fields.String(validate=validate.OneOf(DAYS)),
        load_default=lambda: list(DAYS),
        validate=validate.Length(1, 7),
        metadata={"description": "on which it begins; every day by default", "example": ["sat", "sun"]},
    )
    from_ = _time_of_day("from", "when it begins", "22:00")
    to = _time_of_day("to", "when it ends: on the next day, if that is not after it begins", "04:00")
    time_zone = fields.String(
        load_default="UTC", validate=_known_zone, metadata={"description": "IANA name", "example": "Europe/Paris"}
    )


class HealthCreate(Schema):
    """What installed flows must show before a stage counts as succeeded, by `flows` of the reported shadow."""

    max_errors = fields.Integer(
        required=True,
        strict=True,
        validate=validate.Range(0, 2**31 - 1),
        metadata={"description": "of the flow since it was installed; more: the device has failed", "example": 0},
    )
    for_seconds = fields.Integer(
        required=True,
        strict=True,
        validate=validate.Range(1, 3600),
        metadata={"description": "so long it must run, from its installation on", "example": 120},
    )


def _rising_to_100(stages: list[int]) -> None:
    if stages != sorted(set(stages)) or stages[-1:] != [100]:
        raise ValidationError("Must rise from stage to stage, up to 100.")


class StrategyCreate(Schema):
    """How the rollout goes on; what is left out has its default."""

    stages = fields.List(
        fields.Integer(strict=True, validate=validate.Range(1, 100)),
        load_default=lambda: [100],
        validate=[validate.Length(1, 20), _rising_to_100],
        metadata={"description": "percent of all devices, cumulative", "example": [5, 25, 100]},
    )
    success_threshold = _count(
        "success_threshold", 1, 100, "percent of a stage that must succeed before the next one begins"
    )
    soak_seconds = _count("soak_seconds", 0, 2_592_000, "pause between a stage's success and the next stage")
    max_in_flight = _count("max_in_flight", 1, 10_000, "devices that install at the same time")
    max_per_minute = fields.Integer(
        strict=True,
        load_default=None,
        allow_none=True,
        validate=validate.Range(1, 1_000_000),
        metadata={"description": "devices sent to within any minute; null: no limit", "example": 100},
    )
    exponential_rate = fields.Nested(
        RateCreate,
        load_default=None,
        allow_none=True,
        metadata={
            "description": "a rate that grows; null: none",
            "example": {"base_per_minute": 10, "increment_factor": 2.0, "increase_after_succeeded": 100},
        },
    )
    timeout_seconds = _count("timeout_seconds", 5, 86_400, "a device that has not answered by then has failed its try")
    retries = _count("retries", 0, 10, "further tries after the first; never after a permanent error")
    retry_backoff_seconds = _count("retry_backoff_seconds", 1, 3600, "pause before the first retry; doubles each time")
    failure_threshold = _count("failure_threshold", 0, 100, "percent of the finished devices that may fail")
    min_executed = _count("min_executed", 1, 1_000_000, "the threshold counts once so many devices are finished")
    on_failure = fields.String(
        load_default="pause",
        validate=validate.OneOf(["pause", "abort", "rollback"]),
        metadata={
            "description": "when too many have failed, or a stage cannot succeed any more: wait for somebody, give up, "
            "or return every device to its previous version",
            "example": "pause",
        },
    )
    maintenance_windows = fields.List(
        fields.Nested(WindowCreate),
        load_default=list,
        validate=validate.Length(max=20),
        metadata={
            "description": "devices are changed only within these; none: at any time",
            "example": [{"days": ["sat", "sun"], "from": "22:00", "to": "04:00", "time_zone": "Europe/Paris"}],
        },
    )

    health = fields.Nested(
        HealthCreate,
        load_default=None,
        allow_none=True,
        metadata={
            "description": "watch what was installed: a flow that does not run, or has too many errors, is a failure; "
            "devices that report nothing count as healthy; null: do not watch",
            "example": {"max_errors": 0, "for_seconds": 120},
        },
    )


class ApprovalCreate(Schema):
    """Whether somebody else must approve it first."""

    required = fields.Boolean(
        required=True,
        truthy={True},
        falsy=set(),
        validate=validate.Equal(True),
        metadata={"enum": [True], "example": True},
    )
    role = fields.String(
        load_default=str(Role.OPERATOR),
        validate=validate.OneOf([str(role) for role in (Role.OPERATOR, Role.ADMIN, Role.OWNER)]),
        metadata={"description": "at least this one, and not its creator unless an owner", "example": "admin"},
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
    start = fields.Boolean(
        load_default=False, truthy={True}, falsy={False}, metadata={"description": "start at once", "example": False}
    )
    schedule_at = Time(
        validate=validate.Range(datetime(2000, 1, 1, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC)),
        metadata={"description": "start then", "example": "2026-11-28T22:00:00Z"},
    )
    approval = fields.Nested(ApprovalCreate, metadata={"example": {"required": True, "role": "admin"}})

    @validates_schema
    def _one_beginning(self, data: dict[str, Any], **_kwargs: Any) -> None:
        if data.get("start") and "schedule_at" in data:
            raise ValidationError("Give either start or schedule_at.", "schedule_at")


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
    status = fields.String(
        validate=validate.OneOf(["pending", "running", "succeeded", "failed", "skipped"]),
        metadata={"example": "running"},
    )
    acknowledged_failures = fields.Integer(metadata={"example": 0})
    started_at = Time(allow_none=True)
    finished_at = Time(allow_none=True)


class TargetRead(Schema):
    device_ids = fields.List(fields.UUID())
    tags = fields.List(fields.String(), metadata={"example": ["pump"]})
    all = fields.Boolean()
    dynamic = fields.Boolean(metadata={"example": False})


class ApprovalRead(Schema):
    required = fields.Boolean()
    role = fields.String(metadata={"example": "admin"})
    approved_by = fields.String(allow_none=True, metadata={"example": "user:bo@example.com"})
    approved_at = Time(allow_none=True)


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
    approval = fields.Nested(ApprovalRead, allow_none=True, metadata={"description": "null: it needs none"})
    force = fields.Boolean(
        metadata={"description": "devices install it again although they have it: a restoration", "example": False}
    )
    created_by = fields.String(allow_none=True, metadata={"example": "user:ada@example.com"})
    created_at = Time()
    updated_at = Time()
    schedule_at = Time(allow_none=True, metadata={"description": "when it is to start", "example": None})
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
    health = fields.String(
        allow_none=True,
        validate=validate.OneOf(["healthy", "unhealthy", "unknown"]),
        metadata={"description": "unknown: it reports none; null: not judged, or not yet", "example": "healthy"},
    )
    version = fields.Integer(
        allow_none=True, metadata={"description": "what it gets; null: the flow is removed", "example": 3}
    )
    previous_version = fields.Integer(allow_none=True, metadata={"description": "what it had", "example": 2})
    queued_at = Time()
    started_at = Time(allow_none=True)
    finished_at = Time(allow_none=True)
