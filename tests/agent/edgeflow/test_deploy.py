"""Deploying to the EdgeFlow runtime: all or nothing, whatever the runtime does in between."""

import asyncio

import pytest

from agent import storage
from agent.protocol import CommandError
from tests.agent.edgeflow.support import flow, order, play


async def refused(call, code):
    with pytest.raises(CommandError) as caught:
        await call
    assert caught.value.code == code, str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("forgets", [True, False])
def test_a_flow_is_installed_exchanged_and_known_again(tmp_path, forgets):
    async def work(scene):
        assert await scene.driver.deploy(order()) == "installed"
        assert scene.runtime.markers() == [1]
        assert scene.runtime.running()[0]["connections"] == [("every", "show")]
        calls = len(scene.runtime.calls)
        assert await scene.driver.deploy(order()) == "already_installed"
        assert {call.split()[0] for call in scene.runtime.calls[calls:]} == {"GET"}
        assert await scene.driver.deploy(order(version=2)) == "installed"
        assert scene.runtime.markers() == [2]
        assert len(scene.runtime.stored) == 1
        await scene.reopen()
        assert await scene.driver.deploy(order(version=2)) == "already_installed"
        found = await scene.only()
        expected = {"id": "flow-1", "status": "running", "version": 2, "content_hash": order(version=2).content_hash}
        assert found | expected == found
        assert (await scene.driver.get_flow("flow-1"))["definition"]["nodes"] == flow(2)["nodes"]

    play(tmp_path, work, forgets=forgets)


def test_the_same_content_as_another_version_is_already_there(tmp_path):
    async def work(scene):
        await scene.driver.deploy(order(flow("same"), 1))
        assert await scene.driver.deploy(order(flow("same"), 5)) == "already_installed"
        await scene.reopen()
        assert (await scene.only())["version"] == 5

    play(tmp_path, work)


@pytest.mark.parametrize(
    ("content", "code"),
    [
        ({"nodes": [{"id": "a", "type": "modbus"}]}, "UNSUPPORTED_NODE_TYPE"),
        ({"nodes": "none"}, "INVALID_FLOW"),
        ({"nodes": [{"id": "a", "type": "debug"}], "connections": [{"source": "a", "target": "b"}]}, "INVALID_FLOW"),
    ],
)
def test_what_can_never_run_touches_nothing(tmp_path, content, code):
    async def work(scene):
        await scene.driver.deploy(order())
        scene.runtime.calls.clear()
        await refused(scene.driver.deploy(order(content, 2)), code)
        assert {call.split()[0] for call in scene.runtime.calls} <= {"GET"}
        assert scene.runtime.markers() == [1]

    play(tmp_path, work)


def test_a_start_that_fails_brings_back_what_ran(tmp_path):
    async def work(scene):
        await scene.driver.deploy(order())
        text = await refused(scene.driver.deploy(order(flow(2, fail=True), 2)), "START_FAILED")
        assert "boom" in text
        assert scene.runtime.markers() == [1]
        assert len(scene.runtime.stored) == 1
        found = await scene.only()
        assert (found["version"], found["status"], found["error"]) == (1, "running", None)
        assert await scene.driver.deploy(order()) == "already_installed"
        assert any(level == "error" and "was not installed" in text for level, text in scene.heard)

    play(tmp_path, work)


def test_what_did_not_run_before_does_not_run_after_a_failure(tmp_path):
    async def work(scene):
        await scene.driver.deploy(order())
        await scene.driver.stop("flow-1")
        await refused(scene.driver.deploy(order(flow(2, fail=True), 2)), "START_FAILED")
        assert scene.runtime.running() == []
        assert (await scene.only())["version"] == 1

    play(tmp_path, work)


def test_a_first_flow_that_fails_leaves_nothing(tmp_path):
    async def work(scene):
        await refused(scene.driver.deploy(order(flow(1, fail=True))), "START_FAILED")
        assert scene.runtime.stored == {}
        assert await scene.driver.list_flows() == []

    play(tmp_path, work)
    assert list(tmp_path.rglob("*.json")) == []


ON_THE_WAY = [
    ("POST", "/flows"),
    ("PUT", ""),
    ("POST", "/stop"),
    ("POST", "/start"),
    ("DELETE", ""),
    ("GET", "/flows"),
    ("GET", ""),
]


@pytest.mark.parametrize("what", ["lose", "cut"])
@pytest.mark.parametrize(("method", "end"), ON_THE_WAY)
def test_one_lost_answer_costs_nothing_but_a_moment(tmp_path, what, method, end):
    """Created, stored, started or deleted, and nobody told; or never arrived. A start that never arrived has failed."""

    async def work(scene):
        await scene.driver.deploy(order())
        scene.runtime.faults = [(what, method, end)]
        if (what, end) == ("cut", "/start"):
            await refused(scene.driver.deploy(order(version=2)), "START_FAILED")
            expected = 1
        else:
            assert await scene.driver.deploy(order(version=2)) == "installed"
            expected = 2
        assert scene.runtime.faults == []
        assert scene.runtime.markers() == [expected]
        assert len(scene.runtime.stored) == 1

    play(tmp_path, work)


