"""What a real Node-RED tells of its flows, and what becomes of them when it, or the agent, goes and comes back."""

import asyncio

import pytest

from agent.content import content_hash
from tests.agent.nodered.instance import NodeRed
from tests.agent.nodered.samples import TAB, answering, order
from tests.agent.nodered.support import fails, flow_of, until_errors, with_driver

pytestmark = [pytest.mark.xdist_group("nodered"), pytest.mark.slow]


def test_errors_and_debug_messages_are_told_and_counted(nodered, tmp_path):
    heard = []

    async def work(driver):
        driver.listen(lambda *said: heard.append(said))
        definition = answering("one", func="if (msg.req.query.bad) { throw new Error('bad request') }")
        definition["nodes"].append({"id": "show", "type": "debug", "config": {"active": True, "tosidebar": True}})
        definition["connections"].append({"source": "work", "target": "show"})
        await driver.deploy(order(definition))
        assert nodered.ask("/flow") == "one"
        with pytest.raises(Exception, match="timed out"):
            nodered.http.get("/flow?bad=1", timeout=0.3)
        await until_errors(driver)
        assert (await driver.running())["flow-1"] | {"hash": ""} == {
            "hash": "", "version": 1, "status": "running", "errors": 1, "restarts": 0,
        }  # fmt: skip
        newest = await driver.executions()
        assert [(one["trigger"], one["status"], one["error"]) for one in newest] == [
            ("work", "failed", "Error: bad request"),
            ("show", "succeeded", None),
        ]
        assert await driver.flow_metrics() == {
            "flow-1": {"debug_messages": 1, "errors": 1},
            TAB: {"debug_messages": 0, "errors": 0},
        }

    with_driver(nodered, tmp_path, work)
    assert ("info", "show: one", {"flow_id": "flow-1", "node": "show"}) in heard
    assert ("warning", "node work: Error: bad request", {"flow_id": "flow-1", "node": "work"}) in heard


def test_node_red_and_agent_may_restart(nodered, tmp_path):
    async def first(driver):
        await driver.deploy(order(answering("one")))
        nodered.restart()
        await until_restarts(driver)
        flow = await flow_of(driver)
        assert (flow["status"], flow["restarts"], flow["drift"]) == ("running", 1, False)
        assert nodered.ask("/flow") == "one"

    async def second(driver):
        flow = await driver.get_flow("flow-1")
        assert (flow["version"], flow["drift"], flow["definition"]) == (1, False, answering("one"))
        assert await driver.deploy(order(answering("one"))) == "already_installed"

    async def without_memory(driver):
        flow = await flow_of(driver)
        assert (flow["managed"], flow["version"], flow["status"]) == (True, 1, "running")
        assert await driver.deploy(order(answering("one"))) == "installed"
        assert (await driver.get_flow("flow-1"))["definition"] == answering("one")

    with_driver(nodered, tmp_path / "a", first)
    with_driver(nodered, tmp_path / "a", second)
    with_driver(nodered, tmp_path / "b", without_memory)


async def until_restarts(driver):
    async with asyncio.timeout(15):
        while not driver._events.connected or not driver._events.drops:
            await asyncio.sleep(0.05)


def test_a_deployment_that_brings_node_red_down_is_taken_back(nodered, tmp_path):
    async def work(driver):
        await driver.deploy(order(answering("one")))
        trying = asyncio.create_task(fails("START_FAILED", driver.deploy(order(answering("two"), version=2))))
        while nodered.ask("/flow") != "two":
            await asyncio.sleep(0.02)
        await asyncio.sleep(0.3)
        nodered.stop()
        await asyncio.to_thread(nodered.start)
        assert "went down" in await trying
        assert nodered.ask("/flow") == "one"
        assert ((await flow_of(driver))["version"], (await flow_of(driver))["drift"]) == (1, False)

    with_driver(nodered, tmp_path, work, settle=3.5)


def test_flows_of_a_node_red_that_went_down_are_errors_until_it_is_back(nodered, tmp_path):
    async def work(driver):
        await driver.deploy(order(answering("one")))
        before = await driver.running()
        nodered.stop()
        assert (await driver.running())["flow-1"] | {"restarts": 0} == {
            **before["flow-1"], "hash": None, "status": "error",
        }  # fmt: skip
        assert (await driver.health())["runtime"] == {"name": "Node-RED", "running": False, "errors": 0, "restarts": 0}

    async def restarted(driver):
        assert (await driver.running())["flow-1"]["version"] == 1
        await asyncio.to_thread(nodered.start)
        told = (await driver.running())["flow-1"]
        assert (told["status"], told["hash"]) == ("running", content_hash(answering("one")))

    try:
        with_driver(nodered, tmp_path, work)
        with_driver(nodered, tmp_path, restarted)
    finally:
        nodered.restart()


def test_a_node_red_that_is_not_there_is_told(tmp_path):
    async def work(driver):
        await fails("RUNTIME_UNAVAILABLE", driver.list_flows())
        await fails("RUNTIME_UNAVAILABLE", driver.deploy(order(answering("one"))))
        health = await driver.health()
        assert (health["status"], health["runtime"]["running"]) == ("unhealthy", False)
        assert await driver.runtime_health() == {"running": False, "errors": 0, "restarts": 0}
        assert await driver.running() == {}

    class Nowhere:
        url = "http://127.0.0.1:9"

    with_driver(Nowhere, tmp_path, work)


def test_a_token_opens_a_node_red_that_wants_one(nodered_home, tmp_path):
    auth = """{ type: "credentials", tokens: async (given) =>
        given === "the-token" ? { username: "agent", permissions: "*" } : null,
        users: async (name) => ({ username: name, permissions: "*" }) }"""
    token_file = tmp_path / "token"

    async def work(driver):
        await driver.deploy(order(answering("one")))
        assert driver._events.connected
        assert guarded.ask("/flow") == "one"

    async def refused(driver):
        assert "access token" in await fails("INTERNAL_ERROR", driver.list_flows())
        assert not driver._events.connected
        token_file.unlink()
        assert "cannot be read" in await fails("INTERNAL_ERROR", driver.list_flows())

    with NodeRed(nodered_home, tmp_path / "guarded", auth, "the-token") as guarded:
        token_file.write_text("the-token\n")
        with_driver(guarded, tmp_path, work, token_file=token_file)
        token_file.write_text("another\n")
        with_driver(guarded, tmp_path, refused, token_file=token_file)
