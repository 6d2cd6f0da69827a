"""Requests as Stripe's OpenAPI has them. ``stripe-mock`` looks at the first level only: names inside are checked here.

A form has only text: a number is text of digits, a boolean ``true`` or ``false``.
"""

import re
from typing import Any

from tests.stripe_contract.schemas import Schema, json_schema

_TEXT_OF = {
    "integer": {"type": "string", "pattern": r"^-?\d+$"},
    "number": {"type": "string", "pattern": r"^-?\d+(\.\d+)?$"},
    "boolean": {"enum": ["true", "false"]},
}
_FORM = "application/x-www-form-urlencoded"


def form_schema(operation: Schema) -> Schema:
    """What an operation of the OpenAPI takes, in query and body, as JSON Schema of `nested` parameters."""
    described = dict(operation.get("requestBody", {}).get("content", {}).get(_FORM, {}).get("schema", {}))
    queried = [one for one in operation.get("parameters", ()) if one["in"] == "query"]
    described["properties"] = {
        **described.get("properties", {}),
        **{one["name"]: one["schema"] for one in queried},
    }
    described["required"] = [*described.get("required", ()), *(one["name"] for one in queried if one["required"])]
    return _as_text(json_schema(described))


def nested(parameters: list[tuple[str, str]]) -> Schema:
    """``[("items[0][price]", "p")]`` → ``{"items": [{"price": "p"}]}``."""
    tree: Schema = {}
    for name, value in parameters:
        *path, last = re.findall(r"[^\[\]]+", name) + (["0"] if name.endswith("[]") else [])
        node = tree
        for step in path:
            node = node.setdefault(step, {})
        node[last] = value
    listed: Schema = _with_lists(tree)
    return listed


def misplaced_expansions(components: Schema, answer: Schema, expand: list[str]) -> list[str]:
    """The paths of ``expand`` that the answer's description knows nothing of."""
    return [path for path in expand if not _expands(components, answer, path.split("."))]


def _expands(components: Schema, node: Schema, steps: list[str]) -> bool:
    if "$ref" in node:
        return _expands(components, components[node["$ref"].rpartition("/")[2]], steps)
    if "anyOf" in node:
        return any(_expands(components, one, steps) for one in node["anyOf"])
    if node.get("type") == "array":
        return _expands(components, node["items"], steps)
    if not steps:
        return True
    if steps[0] not in node.get("x-expandableFields", ()):
        return False
    return _expands(components, node["properties"][steps[0]], steps[1:])


def _as_text(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_as_text(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    if isinstance(kind := schema.get("type"), str) and kind in _TEXT_OF:
        return _TEXT_OF[kind]
    return {name: _as_text(value) for name, value in schema.items()}


def _with_lists(node: Any) -> Any:
    if not isinstance(node, dict):
        return node
    inner = {name: _with_lists(value) for name, value in node.items()}
    return list(inner.values()) if inner and all(name.isdecimal() for name in inner) else inner
