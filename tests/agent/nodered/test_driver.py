"""The driver against a real Node-RED: what runs there, what is exchanged, and what is never touched."""

import asyncio
import copy
import json

import pytest

from agent.content import content_hash
from agent.drivers.nodered_names import tab_id
from tests.agent.nodered.samples import OWN, SUBFLOW, TAB, answering, order
from tests.agent.nodered.support import fails, flow_of, own, until_errors, with_driver

pytestmark = [pytest.mark.xdist_group("nodered"), pytest.mark.slow]


def test_a_flow_runs_as_a_tab_and_is_exchanged_while_all_else_stays_as_it_is(nodered, tmp_path):
    before = own(nodered)

    async def work(driver):
        assert await driver.deploy(order(answering("one"))) == "installed"
        assert nodered.ask("/flow") == "one"
        assert await driver.deploy(order(answering("one"))) == "already_installed"
        assert await driver.deploy(order(answering("two"), version=2)) == "installed"
        assert nodered.ask("/flow") == "two"
        flow = await driver.get_flow("flow-1")
        assert flow["definition"] == answering("two")
        assert flow["content_hash"] == content_hash(answering("two"))
        assert (flow["status"], flow["version"], flow["drift"]) == ("running", 2, False)
        assert flow["name"] == nodered.objects()[tab_id("flow-1")]["label"] == "answers v2"
        await driver.deploy(order(answering("three", "/other"), flow_id="flow-2"))
        assert (nodered.ask("/flow"), nodered.ask("/other"), nodered.ask("/own")) == ("two", "three", "own")
        assert await driver.remove("flow-1") is True
        assert await driver.remove("flow-1") is False
        assert (nodered.ask("/flow"), nodered.ask("/other")) == (None, "three")
        await driver.remove("flow-2")

    with_driver(nodered, tmp_path, work)
    assert own(nodered) == before
    assert set(nodered.objects()) == {item["id"] for item in OWN}


def test_a_persons_own_tabs_are_listed_read_and_switched_but_never_changed(nodered, tmp_path):
    async def work(driver):
        flow = await driver.get_flow(TAB)
        assert (flow["name"], flow["status"], flow["managed"], flow["version"]) == ("my own", "running", False, None)
        assert {node["type"] for node in flow["definition"]["nodes"]} == {
            item["type"] for item in OWN if item.get("z") == TAB
        }
        await fails("INVALID_FLOW", driver.remove(TAB))
        await fails("INVALID_FLOW", driver.deploy(order(answering("mine now"), flow_id=TAB)))
        assert await driver.running() == {}
        assert await driver.stop(TAB) == "stopped"
        assert nodered.ask("/own") is None
        assert await driver.start(TAB) == "started"
        assert nodered.ask("/own") == "own"
        await fails("FLOW_NOT_FOUND", driver.start("nobody"))
        await fails("FLOW_NOT_FOUND", driver.get_flow("nobody"))

    before = own(nodered)
    with_driver(nodered, tmp_path, work)
    assert own(nodered) == before


def test_a_persons_tab_becomes_a_flow_of_the_cloud_by_its_definition(nodered, tmp_path):
    """What get_flow tells may be deployed: the copy works beside the original."""

    async def work(driver):
        definition = (await driver.get_flow(TAB))["definition"]
        copied = json.loads(json.dumps(definition).replace("/own", "/copy"))
        await driver.deploy(order(copied))
        assert (nodered.ask("/own"), nodered.ask("/copy")) == ("own", "own")
        assert (await flow_of(driver))["drift"] is False

    with_driver(nodered, tmp_path, work)


