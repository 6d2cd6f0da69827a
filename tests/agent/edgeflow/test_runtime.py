"""The EdgeFlow runtime beside the deployments: what is there, changes by hand, restarts, silence, the token."""

import asyncio
import time

import pytest

from agent.cli import parser
from agent.content import content_hash
from agent.drivers import choice
from agent.drivers.choice import RuntimeOptions
from agent.drivers.edgeflow import EdgeFlowDriver
from app.flows import definition as cloud_definition
from tests.agent.edgeflow.runtime import GPIO, STATS, TYPES, Runtime
from tests.agent.edgeflow.support import flow, order, play
from tests.agent.edgeflow.test_deploy import refused

WIRED = {
    "nodes": [
        {"id": "a", "type": "inject", "wires": [["b", "c"], ["c"]]},
        {"id": "b", "type": "function", "x": 1, "y": 2},
        {"id": "c", "type": "debug"},
    ],
    "connections": [{"id": "mine", "source_id": "b", "target_id": "c"}, {"source": "a", "target": "b"}],
}


def test_both_formats_and_wires_become_the_runtimes_connections(tmp_path):
    async def work(scene):
        await scene.driver.deploy(order(WIRED))
        (stored,) = scene.runtime.stored.values()
        ends = {(one["source"], one["target"], one.get("sourceOutput")) for one in stored["connections"]}
        assert ends == {("a", "b", None), ("a", "c", None), ("a", "c", 1), ("b", "c", None)}
        assert all({"id", "source", "target"} <= one.keys() for one in stored["connections"])
        assert not any("wires" in node for node in stored["nodes"])
        assert stored["nodes"][1]["position"] == {"x": 1, "y": 2}
        assert (await scene.driver.get_flow("flow-1"))["definition"] == {**WIRED}

    play(tmp_path, work)


def test_a_change_by_hand_shows_can_be_read_by_the_cloud_and_is_undone_by_deploying_again(tmp_path):
    async def work(scene):
        await scene.driver.deploy(order({**flow(), "config": {"kept": True}}))
        nodes = [*flow("by hand")["nodes"], {"id": "new", "type": "function", "position": {"x": 5, "y": 6}}]
        # As the engine itself writes connections.
        joined = [{"id": "c1", "source_id": "every", "target_id": "new"}]
        scene.runtime.edit(scene.runtime_id, nodes=nodes, connections=joined)
        read = (await scene.driver.get_flow("flow-1"))["definition"]
        assert cloud_definition.faults(read) == {}
        assert read["connections"] == [{"id": "c1", "source": "every", "target": "new"}]
        assert {node["id"]: node.get("x") for node in read["nodes"]} == {"every": 10, "show": None, "new": 5}
        assert read["config"] == {"kept": True}
        told = (await scene.driver.running())["flow-1"]
        assert told["hash"] == content_hash(read) == cloud_definition.content_hash(read)
        assert told["version"] == 1
        assert await scene.driver.deploy(order({**flow(), "config": {"kept": True}})) == "installed"
        assert scene.runtime.markers() == [1]
        assert (await scene.driver.running())["flow-1"]["hash"] == order(
            {**flow(), "config": {"kept": True}}
        ).content_hash

    play(tmp_path, work)


def test_what_was_changed_by_hand_and_adopted_is_already_installed(tmp_path):
    async def work(scene):
        await scene.driver.deploy(order())
        scene.runtime.edit(scene.runtime_id, nodes=flow("by hand")["nodes"])
        await scene.driver.stop("flow-1")
        await scene.driver.start("flow-1")
        read = (await scene.driver.get_flow("flow-1"))["definition"]
        assert await scene.driver.deploy(order({**read, "name": "watch"}, 2)) == "already_installed"
        told = (await scene.driver.running())["flow-1"]
        assert (told["version"], told["hash"]) == (2, content_hash(read))
        await scene.reopen()
        assert await scene.driver.deploy(order({**read, "name": "watch"}, 2)) == "already_installed"

    play(tmp_path, work)


