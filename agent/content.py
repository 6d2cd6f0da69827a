"""The hash that names a flow's content, as the cloud computes it: equal hashes are equal flows. Pure."""

import hashlib
from typing import Any

import orjson

PARTS = ("nodes", "connections", "config")
"""What of a flow is its definition; its name and id are not."""


def parts_of(definition: dict[str, Any]) -> dict[str, Any]:
    """What is a flow's definition of an object that may hold its name and id too."""
    return {key: definition[key] for key in PARTS if key in definition}


def content_hash(definition: dict[str, Any]) -> str | None:
    """SHA-256 of the canonical JSON of a definition's parts, in hex; None when JSON cannot say them."""
    try:
        return hashlib.sha256(orjson.dumps(_plain(parts_of(definition)), option=orjson.OPT_SORT_KEYS)).hexdigest()
    except TypeError:
        return None


def _plain(value: Any) -> Any:
    """Whole floats count as integers: the cloud's database writes 1e2 as 100 and -0.0 as 0.0."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**63:
        return int(value)
    return value
