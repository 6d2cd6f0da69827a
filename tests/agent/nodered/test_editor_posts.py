"""*Deploy* in Node-RED's editor posts what nobody touched in another form: that is no drift, and a change is."""

import copy

import pytest

from agent.content import content_hash
from tests.agent.nodered.editor import posted
from tests.agent.nodered.samples import TAB, answering, order
from tests.agent.nodered.support import fails, flow_of, with_driver

pytestmark = [pytest.mark.xdist_group("nodered"), pytest.mark.slow]

BROKER = {"broker": "127.0.0.1", "port": "1883", "keepalive": "60", "protocolVersion": "4"}
LOOSE = {
    "nodes": [
        {"id": "every", "type": "inject", "x": 100, "y": 100, "config": {"interval": 5, "repeat": "3600"}},
        {"id": "work", "type": "function", "config": {"func": "return msg", "noerr": 0, "info": ""}},
        {"id": "two", "type": "function", "x": 300.0, "y": 200, "config": {"func": "return msg", "outputs": "2"}},
        {"id": "show", "type": "debug", "note": {"of": "the author"}, "config": {"d": False, "active": False}},
        {"id": "watch", "type": "catch", "name": "all", "config": {"scope": None}},
        {"id": "meet", "type": "junction", "x": 400, "y": 100, "label": "none of its own", "wires": [["show"]]},
        {
            "id": "box",
            "type": "group",
            "name": "in",
            "x": 1,
            "y": 1,
            "config": {"nodes": ["work"], "style": {}, "w": 5},
        },
        {"id": "broker", "type": "mqtt-broker", "x": 5, "y": 5, "config": {"host": "h", **BROKER}},
        {"id": "use", "type": "subflow:sub", "x": 500, "y": 100, "config": {"hint": "mine"}},
        {"id": "sub", "type": "subflow", "name": "double", "config": {"in": [], "out": [], "note": "mine"}},
    ],
    "connections": [{"source": "every", "target": "work"}, {"source": "work", "target": "meet"}],
    "config": {"nodered": {"tab": {"info": "what it is for"}}},
}
"""As people write flows by hand, with properties that Node-RED does not know and without others that it has."""


def test_a_deploy_that_touched_nothing_is_no_drift(nodered, tmp_path):
    async def work(driver):
        await driver.deploy(order(LOOSE))
        before = nodered.objects()
        nodered.write(posted(nodered.read()["flows"]))
        changed = {before[known]["type"] for known, item in nodered.objects().items() if item != before[known]}
        assert {"inject", "function", "debug", "catch", "junction", "group", "mqtt-broker", "subflow"} <= changed
        assert not any("interval" in item for item in nodered.objects().values())
        flow = await driver.get_flow("flow-1")
        assert (flow["drift"], flow["content_hash"], flow["definition"]) == (False, content_hash(LOOSE), LOOSE)
        assert (await driver.running())["flow-1"]["hash"] == content_hash(LOOSE)
        rev = nodered.read()["rev"]
        assert await driver.deploy(order(LOOSE)) == "already_installed"
        assert nodered.read()["rev"] == rev

    with_driver(nodered, tmp_path, work)


WHOLE = {
    "nodes": [
        {"id": "first", "type": "tab", "config": {"label": "first", "colour": "red", "locked": False}},
        {"id": "second", "type": "tab", "config": {"label": "second", "disabled": True}},
        {"id": "every", "type": "inject", "z": "first", "x": "100", "y": 100, "config": {"interval": 5}},
        {"id": "show", "type": "debug", "z": "first", "x": 300, "y": 100, "wires": []},
        {"id": "box", "type": "group", "z": "first", "config": {"nodes": ["show"], "style": {}}},
        {"id": "broker", "type": "mqtt-broker", "z": "", "config": BROKER},
    ],
    "connections": [{"source": "every", "target": "show"}],
    "config": {"nodered": {"mode": "full"}},
}


def test_nor_is_it_of_a_whole_deployment(nodered, tmp_path):
    async def work(driver):
        await driver.deploy(order(WHOLE, flow_id="all"))
        before = nodered.objects()
        nodered.write(posted(nodered.read()["flows"]))
        assert {known for known, item in nodered.objects().items() if item != before[known]} >= before.keys() - {
            "second"
        }
        flow = await driver.get_flow("all")
        assert (flow["drift"], flow["definition"]) == (False, WHOLE)
        nodered.change("second", disabled=False)
        assert (await flow_of(driver, "all"))["drift"] is True

    with_driver(nodered, tmp_path, work)


CHANGES = {
    "what it does": ({"type": "inject"}, {"repeat": "60"}, "every"),
    "switched off": ({"type": "junction"}, {"d": True}, "meet"),
    "moved": ({"type": "debug"}, {"x": 777.0}, "show"),
    "named": ({"type": "catch"}, {"name": "none"}, "watch"),
    "out of its group": ({"type": "group"}, {"nodes": []}, "box"),
    "wired": ({"type": "inject"}, {"wires": [[]]}, "every"),
    "a setting": ({"type": "mqtt-broker"}, {"broker": "10.0.0.1"}, "broker"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_in_the_same_post_is_told_and_nothing_else(nodered, tmp_path, name):
    which, fields, node = CHANGES[name]

    async def work(driver):
        await driver.deploy(order(LOOSE))
        flows = posted(nodered.read()["flows"])
        changed = [one for one in flows if one.get("z") != TAB and which.items() <= one.items()]
        assert len(changed) == 1
        changed[0].update(copy.deepcopy(fields))
        nodered.write(flows)
        flow = await driver.get_flow("flow-1")
        assert flow["drift"] is True
        assert flow["content_hash"] == content_hash(flow["definition"]) != content_hash(LOOSE)
        read = {one["id"]: one for one in flow["definition"]["nodes"]}
        written = {one["id"]: one for one in LOOSE["nodes"]}
        differing = {known for known in written if _bare(read[known]) != _bare(written[known])}
        assert differing <= {node}
        assert await driver.deploy(order(LOOSE)) == "installed"
        assert (await flow_of(driver))["drift"] is False

    with_driver(nodered, tmp_path, work)


def _bare(node):
    """Without its place and wires, which a change of either tells for all nodes that had none of their own."""
    return {key: value for key, value in node.items() if key not in ("x", "y", "wires")}


def test_what_somebody_emptied_by_hand_is_drift(nodered, tmp_path):
    """Of these the editor writes nothing where there is nothing, so that nothing is a change."""
    definition = answering("one")
    definition["nodes"][1] |= {"d": True, "info": "see the manual", "outputLabels": ["answer"]}

    async def work(driver):
        for key in ("d", "info", "outputLabels"):
            await driver.deploy(order(definition))
            flows = nodered.read()["flows"]
            next(one for one in flows if one.get("info") == "see the manual").pop(key)
            nodered.write(flows)
            flow = await driver.get_flow("flow-1")
            assert flow["drift"] is True
            assert flow["definition"]["nodes"][1].keys() == definition["nodes"][1].keys() - {key}
        await fails("FLOW_NOT_FOUND", driver.get_flow("flow-2"))

    with_driver(nodered, tmp_path, work)