def test_moving_a_node_is_no_change(tmp_path):
    async def work(scene):
        await scene.driver.deploy(order())
        nodes = {node["id"]: {**node, "position": {"x": 500, "y": 1}} for node in flow()["nodes"]}
        scene.runtime.edit(scene.runtime_id, nodes=nodes)
        assert (await scene.driver.running())["flow-1"]["hash"] == order().content_hash

    play(tmp_path, work)


def test_a_flow_that_cannot_be_read_has_no_hash(tmp_path):
    async def work(scene):
        await scene.driver.deploy(order())
        scene.runtime.edit(scene.runtime_id, nodes=[{"id": "x"}], connections=[{"source": 3}])
        assert (await scene.driver.running())["flow-1"]["hash"] is None
        await refused(scene.driver.get_flow("flow-1"), "INVALID_FLOW")
        assert await scene.driver.deploy(order()) == "installed"

    play(tmp_path, work)


def test_a_flow_deleted_by_hand_is_an_error_until_it_is_deployed_again(tmp_path):
    async def work(scene):
        await scene.driver.deploy(order())
        scene.runtime.stored.clear()
        scene.runtime.memory.clear()
        told = (await scene.driver.running())["flow-1"]
        assert (told["status"], told["hash"]) == ("error", None)
        assert "gone" in (await scene.only())["error"]
        assert "gone" in await refused(scene.driver.get_flow("flow-1"), "FLOW_NOT_FOUND")
        assert await scene.driver.deploy(order()) == "installed"
        assert (await scene.driver.running())["flow-1"]["status"] == "running"

    play(tmp_path, work)


def test_flows_made_at_the_runtime_are_told_by_its_ids_and_driven(tmp_path):
    async def work(scene):
        _, made = scene.runtime._create({"name": "local"})
        scene.runtime.edit(made["id"], nodes=flow("local")["nodes"])
        scene.runtime._stop(made["id"])
        found = await scene.only()
        assert (found["id"], found["status"], found["version"]) == (made["id"], "stopped", None)
        assert (await scene.driver.running())[made["id"]]["hash"] == found["content_hash"]
        assert await scene.driver.start(made["id"]) == "started"
        assert scene.runtime.markers() == ["local"]
        await refused(scene.driver.deploy(order(flow(1, fail=True), flow_id=made["id"])), "START_FAILED")
        assert scene.runtime.markers() == ["local"]
        assert await scene.driver.deploy(order(flow_id=made["id"])) == "installed"
        assert scene.runtime.markers() == [1]
        assert [one["id"] for one in await scene.driver.list_flows()] == [made["id"]]
        await refused(scene.driver.start("nobody"), "FLOW_NOT_FOUND")

    play(tmp_path, work)


def test_an_agent_without_its_folder_finds_its_flows_again(tmp_path):
    async def work(scene):
        await scene.driver.deploy(order())
        for file in (tmp_path / "edgeflow").glob("*"):
            file.unlink()
        await scene.reopen()
        assert scene.runtime.markers() == [1]
        assert (await scene.only())["id"] == "flow-1"
        assert await scene.driver.deploy(order(version=2)) == "installed"
        assert scene.runtime.markers() == [2]
        assert len(scene.runtime.stored) == 1

    play(tmp_path, work)


def test_a_copy_of_a_flow_made_by_hand_is_left_alone(tmp_path):
    async def work(scene):
        await scene.driver.deploy(order())
        (stored,) = scene.runtime.stored.values()
        _, copy = scene.runtime._create({"name": "copy", "description": stored["description"]})
        for version in (2, 3):
            await scene.driver.deploy(order(version=version))
            await scene.driver.running()
        assert copy["id"] in scene.runtime.stored
        assert {one["id"] for one in await scene.driver.list_flows()} == {"flow-1", copy["id"]}

    play(tmp_path, work)


# Restarts


