"""Both ways: nothing is lost, whatever stands in a node, and equal ids of two flows never meet."""

import copy
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.content import content_hash
from agent.drivers import nodered_format as form
from agent.drivers.nodered_names import HEX_ID
from agent.drivers.nodered_reading import definition_from, names_of
from agent.drivers.nodered_same import EMPTIED, canonical, comparable, flows, same
from agent.runtime.definition import FlowError
from tests.agent.nodered.samples import OWN, TAB, answering

# A busy machine needs more than a second to build its first text; that says nothing of the conversion.
EXAMPLES = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
TYPES = ("inject", "debug", "function", "junction", "mqtt in", "link in", "a module/odd type")
KEYS = st.sampled_from(["func", "rules", "broker", "topic", "outputs", "links", "scope", "d", "info", "ünïcode"])
SCALARS = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(-1e9, 1e9) | st.text(max_size=8)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
IDS = st.text("0123456789abcdef", min_size=16, max_size=16) | st.text(min_size=1, max_size=12)


@st.composite
def definitions(draw):
    """A cloud definition: nodes wired at random, some by connections, some config nodes that others refer to."""
    ids = draw(st.lists(IDS, min_size=1, max_size=6, unique=True))
    settings_ids = [node for node in ids[3:] if draw(st.booleans())]
    flowing = [node for node in ids if node not in settings_ids]
    nodes = [_flowing(draw, node, flowing, ids) for node in flowing]
    nodes += [{"id": node, "type": "mqtt-broker", "config": {"host": "h"}} for node in settings_ids]
    ends = st.tuples(st.sampled_from(flowing), st.integers(0, 2), st.sampled_from(flowing))
    connections = [
        {"id": f"c{number}", "source": source, "source_port": port, "target": target}
        for number, (source, port, target) in enumerate(draw(st.lists(ends, max_size=4, unique=True)))
    ]
    return {"nodes": draw(st.permutations(nodes)), "connections": connections, "config": {"marker": draw(SCALARS)}}


def _flowing(draw, node, flowing, ids):
    made = {"id": node, "type": draw(st.sampled_from(TYPES)), "config": draw(st.dictionaries(KEYS, VALUES, max_size=3))}
    if draw(st.booleans()):
        made["config"]["reference"] = draw(st.sampled_from(ids))
    for key in draw(st.sets(st.sampled_from(["retain", "label"]))):
        made[key] = draw(VALUES)
    if draw(st.booleans()):
        made |= {"x": draw(st.integers(0, 999)), "y": draw(st.floats(0, 999))}
    if draw(st.booleans()) or "x" not in made:
        made["wires"] = draw(st.lists(st.lists(st.sampled_from(flowing), max_size=2, unique=True), max_size=3))
    if draw(st.booleans()):
        made["name"] = draw(st.text(max_size=5))
    return made


def without_place(node):
    return {key: value for key, value in node.items() if key not in ("x", "y")}


def as_node_red(objects):
    return {item["id"]: canonical(comparable(item)) for item in objects}


@EXAMPLES
@given(definitions())
def test_what_was_not_changed_comes_back_as_it_was_written(definition):
    plan = form.plan("flow-1", "name", definition)
    running = json.loads(json.dumps(plan.dressed(3, "hash", True)))
    assert same(plan, running)
    assert definition_from(running, plan.names, plan) == definition


@EXAMPLES
@given(definitions(), st.data())
def test_a_change_by_hand_comes_back_and_leads_to_the_same_in_node_red(definition, data):
    """What is read, deployed again, is what was running; and what nobody touched is as its author wrote it."""
    plan = form.plan("flow-1", "name", definition)
    running = json.loads(json.dumps(plan.dressed(3, "hash", True)))
    nodes = [item for item in running if flows(item)]
    changed = data.draw(st.sampled_from(nodes))
    changed[data.draw(st.sampled_from(["x", "rules", "func"]))] = data.draw(st.integers(1000, 9999))
    if data.draw(st.booleans()):
        changed["wires"] = [[data.draw(st.sampled_from(nodes))["id"]]]
    new = {"id": "00112233445566ff", "type": "debug", "z": running[0]["id"], "x": 1, "y": 2, "wires": [[changed["id"]]]}
    running += [new] if data.draw(st.booleans()) else []
    assert not same(plan, running)
    read = definition_from(running, plan.names, plan)
    assert content_hash(read) != content_hash(definition)
    assert as_node_red(form.plan("flow-1", "name", read).objects) == as_node_red(running)
    written = {node["id"]: node for node in definition["nodes"]}
    kept = [node for node in read["nodes"] if without_place(node) == without_place(written.get(node["id"], {}))]
    assert len(kept) >= len(written) - 1


