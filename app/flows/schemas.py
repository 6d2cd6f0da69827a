"""Bodies of flows."""

from typing import Any

from marshmallow import ValidationError, fields, validate

from app.api_schema import JsonObject, Name, Schema, Text, Time
from app.flows import definition
from app.pagination import PageQuery

EXAMPLE = {
    "nodes": [
        {"id": "sensor", "type": "inject", "config": {"interval": 5}, "wires": [["show"]]},
        {"id": "show", "type": "debug", "name": "show it"},
    ],
    "connections": [{"source": "sensor", "target": "show"}],
}
_NODE = {
    "type": "object",
    "required": ["id", "type"],
    "properties": {
        "id": {"type": "string", "minLength": 1, "maxLength": 200},
        "type": {"type": "string", "minLength": 1, "maxLength": 200},
        "name": {"type": "string"},
        "x": {"type": "number"},
        "y": {"type": "number"},
        "config": {"type": "object"},
        "wires": {"type": "array", "items": {"type": "array", "items": {"type": "string"}}},
    },
}
_CONNECTION = {
    "type": "object",
    "properties": {
        key: {"type": "string", "minLength": 1, "maxLength": 200}
        for key in ("id", "source", "target", "source_id", "target_id")
    },
}
_SHAPE = {
    "description": "nodes with unique ids, connections (`source`/`target` or `source_id`/`target_id`) or `wires` "
    "between them; at most 1 MiB, 10,000 nodes, 32 levels; further keys of nodes and connections are kept",
    "required": ["nodes"],
    "properties": {
        "nodes": {"type": "array", "maxItems": definition.MAX_NODES, "items": _NODE},
        "connections": {"type": "array", "maxItems": definition.MAX_CONNECTIONS, "items": _CONNECTION},
        "config": {"type": "object"},
    },
    "additionalProperties": False,
    "example": EXAMPLE,
}


class Definition(JsonObject):
    """A flow's definition; faults are told with their paths."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(metadata=dict(_SHAPE), **kwargs)

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        loaded = super()._deserialize(value, attr, data, **kwargs)
        found = definition.faults(loaded)
        if found:
            raise ValidationError(found.get("") or found)  # type: ignore[arg-type]  # a dict nests below the field
        return loaded


def _name(**kwargs: Any) -> Name:
    return Name(metadata={"example": "Temperature watch"}, **kwargs)


def _description(**kwargs: Any) -> Text:
    return Text(validate=validate.Length(max=2000), metadata={"example": "Tells hot from normal."}, **kwargs)


class FlowCreate(Schema):
    name = _name(required=True)
    description = _description(load_default="")
    definition = Definition(required=True)


class FlowUpdate(Schema):
    name = _name()
    description = _description()
    definition = Definition()


class FlowAdopt(Schema):
    overwrite = fields.Boolean(
        load_default=False,
        truthy={True},
        falsy={False},
        metadata={"description": "lose what the draft has that is not published", "example": False},
    )
    name = _name()


class FlowQuery(PageQuery):
    status = fields.String(validate=validate.OneOf(["draft", "published"]), metadata={"example": "published"})
    q = Text(validate=validate.Length(max=200), metadata={"description": "part of the name", "example": "temp"})


class FlowSummaryRead(Schema):
    """A flow in a list: all but its definition."""

    id = fields.UUID()
    name = _name()
    description = _description()
    status = fields.String(metadata={"description": "`draft` until it is first published", "example": "published"})
    latest_version = fields.Integer(allow_none=True, metadata={"description": "newest published version", "example": 3})
    has_unpublished_changes = fields.Boolean(metadata={"example": False})
    content_hash = fields.String(metadata={"description": "SHA-256 of the draft's canonical JSON", "example": "9f86…"})
    created_by = fields.String(allow_none=True, metadata={"example": "ada@example.com"})
    created_at = Time()
    updated_at = Time()


class FlowRead(FlowSummaryRead):
    """A flow with its draft."""

    definition = fields.Dict(keys=fields.String(), metadata={"example": EXAMPLE})


class FlowPublishedRead(FlowRead):
    """A flow after publishing; ``version`` is the one that holds the draft's content."""

    version = fields.Integer(attribute="latest_version", dump_only=True, metadata={"example": 3})


class FlowVersionSummaryRead(Schema):
    """A version in a list: all but its definition."""

    flow_id = fields.UUID()
    version = fields.Integer(attribute="number", metadata={"example": 3})
    name = _name()
    content_hash = fields.String(metadata={"example": "9f86…"})
    published_by = fields.String(allow_none=True, metadata={"example": "ada@example.com"})
    published_at = Time(attribute="created_at")


class FlowVersionRead(FlowVersionSummaryRead):
    """A version, which never changes."""

    definition = fields.Dict(keys=fields.String(), metadata={"example": EXAMPLE})
