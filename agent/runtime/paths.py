"""Dotted paths into a message, as `payload.room.0.temperature`."""

from typing import Any


def get(message: Any, path: str) -> Any:
    """The value at `path`, None where there is nothing."""
    value = message
    for part in path.removeprefix("msg.").split("."):
        if isinstance(value, dict):
            value = value.get(part)
        elif isinstance(value, list) and part.isdigit() and int(part) < len(value):
            value = value[int(part)]
        else:
            return None
    return value


def put(message: dict[str, Any], path: str, value: Any) -> None:
    """Set the value at `path`; what stands in the way and is no object is replaced by one."""
    *parents, last = path.removeprefix("msg.").split(".")
    place = message
    for part in parents:
        inner = place.get(part)
        if not isinstance(inner, dict):
            inner = place[part] = {}
        place = inner
    place[last] = value


def remove(message: dict[str, Any], path: str) -> Any:
    """Take the value at `path` out and return it, None where there is nothing."""
    head, _, last = path.removeprefix("msg.").rpartition(".")
    place = get(message, head) if head else message
    return place.pop(last, None) if isinstance(place, dict) else None
