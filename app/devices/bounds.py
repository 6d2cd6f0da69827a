"""How large and how deep a free-form JSON object may be."""

from typing import Any

import orjson

from app.errors import TooLarge, ValidationFailed

MAX_BYTES = 32 * 1024
MAX_DEPTH = 8
MAX_KEYS = 1024


def measure(value: Any) -> tuple[int, int]:
    """Depth and number of keys: ``{"a": 1}`` is 1 deep; arrays are levels too. Walks without recursion."""
    deepest = keys = 0
    todo = [(value, 1)]
    while todo:
        item, depth = todo.pop()
        if isinstance(item, dict | list):
            deepest = max(deepest, depth)
            keys += len(item) if isinstance(item, dict) else 0
            inner = item.values() if isinstance(item, dict) else item
            todo.extend((child, depth + 1) for child in inner)
    return deepest, keys


def check_depth(name: str, value: Any) -> None:
    """Raises ValidationFailed for the field ``name`` when it is deeper than functions that recurse should meet."""
    if measure(value)[0] > MAX_DEPTH:
        raise ValidationFailed(details={name: [f"Must not be nested deeper than {MAX_DEPTH} levels."]})


def check(name: str, value: Any) -> None:
    """Raises TooLarge past 32 KiB of JSON, ValidationFailed past depth 8 or 1,024 keys."""
    check_depth(name, value)
    if len(orjson.dumps(value)) > MAX_BYTES:
        raise TooLarge(f"{name} must not be larger than {MAX_BYTES // 1024} KiB")
    if measure(value)[1] > MAX_KEYS:
        raise ValidationFailed(details={name: [f"Must not hold more than {MAX_KEYS} keys."]})