@EXAMPLES
@given(definitions(), st.data())
def test_what_the_editor_does_to_what_nobody_touched_is_no_change(definition, data):
    """Whichever properties it does not know, and however many outputs it finds."""
    plan = form.plan("flow-1", "name", definition)
    running = json.loads(json.dumps(plan.dressed(3, "hash", True)))
    for item in running[1:]:
        known = set(item) - {"id", "type", "z", "wires", *EMPTIED}
        for key in data.draw(st.sets(st.sampled_from(sorted(known))) if known else st.just(set())):
            del item[key]
        if "outputs" not in plan.by_id[item["id"]]:
            item["outputs"] = data.draw(st.integers(0, 3))
        item["wires"] = [*(item.get("wires") or ()), *([] for _ in range(data.draw(st.integers(0, 2))))]
    assert same(plan, running)
    assert definition_from(running, plan.names, plan) == definition


@EXAMPLES
@given(definitions())
def test_a_tab_whose_past_is_forgotten_still_comes_back_whole(definition):
    plan = form.plan("flow-1", "name", definition)
    running = json.loads(json.dumps(plan.dressed(3, "hash", True)))
    read = definition_from(running, names_of(running[0], "flow-1"))
    assert as_node_red(form.plan("flow-1", "name", read).objects) == as_node_red(running)
    if all(HEX_ID.fullmatch(node["id"]) for node in definition["nodes"]):
        assert {node["id"] for node in read["nodes"]} == {node["id"] for node in definition["nodes"]}


@EXAMPLES
@given(definitions())
def test_two_flows_with_the_same_ids_share_none_in_node_red(definition):
    one, other = (form.plan(flow_id, "name", definition) for flow_id in ("flow-1", "flow-2"))
    assert not one.by_id.keys() & other.by_id.keys()
    own = {node["id"] for node in definition["nodes"]}
    assert not own & one.by_id.keys()
    assert one.by_id.keys() == form.plan("flow-1", "again", definition).by_id.keys()
    assert all(HEX_ID.fullmatch(known) for known in one.by_id)


@EXAMPLES
@given(definitions(), st.integers(0, 9))
def test_splicing_touches_nothing_else(definition, at):
    plan = form.plan("flow-1", "name", definition)
    old = plan.dressed(1, "hash", True)
    there = [*OWN[:at], *old, *OWN[at:]]
    new = form.plan("flow-1", "name", answering("two")).dressed(2, "other", True)
    assert form.splice(there, old, new) == [*OWN[:at], *new, *OWN[at:]]
    assert form.splice(there, old, []) == OWN


def test_a_tab_of_a_person_goes_there_and_back():
    own = [item for item in OWN if item.get("z") == TAB or item["id"] == TAB]
    read = definition_from(own, names_of(own[0], TAB))
    plan = form.plan("flow-1", "my own", read)
    back = definition_from(plan.dressed(1, "hash", True), plan.names, plan)
    assert back == read
    assert read["config"] == {"nodered": {"tab": {"info": "hands off\n"}}}
    group = next(node for node in read["nodes"] if node["type"] == "group")
    assert group["config"]["nodes"] == ["aaaaaaaaaaaaaaa6"]
    mapped = plan.by_id[plan.names.outward[group["id"]]]
    assert mapped["nodes"] == [plan.names.outward["aaaaaaaaaaaaaaa6"]]


SUBFLOWED = {
    "nodes": [
        {
            "id": "sub",
            "type": "subflow",
            "name": "double",
            "config": {
                "in": [{"x": 1, "y": 1, "wires": [{"id": "inner"}]}],
                "out": [{"x": 9, "y": 1, "wires": [{"id": "inner", "port": 0}]}],
            },
        },
        {
            "id": "inner",
            "type": "function",
            "z": "sub",
            "x": 5,
            "y": 1,
            "wires": [[]],
            "config": {"func": "return msg"},
        },
        {"id": "use", "type": "subflow:sub", "x": 1, "y": 1, "wires": [["lead", "out"]]},
        {
            "id": "lead",
            "type": "link out",
            "x": 5,
            "y": 1,
            "wires": [],
            "config": {"links": ["arrive"], "mode": "link"},
        },
        {"id": "arrive", "type": "link in", "x": 7, "y": 1, "wires": [["out"]], "config": {"links": ["lead"]}},
        {
            "id": "out",
            "type": "mqtt out",
            "x": 9,
            "y": 1,
            "d": True,
            "g": "box",
            "config": {"broker": "bro", "topic": "bro"},
        },
        {"id": "bro", "type": "mqtt-broker", "config": {"host": "h", "credentials": {"user": "me", "password": "pw"}}},
        {"id": "box", "type": "group", "x": 0, "y": 0, "config": {"nodes": ["out"], "w": 5, "h": 5, "style": {}}},
        {"id": "watch", "type": "catch", "x": 9, "y": 9, "config": {"scope": ["out", "use"], "uncaught": False}},
    ]
}


