"""Flows made, changed and deleted one by one on a real Node-RED, while a person's tab beside them goes on counting."""

import asyncio
import json

import pytest

from agent.drivers.nodered_names import tab_id
from tests.agent.nodered.instance import NodeRed
from tests.agent.nodered.samples import OWN, TAB, answering, beating
from tests.agent.nodered.support import ask, fails, flow_of, own, with_driver
from tests.e2e.conftest import until

pytestmark = [pytest.mark.xdist_group("nodered"), pytest.mark.slow]

BEAT = {item["id"] for item in beating()}


@pytest.fixture
def busy(nodered: NodeRed) -> NodeRed:
    """Node-RED with a tab in it that counts."""
    nodered.write([*OWN, *beating()], "full")
    until(lambda: beat(nodered)[1] > 0, 5)
    return nodered


def flow(text="one", **more):
    return {"id": "f", "name": f"says {text}", **answering(text, **more)}


def beat(nodered):
    """`(since when, how often)` the person's tab has counted; Node-RED answers a deployment before all has started."""
    told = json.loads(until(lambda: nodered.ask("/beat"), 5))
    return told["born"], told["beats"]


def beating_objects(nodered):
    return [item for item in nodered.read()["flows"] if item["id"] in BEAT]


def test_a_flow_is_created_started_changed_and_deleted_and_nothing_beside_it_restarts(busy, tmp_path):
    before, (born, beats) = own(busy), beat(busy)
    strangers = beating_objects(busy)

    async def work(driver):
        assert await ask(driver, "create_flow", flow=flow()) == {"flow_id": "f", "status": "created"}
        assert busy.objects()[tab_id("f")]["disabled"] is True
        assert busy.ask("/flow") is None
        assert await ask(driver, "create_flow", flow=flow()) == {"flow_id": "f", "status": "created"}
        assert (await ask(driver, "start_flow", flow_id="f"))["status"] == "started"
        assert busy.ask("/flow") == "one"
        assert (await ask(driver, "update_flow", flow_id="f", flow=flow("two")))["status"] == "updated"
        assert (busy.ask("/flow"), busy.ask("/own")) == ("two", "own")
        told = (await ask(driver, "get_flow", flow_id="f"))["flow"]
        assert (told["definition"], told["name"], told["status"]) == (answering("two"), "says two", "running")
        assert (told["managed"], told["drift"], told["version"]) == (True, False, None)
        assert (await ask(driver, "stop_flow", flow_id="f"))["status"] == "stopped"
        assert busy.ask("/flow") is None
        assert (await ask(driver, "update_flow", flow_id="f", flow=flow("three")))["status"] == "updated"
        assert busy.ask("/flow") is None
        assert (await ask(driver, "start_flow", flow_id="f"))["status"] == "started"
        assert busy.ask("/flow") == "three"
        assert (await ask(driver, "delete_flow", flow_id="f"))["status"] == "deleted"
        assert busy.ask("/flow") is None

    with_driver(busy, tmp_path, work)
    assert (own(busy), beating_objects(busy)) == (before, strangers)
    assert set(busy.objects()) == {item["id"] for item in OWN} | BEAT
    assert beat(busy)[0] == born
    assert beat(busy)[1] > beats
    busy.write(busy.read()["flows"], "full")
    until(lambda: beat(busy)[0] != born, 5)  # this is how a restart would have shown


def test_a_change_that_does_not_start_puts_the_old_flow_back(busy, tmp_path):
    async def work(driver):
        await ask(driver, "create_flow", flow=flow())
        await ask(driver, "start_flow", flow_id="f")
        there, born = busy.objects(), beat(busy)[0]
        broken = flow("two", initialize="throw new Error('no pump')")
        assert "no pump" in await fails("START_FAILED", ask(driver, "update_flow", flow_id="f", flow=broken))
        assert (busy.ask("/flow"), busy.objects(), beat(busy)[0]) == ("one", there, born)
        assert (await flow_of(driver, "f"))["name"] == "says one"
        await ask(driver, "stop_flow", flow_id="f")
        await ask(driver, "update_flow", flow_id="f", flow=broken)  # it does not run, and so throws nothing
        assert "no pump" in await fails("START_FAILED", ask(driver, "start_flow", flow_id="f"))
        assert ((await flow_of(driver, "f"))["status"], busy.ask("/flow")) == ("stopped", None)

    with_driver(busy, tmp_path, work)


def test_what_is_not_there_or_not_the_clouds_is_refused_in_words(nodered, tmp_path):
    rev, before = nodered.read()["rev"], own(nodered)

    async def work(driver):
        for action in ("get_flow", "start_flow", "stop_flow", "delete_flow"):
            await fails("FLOW_NOT_FOUND", ask(driver, action, flow_id="nobody"))
        await fails("FLOW_NOT_FOUND", ask(driver, "update_flow", flow_id="nobody", flow=flow()))
        for call in (
            ask(driver, "update_flow", flow_id=TAB, flow=answering("mine")),
            ask(driver, "delete_flow", flow_id=TAB),
            ask(driver, "remove_flow", flow_id=TAB),
        ):
            assert "change it there" in await fails("INVALID_FLOW", call)
        assert "exists" in await fails("INVALID_FLOW", ask(driver, "create_flow", flow={**flow(), "id": TAB}))
        assert (await ask(driver, "remove_flow", flow_id="nobody"))["status"] == "removed"

    with_driver(nodered, tmp_path, work)
    assert (nodered.read()["rev"], own(nodered)) == (rev, before)