@pytest.mark.parametrize("forgets", [True, False])
def test_an_update_that_was_stored_by_half_is_noticed(tmp_path, forgets):
    async def work(scene):
        await scene.driver.deploy(order())
        scene.runtime.faults = [("half", "PUT", "")]
        assert await scene.driver.deploy(order(version=2)) == "installed"
        assert scene.runtime.running()[0]["connections"] == [("every", "show")]

    play(tmp_path, work, forgets=forgets)


def test_an_update_that_is_never_stored_whole_leaves_the_old_flow_running_all_the_time(tmp_path):
    async def work(scene):
        await scene.driver.deploy(order())
        (before,) = scene.runtime.memory
        scene.runtime.faults = [("half", "PUT", ""), ("half", "PUT", "")]
        text = await refused(scene.driver.deploy(order(version=2)), "START_FAILED")
        assert "did not store the flow as it was sent" in text
        assert scene.runtime.markers() == [1]
        assert scene.runtime.count(f"POST /flows/{before}/stop") == 1  # at its own making
        assert len(scene.runtime.stored) == 1

    play(tmp_path, work)


@pytest.mark.parametrize("status", [500, 503])
@pytest.mark.parametrize(("method", "end"), [("POST", "/flows"), ("PUT", ""), ("POST", "/start")])
def test_a_runtime_that_says_no_changes_nothing(tmp_path, status, method, end):
    async def work(scene):
        await scene.driver.deploy(order())
        scene.runtime.faults = [(status, method, end)] * 5
        with pytest.raises(CommandError):
            await scene.driver.deploy(order(version=2))
        scene.runtime.faults = []
        await scene.driver.running()
        assert scene.runtime.markers() == [1]
        assert len(scene.runtime.stored) == 1

    play(tmp_path, work)


def test_a_full_disk_brings_the_old_flow_back(tmp_path, monkeypatch):
    async def work(scene):
        await scene.driver.deploy(order())
        with monkeypatch.context() as broken:
            written = []

            def fsync(handle):
                written.append(handle)
                if len(written) > 4:  # what is noted before the exchange goes through, the commit does not
                    raise OSError(28, "No space left on device")

            broken.setattr(storage.os, "fsync", fsync)
            assert "No space left" in await refused(scene.driver.deploy(order(version=2)), "START_FAILED")
        assert scene.runtime.markers() == [1]
        assert len(scene.runtime.stored) == 1
        assert await scene.driver.deploy(order(version=2)) == "installed"

    play(tmp_path, work)


def test_a_runtime_that_goes_down_in_the_middle_runs_the_old_flow_when_it_is_back(tmp_path):
    async def work(scene):
        await scene.driver.deploy(order())
        starting = scene.driver._api.start

        async def start(runtime_id):
            await scene.runtime.down()
            await starting(runtime_id)

        scene.driver._api.start = start
        await refused(scene.driver.deploy(order(version=2)), "START_FAILED")
        scene.driver._api.start = starting
        assert (await scene.driver.running())["flow-1"] == {
            "hash": None,
            "version": 1,
            "status": "error",
            "errors": 0,
            "restarts": 0,
        }
        await scene.runtime.up()
        assert len(scene.runtime.stored) == 2
        running = (await scene.driver.running())["flow-1"]
        assert (running["status"], running["hash"]) == ("running", order().content_hash)
        assert scene.runtime.markers() == [1]
        assert len(scene.runtime.stored) == 1

    play(tmp_path, work)


@pytest.mark.parametrize("at", ["create", "update", "start"])
def test_an_agent_that_dies_in_the_middle_brings_the_old_flow_back_at_its_next_start(tmp_path, at):
    """As a power cut would: the call is made, and nothing of the agent goes on after it."""

    async def work(scene):
        await scene.driver.deploy(order())
        made = getattr(scene.driver._api, at)
        reached = asyncio.Event()

        async def make(*arguments):
            await made(*arguments)
            reached.set()
            await asyncio.sleep(60)

        setattr(scene.driver._api, at, make)
        task = asyncio.create_task(scene.driver.deploy(order(version=2)))
        await reached.wait()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert len(scene.runtime.stored) == 2
        await scene.reopen()
        assert scene.runtime.markers() == [1]
        assert len(scene.runtime.stored) == 1
        assert await scene.driver.deploy(order(version=2)) == "installed"

    play(tmp_path, work)


def test_several_flows_do_not_touch_one_another(tmp_path):
    async def work(scene):
        for number in range(3):
            await scene.driver.deploy(order(flow(number), flow_id=f"flow-{number}"))
        await refused(scene.driver.deploy(order(flow(9, fail=True), 2, flow_id="flow-1")), "START_FAILED")
        assert await scene.driver.remove("flow-0") is True
        assert sorted(scene.runtime.markers()) == [1, 2]
        assert await scene.driver.remove("flow-0") is False

    play(tmp_path, work)


def test_installing_without_starting(tmp_path):
    async def work(scene):
        assert await scene.driver.deploy(order(start=False)) == "installed"
        assert scene.runtime.running() == []
        assert await scene.driver.deploy(order(start=False)) == "already_installed"
        assert await scene.driver.start("flow-1") == "started"
        assert await scene.driver.start("flow-1") == "already_running"
        assert scene.runtime.markers() == [1]

    play(tmp_path, work)