def test_a_restarted_runtime_runs_its_flows_again_and_it_is_counted(tmp_path):
    async def work(scene):
        await scene.driver.deploy(order())
        await scene.driver.deploy(order(start=False, flow_id="idle"))
        await scene.runtime.restart()
        assert scene.runtime.running() == []
        told = await scene.driver.running()
        assert [(told[name]["status"], told[name]["restarts"]) for name in ("flow-1", "idle")] == [
            ("running", 1),
            ("stopped", 0),
        ]
        assert scene.runtime.markers() == [1]
        assert ("warning", "flow watch v1: was started again") in scene.heard
        await scene.reopen()
        assert (await scene.driver.running())["flow-1"]["restarts"] == 1
        await scene.driver.deploy(order(version=2))
        assert (await scene.driver.running())["flow-1"]["restarts"] == 0

    play(tmp_path, work)


def test_a_flow_stopped_by_hand_stays_stopped(tmp_path):
    async def work(scene):
        await scene.driver.deploy(order())
        scene.runtime._stop(scene.runtime_id)
        for _ in range(2):
            assert (await scene.driver.running())["flow-1"]["status"] == "stopped"
            await scene.reopen()
        assert scene.runtime.running() == []

    play(tmp_path, work)


def test_a_flow_that_does_not_start_again_is_tried_once(tmp_path):
    async def work(scene):
        await scene.driver.deploy(order())
        scene.runtime.stored[scene.runtime_id]["nodes"][0]["config"]["fail"] = True
        await scene.runtime.restart()
        for _ in range(3):
            told = (await scene.driver.running())["flow-1"]
        assert (told["status"], told["restarts"], told["errors"]) == ("error", 1, 1)
        assert "boom" in (await scene.only())["error"]
        assert scene.runtime.count(f"POST /flows/{scene.runtime_id}/start") == 2

    play(tmp_path, work)


def test_an_agent_that_is_there_before_the_runtime(tmp_path):
    async def work(scene):
        await scene.driver.deploy(order())
        await scene.runtime.down()
        await scene.reopen()
        told = (await scene.driver.running())["flow-1"]
        assert (told["status"], told["hash"]) == ("error", None)
        await scene.runtime.up()
        assert (await scene.driver.running())["flow-1"]["status"] == "running"
        assert scene.runtime.markers() == [1]

    play(tmp_path, work)


# Errors


def test_errors_are_counted_since_the_flow_was_installed(tmp_path):
    async def work(scene):
        await scene.driver.deploy(order(flow(1, errors=3)))
        await scene.driver.flow_metrics()
        assert (await scene.driver.running())["flow-1"]["errors"] == 3
        scene.runtime.executions[-1]["error_nodes"] += 2
        assert (await scene.driver.running())["flow-1"]["errors"] == 5
        assert (await scene.driver.flow_metrics())["flow-1"]["errors"] == 2
        assert (await scene.driver.flow_metrics())["flow-1"]["errors"] == 0
        await scene.runtime.restart()
        assert (await scene.driver.running())["flow-1"]["errors"] == 8
        assert (await scene.driver.runtime_health()) == {"running": True, "errors": 8, "restarts": 1}
        points = await scene.driver.measure(1)
        assert {name: value for name, _, value in points}["flow.flow-1.errors"] == 3
        await scene.driver.deploy(order(version=2))
        assert (await scene.driver.running())["flow-1"]["errors"] == 0

    play(tmp_path, work)


def test_a_history_that_cannot_be_read_costs_counts_only(tmp_path):
    async def work(scene):
        await scene.driver.deploy(order())
        scene.runtime.faults = [(500, "GET", "/executions")] * 3
        assert (await scene.driver.running())["flow-1"]["status"] == "running"
        await scene.runtime.restart()
        assert await scene.driver.deploy(order(version=2)) == "installed"

    play(tmp_path, work)


# Silence


def test_a_runtime_that_is_down_is_told_in_words_at_once(tmp_path):
    async def work(scene):
        await scene.driver.deploy(order())
        await scene.runtime.down()
        started = time.monotonic()
        for call in (
            scene.driver.list_flows(),
            scene.driver.deploy(order(version=2)),
            scene.driver.start("flow-1"),
            scene.driver.node_types(),
        ):
            assert "cannot be reached" in await refused(call, "RUNTIME_UNAVAILABLE")
        assert time.monotonic() - started < 6
        health = await scene.driver.health()
        assert (health["status"], health["runtime"]["running"]) == ("unhealthy", False)
        assert (await scene.driver.system_metrics())["memory"]["total_bytes"] > 1000

    play(tmp_path, work)


