"""Shadows as plain data: merge patches, equality, delta, times, who may write what. No database."""

from collections.abc import Iterator
from typing import Any

from app.errors import Forbidden

Document = dict[str, Any]


def merge(target: Any, patch: Document) -> Document:
    """A JSON merge patch (RFC 7396): ``null`` deletes a key, arrays are replaced whole. Changes neither argument."""
    merged = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = merge(merged.get(key), value) if isinstance(value, dict) else value
    return merged


def clear(target: Document, patch: Document) -> Document:
    """Delete the keys that ``patch`` names with ``null``; unlike a merge it never makes one."""
    cleared = dict(target)
    for key, value in patch.items():
        if value is None:
            cleared.pop(key, None)
        elif isinstance(value, dict) and isinstance(cleared.get(key), dict):
            cleared[key] = clear(cleared[key], value)
    return cleared


def permit(desired: Document | None, reported: Document | None, *, by_device: bool) -> None:
    """Users write desired only; a device writes its reported and may clear desired keys. Raises Forbidden."""
    if by_device and desired is not None and not _only_clears(desired):
        raise Forbidden("a device may only clear desired keys, with null")
    if not by_device and reported is not None:
        raise Forbidden("only the device itself writes reported")


def _only_clears(patch: Document) -> bool:
    return all(value is None or (isinstance(value, dict) and value and _only_clears(value)) for value in patch.values())


def equal(left: Any, right: Any) -> bool:
    """Equality as JSON has it: ``1`` is ``1.0``, but ``true`` is not ``1``."""
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(equal(value, right[key]) for key, value in left.items())
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(equal, left, right))
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    return bool(left == right)


def delta(desired: Document, reported: Document) -> Document:
    """What of ``desired`` is missing from or different in ``reported``, under its full path.

    Where the types differ it holds the whole subtree; what only ``reported`` has, never.
    """
    found: Document = {}
    for key, wanted in desired.items():
        has = reported.get(key)
        if isinstance(wanted, dict) and isinstance(has, dict):
            if inner := delta(wanted, has):
                found[key] = inner
        elif key not in reported or not equal(wanted, has):
            found[key] = wanted
    return found


def sync_state(desired: Document, reported: Document) -> str:
    """``unknown`` (nothing reported), ``error`` (the device reports one), ``pending`` or ``in_sync``."""
    if not reported:
        return "unknown"
    if reported.get("error"):
        return "error"
    return "pending" if delta(desired, reported) else "in_sync"


def stamp(times: dict[str, str], patch: Document, merged: Document, moment: str) -> dict[str, str]:
    """When each leaf of ``merged`` was last written: a flat map of dotted path to time, as agents parse it."""
    written = set(leaves(patch))
    return {path: moment if path in written else times.get(path, moment) for path in leaves(merged)}


def leaves(document: Document, prefix: str = "") -> Iterator[str]:
    """The dotted paths of all values that are no objects (an empty object is a value)."""
    for key, value in document.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"
