"""What Node-RED runs as a cloud definition: pure.

Where a plan is known, what was not changed comes back as its author wrote it: ids, connections, order, and which
property stood in `config` and which beside it. So a change by hand is a small change of the definition.
"""

from agent.drivers.nodered_format import MODE, SUBFLOW, JsonObject, Plan, is_mark, marks, places
from agent.drivers.nodered_names import Names, digest, tab_id
from agent.drivers.nodered_same import canonical, comparable, flows, restored, trimmed
from agent.runtime.definition import FlowError, parse

Wire = tuple[str, int, str]
BESIDE = ("d", "g", "z")
"""Properties that stand beside `config` where no author has put them elsewhere."""


def names_of(tab: JsonObject, flow_id: str) -> Names:
    """The ids of a tab without a plan: of a flow that the cloud deployed, or of a person's own."""
    if tab["id"] != tab_id(flow_id):
        return Names.kept(())
    return Names({}, {}, int(digest(f"edgeflow nodes {flow_id}"), 16))


def definition_from(running: list[JsonObject], names: Names, plan: Plan | None = None) -> JsonObject:
    """The definition of the objects of one flow, its tab among them (or all tabs, of a whole deployment)."""
    full = plan.full if plan else any(marks(item).get(MODE) == "full" for item in running)
    running = restored(running, plan) if plan else running
    tab = None if full else next(item for item in running if item["type"] == "tab")
    objects = [item for item in running if item is not tab]
    names = names.learn(item["id"] for item in objects)
    reading = _Reading(objects, names, plan, "" if tab is None else tab["id"])
    return reading.definition(tab)


