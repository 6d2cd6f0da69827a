"""A flow's definition, checked and turned into a graph: pure.

`{nodes: [{id, type, name?, config?, wires?}], connections: [{source, target, source_port?}]}`; connections may also
say `source_id` and `target_id`, wires are Node-RED's: per output a list of node ids.
"""

from dataclasses import dataclass, field
from typing import Any

MAX_NODES = 2000
MAX_PORT = 100


class FlowError(ValueError):
    """The definition is wrong; `path` says where."""

    def __init__(self, path: str, text: str) -> None:
        super().__init__(f"{path}: {text}")
        self.path = path


@dataclass(frozen=True)
class NodeSpec:
    """One node as its author wrote it."""

    id: str
    type: str
    name: str
    config: dict[str, Any]


@dataclass
class Graph:
    """The nodes by id, and per node and output the ids that a message goes to."""

    nodes: dict[str, NodeSpec] = field(default_factory=dict)
    wires: dict[str, dict[int, list[str]]] = field(default_factory=dict)

    def types(self) -> set[str]:
        """The node types that the flow needs."""
        return {node.type for node in self.nodes.values()}

    def connect(self, source: str, port: int, target: str, path: str) -> None:
        """Add one wire; a repeated one (`wires` and `connections` may both tell it) counts once."""
        for end in (source, target):
            if end not in self.nodes:
                raise FlowError(path, f"there is no node {end!r}")
        targets = self.wires.setdefault(source, {}).setdefault(port, [])
        if target not in targets:
            targets.append(target)


def parse(definition: Any) -> Graph:
    """The graph of a definition; raises FlowError."""
    if not isinstance(definition, dict):
        raise FlowError("flow", "must be an object")
    nodes = _list_of(definition, "nodes")
    if len(nodes) > MAX_NODES:
        raise FlowError("nodes", f"more than {MAX_NODES}")
    graph = Graph()
    for index, node in enumerate(nodes):
        _add_node(graph, node, f"nodes[{index}]")
    for index, node in enumerate(nodes):
        _add_wires(graph, node, f"nodes[{index}].wires")
    for index, connection in enumerate(_list_of(definition, "connections")):
        _add_connection(graph, connection, f"connections[{index}]")
    return graph


def _list_of(definition: dict[str, Any], key: str) -> list[Any]:
    values = definition.get(key)
    if values is None and key == "connections":
        return []
    if not isinstance(values, list):
        raise FlowError(key, "must be a list")
    return values


def _add_node(graph: Graph, node: Any, path: str) -> None:
    if not isinstance(node, dict):
        raise FlowError(path, "must be an object")
    node_id, kind = node.get("id"), node.get("type")
    if not isinstance(node_id, str) or not node_id:
        raise FlowError(f"{path}.id", "must be a text")
    if not isinstance(kind, str) or not kind:
        raise FlowError(f"{path}.type", "must be a text")
    if node_id in graph.nodes:
        raise FlowError(f"{path}.id", f"{node_id!r} is there twice")
    config = node.get("config")
    if config is not None and not isinstance(config, dict):
        raise FlowError(f"{path}.config", "must be an object")
    graph.nodes[node_id] = NodeSpec(node_id, kind, str(node.get("name") or node_id), config or {})


def _add_wires(graph: Graph, node: dict[str, Any], path: str) -> None:
    wires = node.get("wires")
    if wires is None:
        return
    if not isinstance(wires, list) or not all(isinstance(targets, list) for targets in wires):
        raise FlowError(path, "must be a list of lists of node ids")
    for port, targets in enumerate(wires):
        for target in targets:
            graph.connect(node["id"], port, _text(target, path), path)


def _add_connection(graph: Graph, connection: Any, path: str) -> None:
    if not isinstance(connection, dict):
        raise FlowError(path, "must be an object")
    source = _text(connection.get("source", connection.get("source_id")), f"{path}.source")
    target = _text(connection.get("target", connection.get("target_id")), f"{path}.target")
    port = connection.get("source_port")
    if port is not None and (not isinstance(port, int) or isinstance(port, bool) or not 0 <= port <= MAX_PORT):
        raise FlowError(f"{path}.source_port", f"must be an output's number from 0 to {MAX_PORT}")
    graph.connect(source, port or 0, target, path)


def _text(value: Any, path: str) -> str:
    if not isinstance(value, str):
        raise FlowError(path, "must be a node's id")
    return value
