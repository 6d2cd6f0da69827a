"""Flows as the cloud writes them and as the EdgeFlow runtime does, and back: pure.

The cloud: `{nodes: [{id, type, name?, x?, y?, config?, wires?}], connections: [{id?, source, target, …}], config?}`,
ends also called `source_id` and `target_id`. The runtime stores nodes as it gets them, tells them by id, keeps a node's
place under `position`, and reads a connection's `source` and `target` alone: wires mean nothing to it, and what its
engine writes itself has `source_id` and `target_id`. A node's output is its number in `sourceOutput`.
"""

import hashlib
from typing import Any

import orjson

from agent.drivers.base import JsonObject
from agent.drivers.installed import definition_of
from agent.runtime.definition import FlowError, Graph, parse

Edge = tuple[str, int, str]
"""Source, output, target."""
OURS = "Deployed by EdgeFlow Cloud: "
"""How the description of a flow begins that the agent has made; its id at the cloud and the attempt's follow."""


def description_of(flow_id: str, attempt: str) -> str:
    """What marks a flow as made for `flow_id` by one attempt, also when the answer to its creation was lost."""
    return f"{OURS}{flow_id} {attempt}"


def owner_of(flow: JsonObject) -> str | None:
    """The cloud's id of a flow that the agent has made, None for others."""
    description = flow.get("description")
    if not isinstance(description, str) or not description.startswith(OURS):
        return None
    return description.removeprefix(OURS).rpartition(" ")[0] or None


def to_runtime(flow: JsonObject) -> JsonObject:
    """The body of a PUT for a flow of the cloud; raises FlowError."""
    definition = definition_of(flow)
    graph = parse(definition)
    body = {
        "nodes": [_to_node(node) for node in definition["nodes"]],
        "connections": _to_connections(definition, graph),
    }
    return {**body, "config": definition["config"]} if isinstance(definition.get("config"), dict) else body


def from_runtime(flow: JsonObject) -> JsonObject:
    """The definition of a flow of the runtime, as the cloud would take it; raises FlowError."""
    nodes = [_from_node(node) for node in _nodes(flow)]
    found: JsonObject = {"nodes": nodes, "connections": [_from_connection(one) for one in _connections(flow)]}
    if isinstance(flow.get("config"), dict) and flow["config"]:
        found["config"] = flow["config"]
    parse(found)
    return found


def fingerprint(flow: JsonObject) -> str | None:
    """Names what a flow does: its nodes and how they are joined, not where they are drawn. None: unreadable.

    The same for what was sent and for what the runtime makes of it.
    """
    try:
        nodes = {str(node["id"]): _essence(node) for node in _nodes(flow)}
        edges = sorted({_edge(connection) for connection in _connections(flow)})
        canonical = orjson.dumps(_plain([nodes, edges]), option=orjson.OPT_SORT_KEYS)
    except (FlowError, KeyError, TypeError):
        return None
    return hashlib.sha256(canonical).hexdigest()


def _to_node(node: JsonObject) -> JsonObject:
    made = {key: value for key, value in node.items() if key != "wires"}
    made.setdefault("name", node["type"])
    made.setdefault("config", {})
    if "position" not in made and _is_number(node.get("x")) and _is_number(node.get("y")):
        made["position"] = {"x": node["x"], "y": node["y"]}
    return made


def _from_node(node: JsonObject) -> JsonObject:
    made = {key: value for key, value in node.items() if key != "position"}
    place = node.get("position")
    if isinstance(place, dict):
        # The editor moves only this one of the two.
        made |= {axis: place[axis] for axis in ("x", "y") if _is_number(place.get(axis))}
    return made


def _to_connections(definition: JsonObject, graph: Graph) -> list[JsonObject]:
    """The connections as they were given, then what only `wires` tell."""
    made, seen = [], set()
    for connection in definition.get("connections") or []:
        edge = _edge(connection)
        if edge not in seen:
            seen.add(edge)
            more = {key: value for key, value in connection.items() if key not in ENDS}
            made.append({"id": _name(edge), **more, **_told(edge)})
    wired = [(source, port, to) for source, ports in graph.wires.items() for port, all_ in ports.items() for to in all_]
    return made + [{"id": _name(edge), **_told(edge)} for edge in wired if edge not in seen]


ENDS = frozenset({"source", "target", "source_id", "target_id", "source_port", "sourceOutput"})


def _from_connection(connection: JsonObject) -> JsonObject:
    source, port, target = _edge(connection)
    more = {key: value for key, value in connection.items() if key not in ENDS}
    return {**more, "source": source, "target": target, **({"source_port": port} if port else {})}


def _told(edge: Edge) -> JsonObject:
    source, port, target = edge
    return {"source": source, "target": target, **({"sourceOutput": port} if port else {})}


def _edge(connection: Any) -> Edge:
    if not isinstance(connection, dict):
        raise FlowError("connections", "must hold objects")
    source = connection.get("source") or connection.get("source_id")
    target = connection.get("target") or connection.get("target_id")
    port = connection.get("sourceOutput", connection.get("source_port")) or 0
    if not isinstance(source, str) or not isinstance(target, str) or not isinstance(port, int):
        raise FlowError("connections", "must have a source and a target")
    return source, int(port), target


def _name(edge: Edge) -> str:
    """A connection's id, the same each time."""
    return hashlib.sha256(orjson.dumps(edge)).hexdigest()[:16]


def _nodes(flow: JsonObject) -> list[JsonObject]:
    """The nodes, which the runtime tells as an object by id."""
    nodes = flow.get("nodes")
    if isinstance(nodes, dict):
        nodes = [{**node, "id": key} if isinstance(node, dict) else node for key, node in sorted(nodes.items())]
    if not isinstance(nodes, list) or not all(isinstance(node, dict) for node in nodes):
        raise FlowError("nodes", "must be objects")
    return nodes


def _connections(flow: JsonObject) -> list[Any]:
    connections = flow.get("connections")
    if connections is None:
        return []
    if not isinstance(connections, list):
        raise FlowError("connections", "must be a list")
    return connections


def _essence(node: JsonObject) -> list[Any]:
    return [node["type"], node.get("name") or node["type"], node.get("config") or {}]


def _plain(value: Any) -> Any:
    """Go writes 1.0 as 1."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**63:
        return int(value)
    return value


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