UNFIT = {
    "wired to nowhere": ("INVALID_FLOW", {"nodes": [{"id": "a", "type": "inject", "wires": [["b"]]}]}),
    "of an unknown type": ("UNSUPPORTED_NODE_TYPE", {"nodes": [{"id": "a", "type": "modbus-read", "x": 1, "y": 1}]}),
    "no list": ("INVALID_FLOW", {"nodes": 1}),
    "a second tab": ("INVALID_FLOW", {"nodes": [{"id": "a", "type": "tab"}]}),
    "beyond 64 bits": ("INVALID_FLOW", {"nodes": [], "config": {"big": 2**70}}),
}


@pytest.mark.parametrize("name", UNFIT)
def test_what_could_never_run_is_refused_before_anything_is_sent(nodered, tmp_path, name):
    code, unfit = UNFIT[name]

    async def work(driver):
        await ask(driver, "create_flow", flow=flow())
        rev = nodered.read()["rev"]
        await fails(code, ask(driver, "create_flow", flow={"id": "g", **unfit}))
        await fails(code, ask(driver, "update_flow", flow_id="f", flow=unfit))
        await fails("INVALID_FLOW", ask(driver, "create_flow", flow=flow("two")))
        assert nodered.read()["rev"] == rev
        assert (await flow_of(driver, "f"))["name"] == "says one"

    with_driver(nodered, tmp_path, work)


def pressing_deploy(nodered, driver, times):
    """Somebody presses *Deploy* between the reading and the sending, so often; the ids of what they add."""
    send, added = driver._api.deploy, []

    async def beaten(flows, rev, kind="flows"):
        if len(added) < times:
            added.append(f"c{len(added)}")
            comment = {"id": added[-1], "type": "comment", "z": TAB, "name": "", "x": 1, "y": 1, "wires": []}
            nodered.write([*nodered.read()["flows"], comment])
        return await send(flows, rev, kind)

    driver._api.deploy = beaten
    return added


@pytest.mark.parametrize("action", ["create_flow", "update_flow", "delete_flow", "start_flow", "stop_flow"])
def test_somebody_who_deploys_at_the_same_moment_loses_nothing(nodered, tmp_path, action):
    async def work(driver):
        if action != "create_flow":
            await ask(driver, "create_flow", flow=flow())
        if action in ("update_flow", "stop_flow"):
            await ask(driver, "start_flow", flow_id="f")
        payload = {"flow": flow("two")} if action in ("create_flow", "update_flow") else {}
        added = pressing_deploy(nodered, driver, 2)
        await ask(driver, action, flow_id="f", **payload)
        assert {"c0", "c1"} == set(added) <= nodered.objects().keys()
        answers = {"update_flow": "two", "start_flow": "one"}.get(action)
        until(lambda: (nodered.ask("/flow"), nodered.ask("/own")) == (answers, "own"), 5)
        assert (await flow_of(driver, "f") is None) == (action == "delete_flow")

    with_driver(nodered, tmp_path, work)


def test_somebody_who_deploys_all_the_time_is_told_and_nothing_is_undone(nodered, tmp_path):
    """As nothing was sent, nothing is brought back: not over what that person has done to the flow meanwhile."""

    async def work(driver):
        await ask(driver, "create_flow", flow=flow())
        await ask(driver, "start_flow", flow_id="f")
        added = pressing_deploy(nodered, driver, 8)
        changing = asyncio.create_task(fails("START_FAILED", ask(driver, "update_flow", flow_id="f", flow=flow("two"))))
        while not added:
            await asyncio.sleep(0.01)
        node = next(one for one in nodered.objects().values() if one["type"] == "function" and one.get("x") == 300)
        nodered.change(node["id"], func="msg.payload = 'by hand'; return msg;")
        assert "all the time" in await changing
        assert set(added) <= nodered.objects().keys()
        assert nodered.ask("/flow") == "by hand"
        told = await flow_of(driver, "f")
        assert (told["name"], told["drift"], told["status"]) == ("says one", True, "running")
        assert "all the time" in await fails("INTERNAL_ERROR", still_pressing(driver, "delete_flow"))
        assert nodered.ask("/flow") == "by hand"

    async def still_pressing(driver, action):
        pressing_deploy(nodered, driver, 8)
        await ask(driver, action, flow_id="f")

    with_driver(nodered, tmp_path, work)


def test_a_flow_gets_another_name_without_a_restart_and_keeps_it_where_none_is_given(busy, tmp_path):
    async def work(driver):
        counting = {"id": "f", "name": "first", **answering("x", func=COUNT)}
        await ask(driver, "create_flow", flow=counting)
        await ask(driver, "start_flow", flow_id="f")
        assert [busy.http.get("/flow").headers["count"] for _ in range(2)] == ["1", "2"]
        await ask(driver, "update_flow", flow_id="f", flow={**counting, "name": "second"})
        assert busy.objects()[tab_id("f")]["label"] == "second"
        assert busy.http.get("/flow").headers["count"] == "3"
        await ask(driver, "update_flow", flow_id="f", flow={"definition": answering("y")})
        assert (busy.ask("/flow"), (await flow_of(driver, "f"))["name"]) == ("y", "second")

    with_driver(busy, tmp_path, work)


COUNT = "context.set('n', (context.get('n') || 0) + 1); msg.headers = {count: String(context.get('n'))};"