def test_references_follow_their_nodes():
    plan = form.plan("flow-1", "name", SUBFLOWED)
    out = plan.names.outward
    by_id = {node: plan.by_id[known] for node, known in out.items()}
    home = plan.objects[0]["id"]
    assert by_id["sub"]["in"][0]["wires"] == [{"id": out["inner"]}]
    assert "z" not in by_id["sub"]
    assert (by_id["inner"]["z"], by_id["use"]["z"], by_id["bro"]["z"]) == (out["sub"], home, home)
    assert by_id["use"]["type"] == f"subflow:{out['sub']}"
    assert (by_id["lead"]["links"], by_id["arrive"]["links"]) == ([out["arrive"]], [out["lead"]])
    assert (by_id["out"]["broker"], by_id["out"]["topic"], by_id["out"]["g"]) == (out["bro"], "bro", out["box"])
    assert by_id["box"]["nodes"] == [out["out"]]
    assert by_id["watch"]["scope"] == [out["out"], out["use"]]
    assert plan.types == {"function", "link out", "link in", "mqtt out", "mqtt-broker", "catch"}
    running = [
        {key: value for key, value in item.items() if key != "credentials"} for item in plan.dressed(1, "h", True)
    ]
    assert same(plan, running)
    assert definition_from(running, plan.names, plan) == SUBFLOWED
    next(item for item in running if item["type"] == "mqtt-broker")["host"] = "other"
    changed = copy.deepcopy(SUBFLOWED)
    changed["nodes"][6]["config"]["host"] = "other"
    assert definition_from(running, plan.names, plan) == changed


@pytest.mark.parametrize(
    ("definition", "path"),
    [
        ({"nodes": [{"id": "a", "type": "tab"}]}, "nodes[0].type"),
        ({"nodes": [{"id": "a", "type": "debug", "z": "nowhere"}]}, "nodes[0].z"),
        ({"nodes": [{"id": "a", "type": "debug", "config": {"id": "b"}}]}, "nodes[0].config.id"),
        ({"nodes": [{"id": "a", "type": "debug", "name": "n", "config": {"name": "m"}}]}, "nodes[0].config.name"),
        ({"nodes": [{"id": "a", "type": "debug", "x": 1, "y": 1, "g": "a"}]}, ".g"),
        ({"nodes": [], "config": {"nodered": {"mode": "half"}}}, "config.nodered"),
        ({"nodes": [], "config": {"nodered": {"mode": "full"}}}, "nodes"),
        ({"nodes": [], "config": {"nodered": {"tab": {"env": [{"name": "EDGEFLOW_FLOW_ID"}]}}}}, "env"),
        ({"nodes": [{"id": "a", "type": "inject", "wires": [["b"]]}]}, "nodes[0].wires"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(definition, path):
    with pytest.raises(FlowError) as caught:
        form.plan("flow-1", "name", definition)
    assert path in caught.value.path


def test_a_wire_stays_within_its_subflow():
    crossing = copy.deepcopy(SUBFLOWED)
    crossing["nodes"][1]["wires"] = [["out"]]
    with pytest.raises(FlowError, match="lead out"):
        form.plan("flow-1", "name", crossing)


def test_a_subflow_that_others_use_stays_with_them():
    plan = form.plan("flow-1", "name", SUBFLOWED)
    old, sub = plan.dressed(1, "hash", True), plan.names.outward["sub"]
    there = [*old, {"id": "mine", "type": f"subflow:{sub}", "z": TAB, "x": 1, "y": 1, "wires": []}]
    left = {item["id"] for item in form.splice(there, old, [])}
    assert left == {"mine", sub, plan.names.outward["inner"]}
