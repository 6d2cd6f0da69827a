"""A flow's definition: what is wrong with it, and the hash that names its content. Pure.

Shape: ``{nodes: [{id, type, name?, x?, y?, config?, wires?, …}], connections?: [{id?, source, target, …}], config?}``.
A connection may say ``source_id`` and ``target_id`` instead; ``wires`` are Node-RED's: per output a list of node ids.
What else stands in a node or a connection belongs to the runtime and is kept as it is.
"""

import hashlib
from collections.abc import Iterator
from itertools import islice
from typing import Any

import orjson

MAX_BYTES = 1024 * 1024
MAX_NODES = 10_000
MAX_CONNECTIONS = 50_000
MAX_DEPTH = 32
MAX_TEXT = 200
MAX_FAULTS = 20

_KEYS = {"nodes", "connections", "config"}
_ENDS = {"source": "source_id", "target": "target_id"}

Fault = tuple[str, str]
"""Path within the definition (``""``: the whole of it) and message."""


def faults(definition: dict[str, Any]) -> dict[str, list[str]]:
    """What is wrong, as path to messages (``{"nodes.3.id": ["…"]}``), at most 20; empty when all is well."""
    found: dict[str, list[str]] = {}
    for path, message in islice(_check(definition), MAX_FAULTS):
        found.setdefault(path, []).append(message)
    return found


def canonical(definition: dict[str, Any]) -> bytes:
    """The definition as JSON with sorted keys, without spaces, in UTF-8; equal numbers are written alike."""
    return orjson.dumps(_plain(definition), option=orjson.OPT_SORT_KEYS)


def content_hash(definition: dict[str, Any]) -> str:
    """SHA-256 of the canonical form, in hex: equal hashes are equal flows."""
    return hashlib.sha256(canonical(definition)).hexdigest()


def node_types(definition: dict[str, Any]) -> list[str]:
    """The types of its nodes, sorted: a device's runtime must have all of them.

    But for those that the definition brings itself: Node-RED's subflow ``s1`` makes the type ``subflow:s1``.
    """
    nodes = definition.get("nodes", [])
    own = {f"subflow:{node['id']}" for node in nodes if node["type"] == "subflow"}
    return sorted({str(node["type"]) for node in nodes} - own)


def _plain(value: Any) -> Any:
    """PostgreSQL writes 1e2 as 100 and -0.0 as 0.0; so that the hash survives it, whole floats count as integers."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**63:
        return int(value)
    return value


def _check(definition: dict[str, Any]) -> Iterator[Fault]:
    if _deeper_than(definition, MAX_DEPTH):
        yield "", f"Nested deeper than {MAX_DEPTH} levels."
        return
    if len(canonical(definition)) > MAX_BYTES:
        yield "", "Larger than 1 MiB."
        return
    for key in definition.keys() - _KEYS:
        yield key, "Unknown field."
    if not isinstance(definition.get("config", {}), dict):
        yield "config", "Must be an object."
    yield from _check_graph(definition)


def _deeper_than(value: Any, levels: int) -> bool:
    """Walks without recursion: the JSON parser allows far deeper bodies than Python's stack."""
    layer = [value]
    for _ in range(levels):
        layer = [inner for outer in layer for inner in _inside(outer)]
        if not layer:
            return False
    return True


def _inside(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [item for item in value.values() if isinstance(item, dict | list)]
    return [item for item in value if isinstance(item, dict | list)] if isinstance(value, list) else []


def _check_graph(definition: dict[str, Any]) -> Iterator[Fault]:
    nodes, connections = definition.get("nodes"), definition.get("connections", [])
    if not isinstance(nodes, list) or len(nodes) > MAX_NODES:
        yield "nodes", f"Must be a list of at most {MAX_NODES} nodes."
        return
    if not isinstance(connections, list) or len(connections) > MAX_CONNECTIONS:
        yield "connections", f"Must be a list of at most {MAX_CONNECTIONS} connections."
        return
    seen: set[str] = set()
    for index, node in enumerate(nodes):
        yield from _check_node(node, f"nodes.{index}", seen)
    for index, node in enumerate(nodes):
        yield from _check_wires(node, f"nodes.{index}.wires", seen)
    for index, connection in enumerate(connections):
        yield from _check_connection(connection, f"connections.{index}", seen)


def _check_node(node: Any, path: str, seen: set[str]) -> Iterator[Fault]:
    if not isinstance(node, dict):
        yield path, "Must be an object."
        return
    for key in ("id", "type"):
        if not _is_name(node.get(key)):
            yield f"{path}.{key}", f"Must be a text of 1 to {MAX_TEXT} characters."
    if isinstance(node.get("id"), str):
        if node["id"] in seen:
            yield f"{path}.id", "Another node has this id."
        seen.add(node["id"])
    yield from _check_extras(node, path)


def _check_extras(node: dict[str, Any], path: str) -> Iterator[Fault]:
    if not isinstance(node.get("name", ""), str):
        yield f"{path}.name", "Must be a text."
    if not isinstance(node.get("config", {}), dict):
        yield f"{path}.config", "Must be an object."
    for key in ("x", "y"):
        if isinstance(node.get(key, 0), bool) or not isinstance(node.get(key, 0), int | float):
            yield f"{path}.{key}", "Must be a number."


def _check_wires(node: Any, path: str, known: set[str]) -> Iterator[Fault]:
    wires = node.get("wires", []) if isinstance(node, dict) else []
    if not isinstance(wires, list) or not all(isinstance(targets, list) for targets in wires):
        yield path, "Must be a list of lists of node ids."
        return
    for output, targets in enumerate(wires):
        for index, target in enumerate(targets):
            yield from _check_end(target, f"{path}.{output}.{index}", known)


def _check_connection(connection: Any, path: str, known: set[str]) -> Iterator[Fault]:
    if not isinstance(connection, dict):
        yield path, "Must be an object."
        return
    if "id" in connection and not _is_name(connection["id"]):
        yield f"{path}.id", f"Must be a text of 1 to {MAX_TEXT} characters."
    for key, other in _ENDS.items():
        if key in connection and other in connection:
            yield f"{path}.{key}", f"Give {key} or {other}, not both."
        else:
            name = other if other in connection else key
            yield from _check_end(connection.get(name), f"{path}.{name}", known)


def _check_end(value: Any, path: str, known: set[str]) -> Iterator[Fault]:
    if not isinstance(value, str):
        yield path, "Must be the id of a node."
    elif value not in known:
        yield path, "There is no node with this id."


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value) <= MAX_TEXT
