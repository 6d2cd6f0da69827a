"""Cloud definitions and Node-RED's flat arrays, converted both ways: pure.

A cloud node `{id, type, name?, x?, y?, wires?, config?, …}` is a Node-RED node whose further properties stand in
`config`; what stands beside it (`d`, `g`, `z` of a subflow's inside) is a property as well. Groups, junctions, subflow
definitions and config nodes are nodes like any other; a config node is one that nothing is wired to and that has
neither a place nor `wires`. `config.nodered` of the definition: `{"mode": "tab" | "full", "tab": {"info", "env", …}}`.
"""

from dataclasses import dataclass, field
from typing import Any

from agent.drivers.nodered_names import Names, tab_id
from agent.runtime.definition import FlowError, Graph, parse

JsonObject = dict[str, Any]
STRUCTURE = frozenset({"tab", "subflow", "group"})
"""Types that are no nodes: each Node-RED has them."""
SUBFLOW = "subflow:"
RESERVED = frozenset({"id", "type", "x", "y", "wires"})
MARK = "EDGEFLOW_"
FLOW_ID, VERSION, HASH, SUBFLOWS, MODE = (
    f"{MARK}{name}" for name in ("FLOW_ID", "FLOW_VERSION", "CONTENT_HASH", "SUBFLOWS", "MODE")
)


@dataclass(frozen=True)
class Plan:
    """A cloud flow as Node-RED has it: `objects`, its tab first, without marks; `types` that it needs."""

    flow_id: str
    full: bool
    definition: JsonObject
    objects: list[JsonObject]
    names: Names
    types: frozenset[str] = frozenset()
    placed: frozenset[str] = frozenset()
    """Ids, as Node-RED has them, of nodes that were given their place here."""
    by_id: dict[str, JsonObject] = field(default_factory=dict)

    def tabs(self) -> list[str]:
        """The ids of its tabs."""
        return [item["id"] for item in self.objects if item["type"] == "tab"]

    def dressed(self, version: int | None, content_hash: str, running: bool) -> list[JsonObject]:
        """What is sent: with the marks by which it is known again, and disabled if it is not to run."""
        marks = {FLOW_ID: self.flow_id, VERSION: str(version or ""), HASH: content_hash}
        subflows = [item["id"] for item in self.objects if item["type"] == "subflow"]
        if self.full:
            marks[MODE] = "full"
        elif subflows:
            marks[SUBFLOWS] = ",".join(subflows)
        first = self.tabs()[0]
        dressed = [_marked(item, marks) if item["id"] == first else item for item in self.objects]
        return dressed if running else disabled(dressed, True)


def _marked(tab: JsonObject, marks: dict[str, str]) -> JsonObject:
    env = [{"name": name, "value": value, "type": "str"} for name, value in marks.items()]
    return {**tab, "env": [*(tab.get("env") or []), *env]}


def disabled(objects: list[JsonObject], off: bool) -> list[JsonObject]:
    """The same with all tabs switched off or on."""
    return [{**item, "disabled": off} if item.get("type") == "tab" else item for item in objects]


def settings_of(definition: JsonObject) -> JsonObject:
    """`config.nodered` of a definition; raises FlowError."""
    config = definition.get("config")
    found = config.get("nodered") if isinstance(config, dict) else None
    if found is None:
        return {}
    if not isinstance(found, dict) or found.get("mode", "tab") not in ("tab", "full"):
        raise FlowError("config.nodered", 'must be an object with mode "tab" or "full"')
    if not isinstance(found.get("tab", {}), dict):
        raise FlowError("config.nodered.tab", "must be an object")
    return found


