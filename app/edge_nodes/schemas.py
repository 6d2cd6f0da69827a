"""Bodies of the commands to a device, and what devices answer."""

from typing import Any

from marshmallow import fields, pre_load, validate

from app.api_schema import JsonObject, Query, Schema, Text

FLOW_EXAMPLE = {
    "id": "temperature-watch",
    "name": "Temperature watch",
    "nodes": [{"id": "every-5s", "type": "inject", "config": {"interval": 5}}, {"id": "show", "type": "debug"}],
    "connections": [{"source": "every-5s", "target": "show"}],
}


class CommandQuery(Query):
    timeout = fields.Float(
        load_default=30.0,
        validate=validate.Range(1, 120),
        metadata={"description": "seconds to wait for the device", "example": 30},
    )


class EdgeFlowWrite(Schema):
    """``{"flow": {…}}``; the flow alone is taken too."""

    flow = JsonObject(
        required=True, metadata={"description": "as the device's runtime wants it", "example": FLOW_EXAMPLE}
    )

    @pre_load
    def wrap(self, data: Any, **_kwargs: Any) -> Any:
        return {"flow": data} if isinstance(data, dict) and data and "flow" not in data else data


class NodeSettings(Schema):
    """Connection settings of a device; only those given change."""

    heartbeat_interval = fields.Integer(
        validate=validate.Range(5, 3600), metadata={"description": "seconds", "example": 30}
    )
    server_url = fields.Url(
        schemes={"http", "https"}, require_tld=False, metadata={"example": "https://cloud.example.com"}
    )
    local_url = fields.Url(schemes={"http", "https"}, require_tld=False, metadata={"example": "http://127.0.0.1:1880"})
    log_level = Text(validate=validate.OneOf(["debug", "info", "warning", "error"]), metadata={"example": "info"})
    telemetry_interval = fields.Integer(
        validate=validate.Range(0, 3600),
        metadata={"description": "seconds between batches of metrics and logs; 0: none", "example": 10},
    )
    report_interval = fields.Integer(
        validate=validate.Range(1, 3600),
        metadata={"description": "seconds between looks at what runs, for the reported shadow", "example": 15},
    )
    reconnect_max_seconds = fields.Integer(validate=validate.Range(5, 3600), metadata={"example": 300})


class NodeConfigure(Schema):
    settings = fields.Nested(NodeSettings, required=True, validate=validate.Length(min=1, error="Name at least one."))


def answer_schema(name: str, example: dict[str, Any]) -> type[Schema]:
    """The documentation of what a device answers; the data itself is the device's own and goes through unchanged."""
    documented = {key: fields.Raw(allow_none=True, metadata={"example": value}) for key, value in example.items()}
    return type(name, (Schema,), documented)


Health = answer_schema("EdgeHealth", {"status": "healthy", "version": "1.0.0", "uptime": 86400})
NodeTypes = answer_schema("EdgeNodeTypes", {"node_types": [{"type": "inject"}, {"type": "debug"}]})
EdgeFlowList = answer_schema("EdgeFlows", {"flows": [{"id": "temperature-watch", "status": "running"}]})
EdgeFlowRead = answer_schema("EdgeFlowRead", {"flow": FLOW_EXAMPLE})
EdgeFlowState = answer_schema("EdgeFlowState", {"flow_id": "temperature-watch", "status": "started"})
Configured = answer_schema("EdgeConfigured", {"settings": {"heartbeat_interval": 30}})
EditorUrl = answer_schema(
    "EditorUrl", {"url": "https://…", "state": "ready", "expires_at": "2026-11-22T21:51:05.123456Z"}
)
