"""Installing flows: all or nothing, again after a restart, the same hash once."""

import asyncio
import json
import stat

import pytest

from agent import storage
from agent.drivers.base import Deployment
from agent.drivers.local import LocalDriver
from agent.drivers.simulated import Behaviour, SimulatedDriver
from agent.protocol import CommandError
from tests.agent.support import counting_flow, until


def order(version, flow=None, start=True, flow_id="flow-1"):
    return Deployment(flow_id, version, f"hash-{version}", flow or counting_flow(f"'v{version}'"), start)


def with_driver(folder, work):
    """Open a local driver on a folder, do `work`, close it as a restart would."""

    async def run():
        driver = LocalDriver(folder)
        await driver.open()
        try:
            return await work(driver)
        finally:
            await driver.close()

    return asyncio.run(run())


async def shows(driver, text):
    await until(lambda: text in driver.debug_lines("flow-1"))


def test_a_flow_survives_a_restart_and_runs_again(tmp_path):
    async def first(driver):
        assert await driver.deploy(order(1)) == "installed"
        await shows(driver, "v1")

    async def second(driver):
        await shows(driver, "v1")
        assert await driver.deploy(order(1)) == "already_installed"
        assert await driver.stop("flow-1") == "stopped"

    async def third(driver):
        assert [flow["status"] for flow in await driver.list_flows()] == ["stopped"]
        assert await driver.start("flow-1") == "started"
        assert await driver.start("flow-1") == "already_running"
        assert await driver.remove("flow-1") is True
        assert await driver.remove("flow-1") is False

    async def fourth(driver):
        assert await driver.list_flows() == []

    for work in (first, second, third, fourth):
        with_driver(tmp_path / "flows", work)


def test_a_start_that_fails_brings_the_old_flow_back(tmp_path):
    async def work(driver):
        await driver.deploy(order(1))
        with pytest.raises(CommandError) as caught:
            await driver.deploy(order(2, counting_flow("1 / 0")))
        assert caught.value.code == "START_FAILED"
        flow = await driver.get_flow("flow-1")
        assert (flow["version"], flow["status"]) == (1, "running")
        await shows(driver, "v1")

    with_driver(tmp_path, work)
    assert json.loads((tmp_path / "flow-1.json").read_text())["version"] == 1


def test_a_disk_that_is_full_brings_the_old_flow_back(tmp_path, monkeypatch):
    async def work(driver):
        await driver.deploy(order(1))
        with monkeypatch.context() as broken:
            broken.setattr(storage.os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
            with pytest.raises(CommandError, match="No space left"):
                await driver.deploy(order(2))
        await shows(driver, "v1")
        assert "v2" not in driver.debug_lines("flow-1")[-1:]
        assert await driver.deploy(order(2)) == "installed"
        await shows(driver, "v2")

    with_driver(tmp_path, work)
    assert [path.name for path in tmp_path.iterdir()] == ["flow-1.json"]


def test_a_first_flow_that_fails_leaves_nothing(tmp_path):
    async def work(driver):
        with pytest.raises(CommandError, match="division by zero"):
            await driver.deploy(order(1, counting_flow("1 / 0")))
        assert await driver.list_flows() == []

    with_driver(tmp_path, work)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("flow", "code"),
    [
        ({"nodes": [{"id": "a", "type": "modbus"}]}, "UNSUPPORTED_NODE_TYPE"),
        ({"nodes": [{"id": "a", "type": "function", "config": {"expression": "open('x')"}}]}, "INVALID_FLOW"),
        ({"nodes": "none"}, "INVALID_FLOW"),
    ],
)
def test_a_flow_that_can_never_run_is_refused_while_the_old_one_goes_on(tmp_path, flow, code):
    async def work(driver):
        await driver.deploy(order(1))
        engine = driver._engines["flow-1"]
        with pytest.raises(CommandError) as caught:
            await driver.deploy(order(2, flow))
        assert caught.value.code == code
        assert driver._engines["flow-1"] is engine

    with_driver(tmp_path, work)


def test_a_damaged_file_keeps_no_other_flow_from_running(tmp_path):
    async def first(driver):
        await driver.deploy(order(1))

    async def second(driver):
        assert [flow["id"] for flow in await driver.list_flows()] == ["flow-1"]
        await shows(driver, "v1")

    with_driver(tmp_path, first)
    (tmp_path / "aaa.json").write_text('{"flow_id": "half a fi')
    with_driver(tmp_path, second)


def test_a_flow_id_is_never_a_path(tmp_path):
    async def work(driver):
        await driver.deploy(order(1, flow_id="../../escape"))
        assert [flow["id"] for flow in await driver.list_flows()] == ["../../escape"]

    with_driver(tmp_path / "deep" / "flows", work)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert [path.parent for path in files] == [tmp_path / "deep" / "flows"]
    assert stat.S_IMODE(files[0].stat().st_mode) == 0o600


def test_installing_without_starting(tmp_path):
    async def work(driver):
        assert await driver.deploy(order(1, start=False)) == "installed"
        assert [flow["status"] for flow in await driver.list_flows()] == ["stopped"]
        assert await driver.deploy(order(1, start=False)) == "already_installed"
        assert await driver.deploy(order(1)) == "installed"
        await shows(driver, "v1")

    with_driver(tmp_path, work)


def test_a_simulated_device_fails_as_often_as_asked_and_keeps_the_old_flow():
    async def run():
        behaviour = Behaviour()
        driver = SimulatedDriver("demo-001", behaviour)
        await driver.deploy(order(1))
        behaviour.failure_rate = 1.0
        with pytest.raises(CommandError, match="simulated failure"):
            await driver.deploy(order(2))
        flow = await driver.get_flow("flow-1")
        assert (flow["version"], flow["status"]) == (1, "running")
        behaviour.failure_rate, behaviour.node_types = 0.0, frozenset({"inject"})
        with pytest.raises(CommandError, match="debug") as caught:
            await driver.deploy(order(3))
        assert caught.value.code == "UNSUPPORTED_NODE_TYPE"

    asyncio.run(run())