def plan(flow_id: str, name: str, definition: JsonObject) -> Plan:
    """What Node-RED is to run for a cloud definition; raises FlowError."""
    graph, settings = parse(definition), settings_of(definition)
    full = settings.get("mode") == "full"
    touched = {end for source, ports in graph.wires.items() for targets in ports.values() for end in (source, *targets)}
    nodes = definition["nodes"]
    flowing = [node for node in nodes if _flows(node, touched)]
    still = {node["id"] for node in nodes} - {node["id"] for node in flowing}
    names = Names.kept(graph.nodes) if full else Names.of(flow_id, graph, still - _structure(nodes))
    given = places(graph, [node["id"] for node in flowing if "x" not in node or "y" not in node])
    home = "" if full else tab_id(flow_id)
    objects = [] if full else [_tab(home, name, settings.get("tab") or {})]
    for index, node in enumerate(nodes):
        objects.append(_object(node, graph, names, home, node["id"] in still, given, f"nodes[{index}]"))
    _check(objects, full)
    own = {f"{SUBFLOW}{item['id']}" for item in objects if item["type"] == "subflow"}
    types = {item["type"] for item in objects} - STRUCTURE - own
    placed = frozenset(names.outward[node] for node in given)
    return Plan(
        flow_id, full, definition, objects, names, frozenset(types), placed, {item["id"]: item for item in objects}
    )


def _structure(nodes: list[JsonObject]) -> set[str]:
    return {node["id"] for node in nodes if node["type"] in STRUCTURE}


def _flows(node: JsonObject, touched: set[str]) -> bool:
    """Whether messages flow through a node; else it is a config node or no node at all."""
    if node["type"] in STRUCTURE:
        return False
    return "x" in node or "y" in node or "wires" in node or node["id"] in touched


def _tab(home: str, name: str, given: JsonObject) -> JsonObject:
    said = {key: value for key, value in given.items() if key not in ("id", "type", "z", "label", "disabled")}
    return {"id": home, "type": "tab", "label": name, "disabled": False, "info": "", "env": [], **said}


def properties(node: JsonObject, path: str) -> JsonObject:
    """All that a cloud node says beside its id, type, place and wires; raises FlowError when it says it twice."""
    config = node.get("config") or {}
    beside = {key: value for key, value in node.items() if key not in RESERVED and key != "config"}
    for key in config.keys() & (RESERVED | beside.keys()):
        raise FlowError(f"{path}.config.{key}", "stands beside config, or cannot be said there")
    return {**config, **beside}


def _object(
    node: JsonObject,
    graph: Graph,
    names: Names,
    home: str,
    still: bool,
    given: dict[str, tuple[int, int]],
    path: str,
) -> JsonObject:
    said = properties(node, path)
    made: JsonObject = {"id": names.outward[node["id"]], "type": _type(node["type"], names.outward)}
    made.update({key: names.mapped(node["type"], key, value) for key, value in said.items()})
    if home:
        made = _at_home(made, said, graph, home, path)
    for key in ("x", "y"):
        if key in node:
            made[key] = node[key]
    if still:
        return made
    if node["id"] in given:
        made["x"], made["y"] = (made.get("x", given[node["id"]][0]), made.get("y", given[node["id"]][1]))
    ports = graph.wires.get(node["id"], {})
    outputs = max(len(node.get("wires") or ()), max(ports, default=-1) + 1)
    made["wires"] = [[names.outward[target] for target in ports.get(port, ())] for port in range(outputs)]
    return made


def _at_home(made: JsonObject, said: JsonObject, graph: Graph, home: str, path: str) -> JsonObject:
    """With `z`: the flow's tab, or the subflow of this flow that the node stands in."""
    inside = said.get("z") or None
    if inside is not None and (inside not in graph.nodes or graph.nodes[inside].type != "subflow"):
        raise FlowError(f"{path}.z", "must be the id of a subflow of this flow")
    if made["type"] == "tab":
        raise FlowError(f"{path}.type", 'a flow is one tab; several need config.nodered.mode "full"')
    if made["type"] == "subflow":
        return {key: value for key, value in made.items() if key != "z"}
    return {**made, "z": made["z"] if inside else home}


