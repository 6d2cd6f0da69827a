"""Bodies of the long lists: executions, a device's ledger, and what a deployment would do."""

from marshmallow import fields, validate

from app.api_schema import Query, Schema, Text, Time
from app.deployments.schemas import ExecutionQuery, ExecutionRead
from app.pagination import MAX_OFFSET, PageQuery, page_of

_NAME = "pump-7"
_FLOW_NAME = "Temperature watch"


class ExecutionListQuery(ExecutionQuery):
    q = Text(validate=validate.Length(1, 200), metadata={"description": "text in the device's name", "example": "pump"})
    cursor = fields.String(
        validate=validate.Length(1, 2000),
        metadata={"description": "`next_cursor` of the page before; instead of offset, in the order by name"},
    )


class ExecutionCursorPage(page_of(ExecutionRead)):  # type: ignore[misc]
    """Executions of a deployment."""

    next_cursor = fields.String(
        allow_none=True,
        metadata={"description": "`cursor` of the next page; null: there is none, or another order", "example": None},
    )


class LedgerQuery(PageQuery):
    flow_id = fields.UUID()
    current = fields.Boolean(metadata={"description": "true: only what runs now; false: only what does not"})
    sort = fields.String(
        metadata={"description": "installed_at or id; a leading - reverses", "example": "-installed_at"}
    )


class LedgerRead(Schema):
    """What a device ran, from when to when, and which deployment put it there."""

    id = fields.UUID()
    flow_id = fields.UUID()
    flow_name = fields.String(metadata={"example": _FLOW_NAME})
    version = fields.Integer(allow_none=True, metadata={"description": "null: the flow was removed", "example": 3})
    content_hash = fields.String(
        allow_none=True, metadata={"description": "of the version", "example": "9f86d081884c7d65"}
    )
    deployment_id = fields.UUID(allow_none=True)
    deployment_name = fields.String(allow_none=True, metadata={"example": f"{_FLOW_NAME} v3"})
    current = fields.Boolean(metadata={"description": "whether it runs now", "example": True})
    installed_at = Time()
    replaced_at = Time(allow_none=True, metadata={"description": "null: it is the latest of its flow", "example": None})


class DryRunQuery(Query):
    dry_run = fields.Boolean(
        load_default=False, metadata={"description": "only answer what would happen; store nothing", "example": False}
    )
    limit = fields.Integer(
        load_default=50, validate=validate.Range(1, 500), metadata={"description": "of a dry run: devices listed"}
    )
    offset = fields.Integer(
        load_default=0,
        validate=validate.Range(0, MAX_OFFSET),
        metadata={"description": "of a dry run: devices skipped"},
    )


class DryRunTotals(Schema):
    """Over all targets."""

    targets = fields.Integer(metadata={"example": 10})
    offline = fields.Integer(metadata={"description": "they would go when they connect", "example": 3})
    already_installed = fields.Integer(metadata={"description": "run this version now", "example": 1})
    version_changes = fields.Integer(metadata={"description": "run another version now", "example": 7})
    first_installations = fields.Integer(metadata={"description": "do not run the flow now", "example": 2})
    busy = fields.Integer(metadata={"description": "have to do with other deployments", "example": 0})
    missing_node_types = fields.Integer(metadata={"description": "lack a node type of the flow", "example": 0})
    node_types_unknown = fields.Integer(metadata={"description": "report no list of node types", "example": 10})
    health_unknown = fields.Integer(metadata={"description": "report no health of their flows", "example": 10})
    left_out_disabled = fields.Integer(metadata={"description": "meant, but disabled; no targets", "example": 0})


class QuotaEffect(Schema):
    """What creating the deployment would count for."""

    quota = fields.String(metadata={"example": "deployments_per_month"})
    limit = fields.Integer(allow_none=True, metadata={"description": "null: unlimited", "example": 1000})
    used = fields.Integer(metadata={"description": "this month (UTC)", "example": 12})
    would_use = fields.Integer(metadata={"example": 13})
    refused = fields.Boolean(metadata={"description": "creating it would be answered 402", "example": False})


class DryRunDevice(Schema):
    device_id = fields.UUID()
    device_name = fields.String(metadata={"example": _NAME})
    online = fields.Boolean(metadata={"example": True})
    from_version = fields.Integer(
        allow_none=True, metadata={"description": "null: the flow is not there", "example": 2}
    )
    to_version = fields.Integer(metadata={"example": 3})
    already_installed = fields.Boolean(metadata={"example": False})
    busy_with = fields.UUID(allow_none=True, metadata={"description": "another deployment", "example": None})
    missing_node_types = fields.List(
        fields.String(),
        allow_none=True,
        metadata={"description": "null: not known; by `node_types` of the reported shadow", "example": None},
    )


class DryRunRead(Schema):
    """What a deployment would do if it started now, and a page of its targets by name."""

    dry_run = fields.Boolean(metadata={"example": True})
    flow_id = fields.UUID()
    version = fields.Integer(metadata={"example": 3})
    totals = fields.Nested(DryRunTotals)
    quota = fields.Nested(QuotaEffect)
    items = fields.List(fields.Nested(DryRunDevice))
    total = fields.Integer(metadata={"example": 10})
    limit = fields.Integer(metadata={"example": 50})
    offset = fields.Integer(metadata={"example": 0})
