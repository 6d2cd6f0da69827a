"""What a device reports of what runs on it: at connect, after changes, bounded, and nothing twice."""

import asyncio
import json
import random

import pytest

from agent import report
from agent.commands import definition_of
from agent.content import content_hash
from agent.device import Options
from agent.drivers.base import Deployment
from agent.drivers.local import LocalDriver
from agent.drivers.simulated import Behaviour, SimulatedDriver
from agent.protocol import CommandError
from agent.report import Reports, Rounds, difference
from app.devices import bounds
from app.flows import definition as cloud_definition
from tests.agent.cloud import Cloud, merged
from tests.agent.support import QUICK, counting_flow, deployment, device_on, until

SOON = Options(grace=1.0, waits=QUICK.waits, report_interval=0.1)


def in_cloud(work):
    async def run():
        async with asyncio.timeout(20), Cloud() as cloud:
            await work(cloud)

    asyncio.run(run())


def puts(cloud):
    return [body["reported"] for method, _, body in cloud.rest_calls if method == "PUT"]


def test_the_agent_hashes_as_the_cloud_does():
    definition = {
        "nodes": [{"id": "ü", "type": "inject", "x": 100.0, "config": {"interval": 0.1, "b": -0.0, "a": [1e2, True]}}],
        "connections": [],
        "config": {"z": None, "a": {}},
    }
    expected = cloud_definition.content_hash(definition)
    assert content_hash({**definition, "id": "flow-1", "name": "told apart"}) == expected
    assert content_hash({**definition, "config": {}}) != expected
    assert content_hash({"nodes": [{"n": 2**70}]}) is None


def test_what_runs_is_reported_with_the_first_put_and_after_changes_only():
    async def work(cloud):
        shadow = cloud.shadow("device-1")
        driver = SimulatedDriver("test", Behaviour(node_types=frozenset({"inject", "debug"})))
        async with device_on(cloud, driver, options=SOON) as device:
            link = await cloud.link()
            await until(lambda: shadow["version"] == 2)
            assert (shadow["reported"]["node_types"], shadow["reported"]["flows"]) == (["debug", "inject"], {})
            await link.ask("deploy_flow", deployment())
            await until(lambda: shadow["reported"]["flows"])
            expected = {"hash": "hash-1", "version": 1, "status": "running", "errors": 0, "restarts": 0}
            assert shadow["reported"]["flows"] == {"flow-1": expected}
            await link.ask("deploy_flow", deployment())
            await link.ask("list_flows")
            await asyncio.sleep(0.4)
            assert [set(put) for put in puts(cloud)][1:] == [{"flows"}]
            device.cut()
            await until(lambda: shadow["version"] == 4)
            assert set(puts(cloud)[-1]) == {"online", "agent_version", "last_updated"}
            await (await cloud.link(nth=2)).ask("remove_flow", {"flow_id": "flow-1"})
            await until(lambda: shadow["reported"]["flows"] == {})

    in_cloud(work)


def test_a_flow_that_was_changed_at_the_device_shows_and_is_installed_again():
    async def work(cloud):
        shadow = cloud.shadow("device-1")
        driver = SimulatedDriver("test", Behaviour())
        async with device_on(cloud, driver, options=SOON) as device:
            link = await cloud.link()
            await link.ask("deploy_flow", deployment())
            await until(lambda: shadow["reported"].get("flows"))
            changed = counting_flow("'by hand'")
            driver.edit("flow-1", changed)
            device._rounds.changed()
            await until(lambda: shadow["reported"]["flows"]["flow-1"]["hash"] == content_hash(changed))
            read = (await link.ask("get_flow", {"flow_id": "flow-1"}))["data"]["flow"]
            assert definition_of(read)["nodes"] == changed["nodes"]
            answer = await link.ask("deploy_flow", deployment())
            assert answer["data"]["status"] == "installed"
            await until(lambda: shadow["reported"]["flows"]["flow-1"]["hash"] == "hash-1")

    in_cloud(work)