def _type(kind: str, table: dict[str, str]) -> str:
    inner = kind.removeprefix(SUBFLOW)
    return f"{SUBFLOW}{table.get(inner, inner)}" if inner != kind else kind


def _check(objects: list[JsonObject], full: bool) -> None:
    """What `parse` cannot know; raises FlowError."""
    known = {item["id"]: item for item in objects}
    tabs = [item for item in objects if item["type"] == "tab"]
    if full and not tabs:
        raise FlowError("nodes", "a whole deployment needs a tab")
    for item in objects:
        path = f"node {item['id']}"
        if full and "z" in item and item["z"] and item["z"] not in known:
            raise FlowError(f"{path}.z", "there is no such tab or subflow")
        if item.get("g") and known.get(item["g"], {}).get("type") != "group":
            raise FlowError(f"{path}.g", "there is no such group")
        if not isinstance(item.get("credentials", {}), dict):
            raise FlowError(f"{path}.credentials", "must be an object")
        for port in item.get("wires", ()):
            if any(known[target].get("z") != item.get("z") for target in port):
                raise FlowError(f"{path}.wires", "lead out of the tab or subflow")
    for tab in tabs:
        env = tab.get("env") or []
        if not isinstance(env, list) or any(not isinstance(one, dict) or is_mark(one) for one in env):
            raise FlowError("env", f"must be a list of objects whose names do not begin with {MARK}")


def places(graph: Graph, nodes: list[str]) -> dict[str, tuple[int, int]]:
    """A place for each of `nodes`: from left to right as messages flow."""
    depth: dict[str, int] = {}
    targets = {target for ports in graph.wires.values() for some in ports.values() for target in some}
    layer = [node for node in graph.nodes if node not in targets]
    while layer or len(depth) < len(graph.nodes):
        layer = layer or [next(node for node in graph.nodes if node not in depth)]  # a circle without a beginning
        level = max((depth.get(node, 0) for node in layer), default=0)
        for node in layer:
            depth.setdefault(node, level)
        following = [target for node in layer for some in graph.wires.get(node, {}).values() for target in some]
        layer = [target for target in dict.fromkeys(following) if target not in depth]
        depth.update(dict.fromkeys(layer, level + 1))
    rows: dict[int, int] = {}
    found = {}
    for node in nodes:
        row = rows[depth[node]] = rows.get(depth[node], 0) + 1
        found[node] = (140 + 200 * depth[node], 60 * row + 20)
    return found


def is_mark(entry: Any) -> bool:
    return isinstance(entry, dict) and str(entry.get("name", "")).startswith(MARK)


def marks(tab: JsonObject) -> dict[str, str]:
    """What the agent wrote on a tab, by name."""
    env = tab.get("env")
    return {one["name"]: str(one.get("value", "")) for one in env if is_mark(one)} if isinstance(env, list) else {}


def subflows_of(tab: JsonObject) -> set[str]:
    """The ids of the subflows that came with a tab."""
    return {known for known in marks(tab).get(SUBFLOWS, "").split(",") if known}


def belonging(every: list[JsonObject], homes: set[str]) -> list[JsonObject]:
    """Tabs and subflows by their ids, and all that stands in them."""
    return [item for item in every if item["id"] in homes or item.get("z") in homes]


def splice(every: list[JsonObject], old: list[JsonObject], new: list[JsonObject]) -> list[JsonObject]:
    """`every` with `new` in the place of `old`; a subflow that others use stays with them."""
    gone = {item["id"] for item in old}
    arriving = {item["id"] for item in new}
    used = {str(item.get("type")) for item in every if item["id"] not in gone}
    shared = {item["id"] for item in old if item["type"] == "subflow" and f"{SUBFLOW}{item['id']}" in used} - arriving
    gone -= {item["id"] for item in old if item["id"] in shared or item.get("z") in shared}
    gone |= arriving
    first = next((index for index, item in enumerate(every) if item["id"] in gone), len(every))
    return [*every[:first], *new, *(item for item in every[first:] if item["id"] not in gone)]
