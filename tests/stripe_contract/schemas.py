"""OpenAPI 3.0 as JSON Schema, and its faults in plain words."""

from collections.abc import Iterator
from typing import Any

import jsonschema_rs

Schema = dict[str, Any]
_KEPT = ("type", "enum", "$ref", "required", "pattern", "maxLength")


def json_schema(described: Schema) -> Schema:
    """OpenAPI 3.0 says ``nullable`` where JSON Schema has a type; ``properties`` are made all that there may be."""
    schema = {name: value for name, value in described.items() if name in _KEPT}
    if "properties" in described:
        schema["properties"] = {name: json_schema(one) for name, one in described["properties"].items()}
        schema["additionalProperties"] = False
    if isinstance(described.get("additionalProperties"), dict):
        schema["additionalProperties"] = json_schema(described["additionalProperties"])
    if "items" in described:
        schema["items"] = json_schema(described["items"])
    if "anyOf" in described:
        schema["anyOf"] = [json_schema(one) for one in described["anyOf"]]
    if described.get("nullable"):
        return {"anyOf": [schema, {"type": "null"}]}
    return schema


def faults(validator: jsonschema_rs.Validator, body: Any, name: str) -> list[str]:
    return [f"{name}: {fault}" for error in validator.iter_errors(body) for fault in _plain(error)]


def _plain(error: jsonschema_rs.ValidationError) -> Iterator[str]:
    """An error in words. Of an ``anyOf`` only the branch that fits best tells: the others are other kinds of object."""
    if isinstance(error.kind, jsonschema_rs.ValidationErrorKind.AnyOf):
        for inner in min(error.kind.context, key=lambda branch: _misfit(branch, list(error.instance_path))):
            yield from _plain(inner)
        return
    yield f"{'.'.join(map(str, error.instance_path))}: {error.message[:300]}"


def _misfit(branch: list[jsonschema_rs.ValidationError], at: list[Any]) -> tuple[bool, int]:
    """A wrong type, or another kind's name, before many small faults."""
    another = any(
        (list(error.instance_path) == at and isinstance(error.kind, jsonschema_rs.ValidationErrorKind.Type))
        or list(error.instance_path) == [*at, "object"]
        for error in branch
    )
    return another, len(branch)