def test_errors_are_counted_since_the_flow_was_installed(tmp_path):
    """A polled device reports them by itself; a new version begins at 0."""

    async def work(cloud):
        shadow = cloud.shadow("device-1")
        driver = LocalDriver(tmp_path)
        async with device_on(cloud, driver, options=SOON):
            link = await cloud.link()
            failing = counting_flow("count", 0.02)
            failing["nodes"].insert(1, {"id": "f", "type": "function", "config": {"expression": "payload / 0"}})
            failing["nodes"][0]["wires"] = [["f"]]
            await link.ask("deploy_flow", deployment(failing))
            await until(lambda: shadow["reported"].get("flows", {}).get("flow-1", {}).get("errors", 0) > 3)
            assert "function" in shadow["reported"]["node_types"]
            answer = await link.ask("deploy_flow", deployment(version=2))
            assert answer["status"] == "success"
            await until(lambda: shadow["reported"]["flows"]["flow-1"]["version"] == 2)
            assert shadow["reported"]["flows"]["flow-1"]["errors"] == 0
            health = (await link.ask("health_check"))["data"]["runtime"]
            assert health == {"running": True, "errors": 0, "restarts": 0}

    in_cloud(work)


def test_simulated_flows_fail_as_often_as_asked():
    async def run():
        driver = SimulatedDriver("test", Behaviour(error_rate=0.5))
        assert driver.polled
        await driver.deploy(Deployment("flow-1", 1, "hash-1", counting_flow("1", 0.01)))
        await asyncio.sleep(0.3)
        errors = (await driver.running())["flow-1"]["errors"]
        assert 5 < errors < 60
        assert (await driver.flow_metrics())["flow-1"]["errors"] >= errors
        await driver.deploy(Deployment("flow-1", 2, "hash-2", counting_flow("2", 0.01)))
        assert (await driver.running())["flow-1"]["errors"] < errors

    asyncio.run(run())


def test_a_restart_of_the_agent_is_counted_and_a_file_changed_by_hand_is_noticed(tmp_path):
    async def open_and_see():
        driver = LocalDriver(tmp_path)
        await driver.open()
        try:
            return (await driver.running())["flow-1"]
        finally:
            await driver.close()

    async def first():
        driver = LocalDriver(tmp_path)
        await driver.deploy(Deployment("flow-1", 1, "hash-1", counting_flow("1")))
        await driver.close()

    asyncio.run(first())
    assert [asyncio.run(open_and_see())["restarts"] for _ in range(2)] == [1, 2]
    path = tmp_path / "flow-1.json"
    changed = counting_flow("'by hand'")
    path.write_text(json.dumps({**json.loads(path.read_text()), "flow": changed}))
    for _ in range(2):
        assert asyncio.run(open_and_see())["hash"] == content_hash(changed)


def test_many_flows_stay_within_what_the_cloud_takes_and_deployed_ones_come_first():
    told = {"hash": "f" * 64, "status": "running", "errors": 10**6, "restarts": 1000}
    flows = {f"{number:036d}": {**told, **({"version": 7} if number % 2 else {})} for number in range(1000)}
    kept = report.within(flows)
    assert 100 < len(kept) <= 200
    assert all("version" in flow for flow in kept.values())
    types = report.within_types([f"type-{number}" for number in range(400)])
    bounds.check("reported", {**types, "flows": kept})
    assert report.within_types([f"type-{number}" for number in range(501)]) == {}
    small = {str(number): {**told, "version": 1} for number in range(1000)}
    bounds.check("reported", {"flows": report.within(small)})