class _Reading:
    """One flow on its way back."""

    def __init__(self, objects: list[JsonObject], names: Names, plan: Plan | None, home: str) -> None:
        self._objects, self._names, self._plan, self._home = objects, names, plan, home
        self._template = plan.definition if plan else {}
        self._written = {node["id"]: node for node in self._template.get("nodes", ())}
        self._wires = {wire for item in objects for wire in self._wires_of(item)}
        self._rewired = {self._names.inward[item["id"]] for item in objects if self._is_rewired(item)}
        connections = self._template.get("connections") or ()
        self._connections = [one for one in connections if _ends(one)[0] not in self._rewired]
        self._connections = [one for one in self._connections if _ends(one) in self._wires]

    def definition(self, tab: JsonObject | None) -> JsonObject:
        order = {node: index for index, node in enumerate(self._written)}
        last = len(order)
        nodes = sorted(map(self._node, self._objects), key=lambda node: order.get(node["id"], last))
        made = {**self._template, "nodes": nodes}
        if "connections" in self._template:
            made["connections"] = self._connections
        return self._with_settings(self._with_places(made), tab)

    def _with_places(self, made: JsonObject) -> JsonObject:
        """Where nodes have no place of their own, and a change by hand gives them another one: with their places."""
        running = {self._names.inward[item["id"]]: item for item in self._objects if flows(item)}
        lacking = [node["id"] for node in made["nodes"] if node["id"] in running and not {"x", "y"} <= node.keys()]
        if not lacking:
            return made
        there = {node: {"x": running[node]["x"], "y": running[node]["y"]} for node in lacking}
        told = {node["id"]: node for node in made["nodes"]}
        try:
            given = {node: {"x": x, "y": y} for node, (x, y) in places(parse(made), lacking).items()}
        except FlowError:  # such as a wire to nowhere: what is read need not be what may be deployed
            given = {}
        if all({**given.get(node, {}), **_place(told[node])} == there[node] for node in lacking):
            return made
        return {**made, "nodes": [{**node, **there.get(node["id"], {})} for node in made["nodes"]]}

    def _with_settings(self, made: JsonObject, tab: JsonObject | None) -> JsonObject:
        """`config.nodered`: a tab's description and variables, or that this is the whole deployment."""
        config = dict(made.get("config") or {})
        settings = dict(config.get("nodered") or {})
        if tab is None:
            settings["mode"] = "full"
        elif not self._plan or canonical(comparable(self._plan.by_id[tab["id"]])) != canonical(comparable(tab)):
            said = {key: value for key, value in comparable(tab).items() if key not in ("id", "type", "z")}
            settings = {**settings, "tab": said} if said or "tab" in settings else settings
        if settings:
            config["nodered"] = settings
        return {**made, "config": config} if config or "config" in made else made

    def _wires_of(self, item: JsonObject) -> list[Wire]:
        inward = self._names.inward
        wires = item.get("wires") or ()
        return [
            (inward[item["id"]], port, inward.get(end, end)) for port, some in enumerate(wires) for end in some or ()
        ]

    def _node(self, item: JsonObject) -> JsonObject:
        written = self._written.get(self._names.inward[item["id"]])
        planned = self._plan.by_id.get(item["id"]) if self._plan else None
        if written is None or planned is None:
            return self._with_wires(self._made(item, None, False), item)
        if _unwired(planned) == _unwired(item):
            return self._with_wires(dict(written), item)
        return self._with_wires(self._made(item, written, self._was_placed(item, planned)), item)

    def _was_placed(self, item: JsonObject, planned: JsonObject) -> bool:
        """Whether the node still is where the agent put it."""
        there = (item.get("x"), item.get("y")) == (planned.get("x"), planned.get("y"))
        return there and self._plan is not None and item["id"] in self._plan.placed

    def _made(self, item: JsonObject, written: JsonObject | None, placed: bool) -> JsonObject:
        """A node as the cloud has it, without wires."""
        beside = set(BESIDE) | {"name"} if written is None else set(written)
        inner = item["type"].removeprefix(SUBFLOW)
        kind = f"{SUBFLOW}{self._names.inward.get(inner, inner)}" if inner != item["type"] else inner
        node: JsonObject = {"id": self._names.inward[item["id"]], "type": kind}
        config: JsonObject = {}
        for key, found in self._said(item, written).items():
            value = self._names.mapped(kind, key, found, back=True)
            if key in ("x", "y"):
                if not placed or (written is not None and key in written):
                    node[key] = value
            elif key in beside and (key != "name" or isinstance(value, str)):
                node[key] = value
            else:
                config[key] = value
        if config or (written is not None and "config" in written):
            node["config"] = config
        return node

    def _said(self, item: JsonObject, written: JsonObject | None) -> JsonObject:
        """The properties, with the credentials that the author gave: Node-RED tells none."""
        left_out = {"id", "type", "wires", "credentials"}
        said = {key: value for key, value in item.items() if key not in left_out}
        if item["type"] == "tab":
            said["env"] = [one for one in item.get("env") or [] if not is_mark(one)]
        if self._home and said.get("z") == self._home:
            del said["z"]
        known = {**((written or {}).get("config") or {}), **(written or {})}
        return {**said, "credentials": known["credentials"]} if "credentials" in known else said

    def _is_rewired(self, item: JsonObject) -> bool:
        planned = self._plan.by_id.get(item["id"]) if self._plan else None
        return planned is None or trimmed(planned.get("wires")) != trimmed(item.get("wires"))

    def _with_wires(self, node: JsonObject, item: JsonObject) -> JsonObject:
        """With its wires as the author wrote them, there or as connections; all in `wires` if they were changed."""
        bare = {key: value for key, value in node.items() if key != "wires"}
        if not flows(item) and not trimmed(item.get("wires")):
            return bare
        if node["id"] in self._rewired:
            inward = self._names.inward
            return {**bare, "wires": [[inward.get(end, end) for end in some] for some in item.get("wires") or ()]}
        written = self._written[node["id"]]
        if "wires" in written:
            return {**bare, "wires": written["wires"]}
        seen = "x" in bare or "y" in bare or any(node["id"] in (one[0], one[2]) for one in self._wires)
        return bare if seen else {**bare, "wires": []}


def _ends(connection: JsonObject) -> Wire:
    source = connection.get("source", connection.get("source_id"))
    target = connection.get("target", connection.get("target_id"))
    return str(source), connection.get("source_port") or 0, str(target)


def _place(node: JsonObject) -> JsonObject:
    return {key: node[key] for key in ("x", "y") if key in node}


def _unwired(item: JsonObject) -> str:
    return canonical({key: value for key, value in comparable(item, full=True).items() if key != "wires"})
