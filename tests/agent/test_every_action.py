"""Every action of the tunnel's protocol through the drivers that need nothing else; those of real runtimes stand in
`nodered/test_conversation.py` and `edgeflow/test_conversation.py`."""

import asyncio

import pytest

from agent.commands import ACTIONS, Context
from agent.content import content_hash
from agent.drivers.local import LocalDriver
from agent.drivers.simulated import Behaviour, SimulatedDriver
from agent.settings import Settings
from tests.agent.cloud import Cloud
from tests.agent.edgeflow.support import order, play
from tests.agent.support import counting_flow, deployment, device_on, until


def driver_of(kind, folder):
    return LocalDriver(folder) if kind == "local" else SimulatedDriver("pump", Behaviour())


@pytest.mark.parametrize("kind", ["local", "simulated"])
def test_every_action_of_the_protocol(tmp_path, kind):
    done = set()

    async def run():
        async with asyncio.timeout(20), Cloud() as cloud:
            driver = driver_of(kind, tmp_path)
            async with device_on(cloud, driver, settings=Settings()):
                link = await cloud.link()
                await until(lambda: cloud.shadow("device-1")["reported"].get("online"))

                async def ask(action, **payload):
                    done.add(action)
                    answer = await link.ask(action, payload)
                    return answer.get("data", answer.get("code"))

                assert (await ask("deploy_flow", **deployment()))["status"] == "installed"
                assert await ask("deploy_flow", **deployment({"nodes": 1}, 2)) == "INVALID_FLOW"
                assert [one["id"] for one in (await ask("list_flows"))["flows"]] == ["flow-1"]
                assert (await ask("get_flow", flow_id="flow-1"))["flow"]["definition"]["nodes"]
                assert (await ask("stop_flow", flow_id="flow-1"))["status"] == "stopped"
                assert (await ask("start_flow", flow_id="flow-1"))["status"] == "started"
                assert (await ask("create_flow", flow={"id": "mine", **counting_flow()}))["status"] == "created"
                changed = counting_flow(interval=5)
                assert (await ask("update_flow", flow_id="mine", flow=changed))["status"] == "updated"
                assert (await ask("delete_flow", flow_id="mine"))["status"] == "deleted"
                assert await ask("delete_flow", flow_id="mine") == "FLOW_NOT_FOUND"
                assert (await ask("health_check"))["flows_running"] == 1
                assert (await ask("get_system_metrics"))["memory"]["total_bytes"] > 0
                assert (await ask("get_gpio_state"))["pins"] is not None
                assert "inject" in {one["type"] for one in (await ask("get_node_types"))["node_types"]}
                while "flow-1" not in {one["flow_id"] for one in (await ask("get_executions"))["executions"]}:
                    await asyncio.sleep(0.02)
                assert (await ask("configure", settings={"heartbeat_interval": 5}))["settings"]
                assert (await ask("get_shadow"))["reported"]["online"] is True
                assert (await ask("update_desired", desired={}))["delta"] == {}
                assert (await ask("remove_flow", flow_id="flow-1"))["status"] == "removed"
                assert (await ask("list_flows"))["flows"] == []
                assert await ask("fly") == "UNKNOWN_ACTION"
            await driver.close()

    asyncio.run(run())
    assert done == {*ACTIONS, "fly"}


async def act(driver, action, **payload):
    return await ACTIONS[action].run(Context(driver, Settings(), None), payload)


async def changed_one_by_one(driver):
    """A flow of a deployment, changed as a person does over REST."""
    first = (await driver.list_flows())[0]
    assert (first["version"], first["name"]) == (1, order().flow["name"])
    content = {key: order().flow[key] for key in ("nodes", "connections")}
    await act(driver, "update_flow", flow_id="flow-1", flow={"definition": content})
    assert (await driver.list_flows())[0] == first
    await act(driver, "update_flow", flow_id="flow-1", flow={"name": "other", **content})
    assert (await driver.list_flows())[0] == {**first, "name": "other"}
    changed = {**content, "config": {"by": "hand"}}
    await act(driver, "update_flow", flow_id="flow-1", flow=changed)
    (second,) = await driver.list_flows()
    assert (second["version"], second["name"], second["status"]) == (None, "other", "running")
    assert second["content_hash"] == content_hash(changed) != first["content_hash"]


@pytest.mark.parametrize("kind", ["local", "simulated"])
def test_a_change_that_says_nothing_of_version_and_name_keeps_them(tmp_path, kind):
    async def run():
        driver = driver_of(kind, tmp_path)
        await driver.deploy(order())
        await changed_one_by_one(driver)
        await driver.close()

    asyncio.run(run())


def test_so_does_an_edgeflow_runtimes(tmp_path):
    async def work(scene):
        await scene.driver.deploy(order())
        await changed_one_by_one(scene.driver)

    play(tmp_path, work)


def test_a_flow_that_is_gone_from_the_runtime_may_be_deleted_or_written_anew(tmp_path):
    async def work(scene):
        await scene.driver.deploy(order())
        scene.runtime.stored.clear()
        scene.runtime.memory.clear()
        await act(scene.driver, "update_flow", flow_id="flow-1", flow=order(version=2).flow)
        assert scene.runtime.markers() == [2]
        scene.runtime.stored.clear()
        scene.runtime.memory.clear()
        assert (await act(scene.driver, "delete_flow", flow_id="flow-1"))["status"] == "deleted"
        assert await scene.driver.list_flows() == []

    play(tmp_path, work)