BROKEN = {
    "does not compile": (answering("two", func="return ("), "SyntaxError"),
    "throws when it starts": (answering("two", initialize="throw new Error('no pump')"), "no pump"),
    "throws soon": (answering("two", initialize="setTimeout(() => node.error('no pump'), 100)"), "no pump"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_does_not_start_is_exchanged_for_what_ran_before(nodered, tmp_path, name):
    definition, told = BROKEN[name]

    async def work(driver):
        await driver.deploy(order(answering("one")))
        before = nodered.objects()
        assert told in await fails("START_FAILED", driver.deploy(order(definition, version=2)))
        assert nodered.ask("/flow") == "one"
        assert nodered.objects() == before
        flow = await flow_of(driver)
        assert (flow["version"], flow["status"], flow["drift"], flow["errors"]) == (1, "running", False, 0)

    with_driver(nodered, tmp_path, work)


def test_a_first_flow_that_fails_leaves_nothing(nodered, tmp_path):
    before = nodered.read()

    async def work(driver):
        await fails("START_FAILED", driver.deploy(order(answering("one", func="return ("))))
        assert await flow_of(driver) is None

    with_driver(nodered, tmp_path, work)
    assert nodered.read() == before
    assert list((tmp_path / "nodered").glob("*.json")) == []


def test_what_could_never_run_is_refused_before_anything_is_sent(nodered, tmp_path):
    before = nodered.read()["rev"]
    lacking = {"nodes": [{"id": "a", "type": "modbus-read", "x": 1, "y": 1}]}
    unwired = {"nodes": [{"id": "a", "type": "inject", "wires": [["b"]]}]}
    stranger = {"nodes": [{"id": "a", "type": "subflow:0123456789abcdef", "x": 1, "y": 1}]}

    async def work(driver):
        assert "modbus-read" in await fails("UNSUPPORTED_NODE_TYPE", driver.deploy(order(lacking)))
        await fails("UNSUPPORTED_NODE_TYPE", driver.deploy(order(stranger)))
        assert "no node 'b'" in await fails("INVALID_FLOW", driver.deploy(order(unwired)))
        types = {kind["type"]: kind for kind in await driver.node_types()}
        assert types["inject"]["module"] == "node-red"
        assert f"subflow:{SUBFLOW}" in types
        await fails("UNKNOWN_ACTION", driver.gpio_state())

    with_driver(nodered, tmp_path, work)
    assert nodered.read()["rev"] == before


def test_an_error_of_the_old_flow_is_not_the_new_ones(nodered, tmp_path):
    """A flow that throws all the time is mended by a deployment, which its last errors do not fail."""
    noisy = answering("one", initialize="setInterval(() => node.error('noise'), 5)")

    async def work(driver):
        await driver.deploy(order(answering("one")))
        node = next(
            known for known, item in nodered.objects().items() if item["type"] == "function" and item["z"] != SUBFLOW
        )
        nodered.change(node, initialize=noisy["nodes"][1]["config"]["initialize"])
        await until_errors(driver)
        await driver.deploy(order(answering("two"), version=2))
        assert nodered.ask("/flow") == "two"
        assert (await flow_of(driver))["errors"] == 0

    with_driver(nodered, tmp_path, work)


def test_installing_without_starting_then_starting_and_stopping(nodered, tmp_path):
    async def work(driver):
        assert await driver.deploy(order(answering("one"), start=False)) == "installed"
        assert ((await flow_of(driver))["status"], nodered.ask("/flow")) == ("stopped", None)
        assert await driver.deploy(order(answering("one"), start=False)) == "already_installed"
        assert await driver.start("flow-1") == "started"
        assert await driver.start("flow-1") == "already_running"
        assert ((await flow_of(driver))["status"], nodered.ask("/flow")) == ("running", "one")
        assert await driver.stop("flow-1") == "stopped"
        assert await driver.stop("flow-1") == "stopped"
        flow = await flow_of(driver)
        assert (flow["status"], flow["drift"], nodered.ask("/flow")) == ("stopped", False, None)
        assert await driver.deploy(order(answering("one"))) == "installed"
        assert nodered.ask("/flow") == "one"

    with_driver(nodered, tmp_path, work)


def test_a_stopped_flow_that_cannot_start_stays_stopped(nodered, tmp_path):
    async def work(driver):
        await driver.deploy(order(answering("one", func="return ("), start=False))
        await fails("START_FAILED", driver.start("flow-1"))
        assert (await flow_of(driver))["status"] == "stopped"

    with_driver(nodered, tmp_path, work)


def test_a_change_by_hand_is_drift_until_it_is_undone_or_deployed_over(nodered, tmp_path):
    async def work(driver):
        await driver.deploy(order(answering("one")))
        node = next(known for known, item in nodered.objects().items() if item.get("x") == 300)
        nodered.change(node, x=320)
        flow = await driver.get_flow("flow-1")
        expected = copy.deepcopy(answering("one"))
        expected["nodes"][1]["x"] = 320
        assert flow["definition"] == expected
        assert flow["content_hash"] == content_hash(expected)
        assert flow["drift"] is True
        assert (await driver.running())["flow-1"]["hash"] == content_hash(expected)
        nodered.change(node, x=300)
        assert (await flow_of(driver))["drift"] is False
        nodered.change(node, x=321)
        assert await driver.deploy(order(answering("one"))) == "installed"
        assert nodered.objects()[node]["x"] == 300
        assert (await flow_of(driver))["drift"] is False
        nodered.change(node, credentials={"secret": "noise"}, wires=[*nodered.objects()[node]["wires"], []])
        assert (await flow_of(driver))["drift"] is False

    with_driver(nodered, tmp_path, work)


def test_another_writer_at_the_same_moment_loses_nothing(nodered, tmp_path):
    async def work(driver):
        send, comments = driver._api.deploy, []

        async def beaten(flows, rev, kind="flows"):
            if len(comments) < 3:
                comments.append({"id": f"c{len(comments)}", "type": "comment", "z": TAB, "x": 1, "y": 1, "wires": []})
                nodered.write([*nodered.read()["flows"], comments[-1]])
            return await send(flows, rev, kind)

        driver._api.deploy = beaten
        await driver.deploy(order(answering("one")))
        assert nodered.ask("/flow") == "one"
        assert {"c0", "c1", "c2"} <= nodered.objects().keys()

    with_driver(nodered, tmp_path, work)


def test_what_another_writer_does_meanwhile_survives_the_way_back(nodered, tmp_path):
    async def work(driver):
        await driver.deploy(order(answering("one")))
        trying = asyncio.create_task(fails("START_FAILED", driver.deploy(order(late, version=2))))
        while nodered.ask("/flow") != "two":
            await asyncio.sleep(0.02)
        nodered.change("aaaaaaaaaaaaaaa9", name="changed meanwhile")
        await trying
        assert nodered.objects()["aaaaaaaaaaaaaaa9"]["name"] == "changed meanwhile"
        assert nodered.ask("/flow") == "one"
        assert (await flow_of(driver))["drift"] is False

    late = answering("two", initialize="setTimeout(() => node.error('no pump'), 500)")
    with_driver(nodered, tmp_path, work, settle=1.5)


def test_credentials_that_only_node_red_knows_survive_a_failed_exchange(nodered, tmp_path):
    def credentials(node):
        return nodered.http.get(f"/credentials/http-request/{node}").json()

    async def work(driver):
        definition = answering("one")
        definition["nodes"].append({"id": "ask", "type": "http request", "x": 1, "y": 1, "config": {"url": ""}})
        await driver.deploy(order(definition))
        node = next(known for known, item in nodered.objects().items() if item["type"] == "http request")
        nodered.change(node, credentials={"user": "me", "password": "typed in by hand"})
        assert credentials(node) == {"user": "me", "has_password": True}
        await fails("START_FAILED", driver.deploy(order(answering("two", func="return ("), version=2)))
        assert credentials(node) == {"user": "me", "has_password": True}
        await driver.deploy(order(answering("two"), version=2))
        assert node not in nodered.objects()
        assert (await flow_of(driver))["drift"] is False

    with_driver(nodered, tmp_path, work)


def test_a_whole_deployment_replaces_all_but_the_clouds_other_flows(nodered, tmp_path):
    def whole(text, **more):
        objects = [
            {"id": "one", "type": "tab", "config": {"label": "first"}},
            {"id": "two", "type": "tab", "config": {"label": "second", "disabled": True}},
            *({**node, "z": "one"} for node in answering(text, "/whole", **more)["nodes"]),
        ]
        return {
            "nodes": objects,
            "connections": answering(text)["connections"],
            "config": {"nodered": {"mode": "full"}},
        }

    async def work(driver):
        before = nodered.objects()
        await fails("START_FAILED", driver.deploy(order(whole("bad", func="return ("), flow_id="all")))
        assert nodered.objects() == before
        await driver.deploy(order(answering("one")))
        await driver.deploy(order(whole("all"), flow_id="all"))
        assert (nodered.ask("/flow"), nodered.ask("/whole"), nodered.ask("/own")) == ("one", "all", None)
        await driver.deploy(order(answering("two"), version=2))
        flows = await driver.list_flows()
        assert {flow["id"]: (flow["drift"], flow["status"]) for flow in flows} == {
            "flow-1": (False, "running"),
            "all": (False, "running"),
        }
        assert (await driver.get_flow("all"))["definition"] == whole("all")
        await driver.stop("all")
        assert (nodered.ask("/flow"), nodered.ask("/whole")) == ("two", None)
        await driver.start("all")
        assert nodered.objects()["two"]["disabled"] is True
        assert (await flow_of(driver, "all"))["drift"] is False
        nodered.change("two", disabled=False)
        assert (await flow_of(driver, "all"))["drift"] is True
        await driver.remove("all")
        assert (nodered.ask("/flow"), nodered.ask("/whole")) == ("two", None)

    with_driver(nodered, tmp_path, work)
