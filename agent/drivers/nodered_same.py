"""Whether Node-RED runs what was deployed: objects compared as far as they mean something. Pure.

At each *Deploy* the editor posts every object as its own model has it (`importNodes` and `convertNode` of its
`nodes.js`), touched or not: without the properties that a node's type does not declare, with a number of outputs, with
a place for each that is no config node, with groups as large as their nodes are drawn. No API tells what a type
declares; so what the editor may have left out or filled in counts as it was deployed, what takes a hand as a change.
"""

import json
from typing import Any

from agent.drivers.nodered_format import STRUCTURE, JsonObject, Plan, is_mark

EMPTIED = frozenset({"z", "g", "d", "wires", "info", "env", "inputLabels", "outputLabels", "locked", "credentials"})
"""Properties of each object that the editor leaves out where they are empty: somebody emptied them."""
FILLED = frozenset({"inputs", "outputs"})
"""Properties that the editor writes where the type declares them."""
NUMBERS = ("x", "y", "inputs", "outputs")
"""What the editor makes numbers of."""
BOX = frozenset({"x", "y", "w", "h"})
"""A group's place and size, which the editor makes of those of its nodes as it draws them."""


def comparable(item: JsonObject, full: bool = False) -> JsonObject:
    """A Node-RED object as far as it is part of a definition.

    Not part of it: credentials (never read back), marks, a tab's name and whether it is switched off, outputs that
    lead nowhere at the end of the list (the editor writes them), what is empty and that the editor then leaves out.
    """
    kept = {key: value for key, value in item.items() if key not in EMPTIED or not _empty(value)}
    kept.pop("credentials", None)
    if flows(item):
        kept["wires"] = trimmed(kept.get("wires"))
    elif not trimmed(kept.get("wires")):
        kept.pop("wires", None)
    if item.get("type") != "tab":
        return kept
    kept["env"] = [one for one in item.get("env") or [] if not is_mark(one)]
    if not full:
        kept.pop("label", None)
        kept.pop("disabled", None)
    return {key: value for key, value in kept.items() if value not in ([], "", False, None)}


def _empty(value: Any) -> bool:
    """As the editor has it, of labels too."""
    if isinstance(value, list):
        return all(one is None or (isinstance(one, str) and not one.strip()) for one in value)
    return value is None or value is False or value == "" or value == 0


def flows(item: JsonObject) -> bool:
    """Whether a Node-RED object is a node that messages flow through: only those have a place."""
    return "x" in item and "y" in item and item.get("type") not in STRUCTURE


def trimmed(wires: Any) -> list[Any]:
    """Without the outputs at the end that lead nowhere."""
    wires = list(wires) if isinstance(wires, list) else []
    while wires and not wires[-1]:
        wires.pop()
    return wires


def same(plan: Plan, running: list[JsonObject], ignore_disabled: bool = False) -> bool:
    """Whether what runs is what was planned."""
    there = restored(running, plan)
    return _texts(plan.objects, plan.full, ignore_disabled) == _texts(there, plan.full, ignore_disabled)


def _texts(objects: list[JsonObject], full: bool, ignore_disabled: bool) -> dict[str, str]:
    compared = {item["id"]: comparable(item, full) for item in objects}
    if ignore_disabled:
        for item in compared.values():
            if item.get("type") == "tab":
                item.pop("disabled", None)
    return {known: canonical(item) for known, item in compared.items()}


def restored(running: list[JsonObject], plan: Plan) -> list[JsonObject]:
    """What runs, without what the editor does to objects that nobody touched."""
    return [_restored(item, plan.by_id.get(item["id"], {}), plan) for item in running]


def _restored(item: JsonObject, planned: JsonObject, plan: Plan) -> JsonObject:
    if item.get("type") != planned.get("type"):
        return item
    left_out = {key: value for key, value in planned.items() if key not in item and key not in EMPTIED}
    kept = {key: value for key, value in item.items() if key in planned or not _filled_in(key, value, item, plan)}
    made = {**left_out, **kept, **_part(planned, {key for key in NUMBERS if _alike(item.get(key), planned.get(key))})}
    if item["type"] == "group":
        return {key: value for key, value in made.items() if key not in BOX} | _part(planned, BOX)
    return made


def _filled_in(key: str, value: Any, item: JsonObject, plan: Plan) -> bool:
    """Whether the editor may have added a property that was not deployed."""
    if key == "g":  # of a node that its group names, and that does not name the group
        return item["id"] in _ids(plan.by_id.get(str(value), {}), "nodes")
    return key in FILLED or (key in ("x", "y") and value == 0)


def _ids(item: JsonObject, key: str) -> set[str]:
    found = item.get(key)
    return {known for known in found if isinstance(known, str)} if isinstance(found, list) else set()


def _part(item: JsonObject, keys: frozenset[str] | set[str]) -> JsonObject:
    return {key: value for key, value in item.items() if key in keys}


def _alike(one: Any, other: Any) -> bool:
    try:
        return float(one) == float(other)
    except (TypeError, ValueError):
        return False


def canonical(value: Any) -> str:
    """Equal for equal JSON values: 1.0 is 1, and true is not 1."""
    return json.dumps(_plain(value), sort_keys=True)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value
