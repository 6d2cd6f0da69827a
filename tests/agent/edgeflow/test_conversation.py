"""Every action of the tunnel's protocol through the EdgeFlow driver: cloud, agent and runtime on real sockets."""

import asyncio

from agent.commands import ACTIONS
from agent.drivers.choice import RuntimeOptions
from agent.drivers.edgeflow import EdgeFlowDriver
from agent.settings import Settings
from tests.agent.cloud import Cloud
from tests.agent.edgeflow.runtime import TYPES, Runtime
from tests.agent.edgeflow.support import flow, order
from tests.agent.support import Conversation, device_on, payload, until
from tests.agent.test_report import SOON
from tests.agent.test_run import end, start


def test_every_action_of_the_protocol(tmp_path):
    async def run():
        async with asyncio.timeout(20), Cloud() as cloud, Runtime() as runtime:
            driver = EdgeFlowDriver(RuntimeOptions(tmp_path, runtime.url))
            await driver.open()
            async with device_on(cloud, driver, options=SOON, settings=Settings()):
                link = await cloud.link()
                shadow = cloud.shadow("device-1")
                await until(lambda: shadow["reported"].get("online"))
                assert shadow["reported"]["node_types"] == sorted(TYPES)
                talk = Conversation(link)
                ask, fails = talk.ask, talk.fails

                assert (await ask("deploy_flow", **payload(order())))["status"] == "installed"
                assert (await ask("deploy_flow", **payload(order())))["status"] == "already_installed"
                await until(lambda: "flow-1" in shadow["reported"]["flows"])
                told = {"hash": order().content_hash, "version": 1, "status": "running", "errors": 0, "restarts": 0}
                assert shadow["reported"]["flows"] == {"flow-1": told}
                await fails("deploy_flow", "START_FAILED", **payload(order(flow(2, fail=True), 2)))
                assert runtime.markers() == [1]
                assert [one["id"] for one in (await ask("list_flows"))["flows"]] == ["flow-1"]
                assert (await ask("get_flow", flow_id="flow-1"))["flow"]["definition"]["nodes"] == flow()["nodes"]
                assert (await ask("stop_flow", flow_id="flow-1"))["status"] == "stopped"
                assert (await ask("start_flow", flow_id="flow-1"))["status"] == "started"
                assert (await ask("start_flow", flow_id="flow-1"))["status"] == "already_running"
                made = (await ask("create_flow", flow=flow("made"), flow_id="flow-2"))["flow_id"]
                assert (await ask("create_flow", flow=flow("made"), flow_id="flow-2"))["status"] == "created"
                await fails("create_flow", "INVALID_FLOW", flow=flow("other"), flow_id="flow-2")
                await ask("start_flow", flow_id=made)
                await ask("update_flow", flow_id=made, flow=flow("changed"))
                assert sorted(map(str, runtime.markers())) == ["1", "changed"]
                await ask("delete_flow", flow_id=made)
                await fails("delete_flow", "FLOW_NOT_FOUND", flow_id=made)
                assert (await ask("health_check"))["runtime"]["running"] is True
                assert (await ask("get_system_metrics"))["hostname"] == "pi"
                assert (await ask("get_gpio_state"))["pins"][0]["pin"] == 4
                assert {one["type"] for one in (await ask("get_node_types"))["node_types"]} == set(TYPES)
                assert "flow-1" in {one["flow_id"] for one in (await ask("get_executions"))["executions"]}
                assert (await ask("configure", settings={"heartbeat_interval": 5}))["settings"]
                assert (await ask("get_shadow"))["reported"]["online"] is True
                assert (await ask("update_desired", desired={}))["delta"] == {}
                assert (await ask("remove_flow", flow_id="flow-1"))["status"] == "removed"
                assert (await ask("remove_flow", flow_id="flow-1"))["status"] == "removed"
                assert runtime.stored == {}
                assert talk.done == set(ACTIONS)
                await runtime.down()
                assert "cannot be reached" in await fails("list_flows", "RUNTIME_UNAVAILABLE")
                assert (await ask("health_check"))["status"] == "unhealthy"
            await driver.close()

    asyncio.run(run())


def test_a_change_by_hand_and_a_restart_of_the_runtime_are_reported(tmp_path):
    async def run():
        async with asyncio.timeout(20), Cloud() as cloud, Runtime() as runtime:
            driver = EdgeFlowDriver(RuntimeOptions(tmp_path, runtime.url))
            await driver.open()
            async with device_on(cloud, driver, options=SOON):
                link = await cloud.link()
                flows = lambda: cloud.shadow("device-1")["reported"].get("flows", {})  # noqa: E731
                await link.ask("deploy_flow", payload(order()))
                await until(lambda: flows().get("flow-1", {}).get("hash") == order().content_hash)
                (runtime_id,) = runtime.stored
                runtime.edit(runtime_id, nodes=flow("by hand")["nodes"])
                await until(lambda: flows()["flow-1"]["hash"] != order().content_hash)
                runtime.edit(runtime_id, nodes=flow()["nodes"])
                await until(lambda: flows()["flow-1"]["hash"] == order().content_hash)
                await runtime.down()
                await until(lambda: flows()["flow-1"]["status"] == "error")
                assert "hash" not in flows()["flow-1"]
                await runtime.up()
                await until(lambda: flows()["flow-1"]["restarts"] == 1)
                assert flows()["flow-1"]["status"] == "running"
            await driver.close()

    asyncio.run(run())


def test_the_program_drives_a_runtime(tmp_path):
    async def run():
        async with asyncio.timeout(20), Cloud(codes={"c": "device-1"}) as cloud, Runtime(token="efk_1") as runtime:
            token = tmp_path / "token"
            token.write_text("efk_1")
            where = ["--state-dir", tmp_path / "s", "--runtime-url", runtime.url, "--runtime-token-file", token]
            process = await start("run", "--url", cloud.url, "--provisioning-code", "c", "--driver", "edgeflow", *where)
            link = await cloud.link(seconds=10)
            answer = await link.ask("deploy_flow", payload(order()))
            assert answer["data"]["status"] == "installed"
            assert runtime.markers() == [1]
            await end(process)
            assert process.returncode == 0
            assert runtime.markers() == [1]

    asyncio.run(run())