def test_a_runtime_that_hangs_is_not_waited_for_for_ever(tmp_path):
    async def work(scene):
        await scene.driver.deploy(order())
        scene.runtime.faults = [("hang", "GET", "/flows")] * 3
        assert "in time" in await refused(scene.driver.list_flows(), "RUNTIME_UNAVAILABLE")
        scene.runtime.faults = [("hang", "POST", "/start")]
        assert await scene.driver.deploy(order(version=2)) == "installed"
        assert scene.runtime.markers() == [2]

    play(tmp_path, work, seconds=0.2)


# The rest of what the cloud asks


def test_figures_pins_types_and_executions_in_the_clouds_words(tmp_path):
    async def work(scene):
        assert scene.driver.editor_url == scene.runtime.url
        await scene.driver.deploy(order())
        figures = await scene.driver.system_metrics()
        assert figures["hostname"] == "pi"
        assert figures["memory"]["percent"] == STATS["memory"]["usage_percent"]
        assert figures["swap"] == {"total_bytes": 200, "used_bytes": 50, "free_bytes": 150, "percent": 25.0}
        names = {name for name, _, _ in await scene.driver.measure(1)}
        assert {"cpu.usage_percent", "load_avg.1min", "network.rx_bytes", "temperature"} <= names
        state = await scene.driver.gpio_state()
        assert [(pin["pin"], pin["direction"], pin["value"]) for pin in state["pins"]] == [(4, "in", 0), (17, "out", 1)]
        assert state["board"] == GPIO["board_name"]
        assert [kind["type"] for kind in await scene.driver.node_types()] == sorted(TYPES)
        assert await scene.driver.reported_types() == sorted(TYPES)
        (execution,) = await scene.driver.executions()
        assert (execution["flow_id"], execution["status"], execution["messages"]) == ("flow-1", "running", 2)

    play(tmp_path, work)


@pytest.mark.parametrize("token", ["efk_0123", "jwt.for.it"])
def test_the_token_comes_from_its_file_each_time(tmp_path, token):
    async def run():
        file = tmp_path / "token"
        file.write_text("wrong\n")
        async with Runtime(token=token) as runtime:
            where = ["--runtime-url", runtime.url, "--runtime-token-file", str(file)]
            more = ["--editor-url", "http://127.0.0.1:1", "--allow-host", "plc.local"]
            options = parser().parse_args(["run", "--url", "http://cloud", "--driver", "edgeflow", *where, *more])
            assert options.allow_host == ["plc.local"]
            told = RuntimeOptions(tmp_path, options.runtime_url, options.runtime_token_file, options.editor_url)
            driver = choice.make(options.driver, told)
            assert isinstance(driver, EdgeFlowDriver)
            assert driver.editor_url == "http://127.0.0.1:1"
            assert "access token" in await refused(driver.list_flows(), "INTERNAL_ERROR")
            file.write_text(f"{token}\n")
            assert await driver.list_flows() == []
            file.unlink()
            assert "cannot be read" in await refused(driver.list_flows(), "INTERNAL_ERROR")
            await driver.close()
            with pytest.raises(OSError, match="No such file"):
                choice.make("edgeflow", told)
            file.write_text("")
            with pytest.raises(ValueError, match="does not hold a token"):
                choice.make("edgeflow", told)

    asyncio.run(run())


@pytest.mark.parametrize("answer", [b"[]", b"no JSON", b'{"flows": 3}', b'{"flows": [1, {"id": ""}]}', b""])
def test_nonsense_from_the_runtime_is_an_error_and_never_a_flow(tmp_path, answer):
    async def run():
        async def serve(reader, writer):
            while (line := await reader.readline()) and line != b"\r\n":
                pass
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % len(answer) + answer)
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        driver = EdgeFlowDriver(RuntimeOptions(tmp_path, url))
        try:
            if b"[1" in answer:
                assert await driver.list_flows() == []
            else:
                await refused(driver.list_flows(), "INTERNAL_ERROR")
        finally:
            await driver.close()
            server.close()

    asyncio.run(run())