@pytest.mark.parametrize(
    ("before", "after", "patch"),
    [
        ({}, {}, {}),
        ({"a": {"x": 1, "y": 2}}, {"a": {"x": 1, "y": 3}}, {"a": {"y": 3}}),
        ({"a": {"x": 1}, "b": 1}, {"a": {}}, {"a": {"x": None}, "b": None}),
        ({"a": [1]}, {"a": [1, 2]}, {"a": [1, 2]}),
        ({"a": 1}, {"a": True}, {"a": True}),
        ({"a": 1}, {"a": {"x": 1}}, {"a": {"x": 1}}),
    ],
)
def test_a_difference_is_a_merge_patch(before, after, patch):
    assert difference(before, after) == patch
    assert merged(before, patch) == after


def test_a_report_that_the_cloud_refuses_keeps_nothing_else_from_it():
    async def work(cloud):
        shadow = cloud.shadow("device-1")
        cloud.unfit = "flows"
        async with device_on(cloud, options=SOON) as device:
            link = await cloud.link()
            await until(lambda: shadow["reported"].get("online"))
            await link.ask("deploy_flow", deployment())
            refusals = len(puts(cloud))
            await until(lambda: len(puts(cloud)) > refusals)
            device._rounds.changed()
            await asyncio.sleep(0.4)
            assert len(puts(cloud)) == refusals + 1
            assert "flows" not in shadow["reported"]

    in_cloud(work)


def test_a_report_that_was_given_up_is_tried_again():
    async def work(cloud):
        shadow = cloud.shadow("device-1")
        async with device_on(cloud, options=SOON) as device:
            link = await cloud.link()
            await until(lambda: shadow["version"] == 2)
            device._shadow.retry = type(device._shadow.retry)(tries=1)
            cloud.rest_failures = [503]
            asked = len(puts(cloud))
            await link.ask("deploy_flow", deployment())
            await until(lambda: shadow["reported"].get("flows", {}).get("flow-1"))
            assert cloud.rest_failures == []
            assert len(puts(cloud)) - asked >= 2

    in_cloud(work)


def test_a_runtime_that_cannot_be_asked_keeps_nobody_from_being_online():
    class Silent(SimulatedDriver):
        async def running(self):
            raise CommandError("RUNTIME_UNAVAILABLE", "it does not answer")

    async def work(cloud):
        shadow = cloud.shadow("device-1")
        async with device_on(cloud, Silent("test", Behaviour()), options=SOON) as device:
            await until(lambda: shadow["reported"].get("online"))
            assert "flows" not in shadow["reported"]
            assert (await device.driver.runtime_health())["running"] is False

    in_cloud(work)


def test_a_mistake_in_a_driver_is_told_and_no_more():
    class Broken(SimulatedDriver):
        async def running(self):
            raise KeyError("flow")

    assert asyncio.run(Reports(Broken("test", Behaviour())).patch()) == {}


def test_looks_after_changes_are_spread_and_never_queue_up():
    async def run():
        loop, looks = asyncio.get_running_loop(), []
        driver, rng = SimulatedDriver("test", Behaviour()), random.Random(3)
        rounds = [Rounds(lambda: looks.append(loop.time()), lambda: 0.3, driver, rng) for _ in range(100)]
        for one in rounds:
            one.changed()
        await asyncio.sleep(0.35)
        assert looks == []
        started = loop.time()
        for one in rounds:
            one.begin()
            for _ in range(5):
                one.changed()
        await asyncio.sleep(0.4)
        assert len(looks) == 100
        early = sum(look - started < 0.15 for look in looks)
        assert 25 < early < 75
        rounds[0].changed()
        rounds[0].end()
        await asyncio.sleep(0.35)
        assert len(looks) == 100

    asyncio.run(run())


def test_the_cloud_may_set_the_interval():
    async def work(cloud):
        async with device_on(cloud) as device:
            link = await cloud.link()
            assert device._interval_of_reports() == 15
            await link.ask("configure", {"settings": {"report_interval": 60}})
            assert device._interval_of_reports() == 60
            answer = await link.ask("configure", {"settings": {"report_interval": 0}})
            assert answer["code"] == "INVALID_PAYLOAD"

    in_cloud(work)
