"""Every action of the tunnel's protocol through the Node-RED driver: cloud, agent, a real Node-RED on real sockets."""

import asyncio

import pytest

from agent.commands import ACTIONS
from agent.drivers.choice import RuntimeOptions
from agent.drivers.nodered import NodeRedDriver
from agent.settings import Settings
from tests.agent.cloud import Cloud
from tests.agent.nodered.samples import TAB, answering, order
from tests.agent.support import Conversation, device_on, payload, until
from tests.agent.test_report import SOON

pytestmark = [pytest.mark.xdist_group("nodered"), pytest.mark.slow]


def test_every_action_of_the_protocol(nodered, tmp_path):
    async def run():
        async with asyncio.timeout(40), Cloud() as cloud:
            driver = NodeRedDriver(RuntimeOptions(tmp_path, nodered.url), settle=0.3)
            await driver.open()
            async with device_on(cloud, driver, options=SOON, settings=Settings()):
                link = await cloud.link()
                shadow = cloud.shadow("device-1")
                await until(lambda: shadow["reported"].get("online"))
                assert {"inject", "http in", "group"} <= set(shadow["reported"]["node_types"])
                talk = Conversation(link)
                ask, fails = talk.ask, talk.fails

                seen = {"id": "show", "type": "debug", "config": {"active": True, "tosidebar": True}}
                first = answering("one")
                first["nodes"].append(seen)
                first["connections"].append({"source": "work", "target": "show"})
                assert (await ask("deploy_flow", **payload(order(first))))["status"] == "installed"
                assert (await ask("deploy_flow", **payload(order(first))))["status"] == "already_installed"
                assert nodered.ask("/flow") == "one"
                await until(lambda: "flow-1" in shadow["reported"]["flows"])
                told = {"hash": order(first).content_hash, "version": 1, "status": "running"}
                assert shadow["reported"]["flows"] == {"flow-1": {**told, "errors": 0, "restarts": 0}}
                broken = answering("two", initialize="throw new Error('no pump')")
                assert "no pump" in await fails("deploy_flow", "START_FAILED", **payload(order(broken, 2)))
                assert nodered.ask("/flow") == "one"
                assert [one["id"] for one in (await ask("list_flows"))["flows"]] == ["flow-1", TAB]
                assert (await ask("get_flow", flow_id="flow-1"))["flow"]["definition"] == first
                assert (await ask("stop_flow", flow_id="flow-1"))["status"] == "stopped"
                assert (await ask("start_flow", flow_id="flow-1"))["status"] == "started"
                assert (await ask("start_flow", flow_id="flow-1"))["status"] == "already_running"
                made = (await ask("create_flow", flow={"name": "made", **answering("made", "/made")}))["flow_id"]
                assert nodered.ask("/made") is None
                await ask("start_flow", flow_id=made)
                assert nodered.ask("/made") == "made"
                await ask("update_flow", flow_id=made, flow=answering("changed", "/made"))
                assert (nodered.ask("/made"), nodered.ask("/flow"), nodered.ask("/own")) == ("changed", "one", "own")
                await ask("delete_flow", flow_id=made)
                assert nodered.ask("/made") is None
                await fails("delete_flow", "FLOW_NOT_FOUND", flow_id=made)
                runtime = (await ask("health_check"))["runtime"]
                assert (runtime["name"], runtime["version"]) == ("Node-RED", "4.1.15")
                assert (runtime["running"], runtime["events"]) == (True, "connected")
                assert (await ask("get_system_metrics"))["memory"]["total_bytes"] > 0
                assert "pins" in await fails("get_gpio_state", "UNKNOWN_ACTION")
                types = {one["type"]: one for one in (await ask("get_node_types"))["node_types"]}
                assert types["inject"]["module"] == "node-red"
                newest = (await ask("get_executions"))["executions"][0]
                assert (newest["flow_id"], newest["trigger"], newest["status"]) == ("flow-1", "show", "succeeded")
                assert (await ask("configure", settings={"heartbeat_interval": 5}))["settings"]
                assert (await ask("get_shadow"))["reported"]["online"] is True
                assert (await ask("update_desired", desired={}))["delta"] == {}
                assert (await ask("remove_flow", flow_id="flow-1"))["status"] == "removed"
                assert (await ask("remove_flow", flow_id="flow-1"))["status"] == "removed"
                assert (nodered.ask("/flow"), nodered.ask("/own")) == (None, "own")
                assert talk.done == set(ACTIONS) - {"get_gpio_state"}  # which has failed above, as it must
            await driver.close()

    asyncio.run(run())


def test_the_flows_figures_and_debug_messages_are_telemetry(nodered, tmp_path):
    async def run():
        async with asyncio.timeout(40), Cloud().accept_telemetry() as cloud:
            driver = NodeRedDriver(RuntimeOptions(tmp_path, nodered.url), settle=0.3)
            await driver.open()
            settings = Settings()
            settings.apply({"telemetry_interval": 1})
            async with device_on(cloud, driver, options=SOON, settings=settings):
                link = await cloud.link()
                definition = answering("one")
                definition["nodes"].append(
                    {"id": "show", "type": "debug", "config": {"active": True, "tosidebar": True}}
                )
                definition["connections"].append({"source": "work", "target": "show"})
                await link.ask("deploy_flow", payload(order(definition)))
                assert nodered.ask("/flow") == "one"
                await until(lambda: any(line[2] == "show: one" for line in cloud.lines), 10)
                shown = "flow.flow-1.debug_messages"
                await until(lambda: sum(value for name, _, value, *_ in cloud.points if name == shown) == 1, 10)
                assert {"memory.percent", "flow.flow-1.errors"} <= {point[0] for point in cloud.points}
            await driver.close()

    asyncio.run(run())
