"""A device on a real socket: commands, dedup, reconnecting, the shadow."""

import asyncio
import json
import time

import pytest

from agent.answers import Answers
from agent.credentials import Credentials
from agent.device import Device, Options
from agent.drivers.local import LocalDriver
from agent.drivers.simulated import Behaviour, SimulatedDriver
from agent.faults import LinkFaults
from agent.rest import Rest
from agent.settings import Settings
from tests.agent.cloud import Cloud
from tests.agent.support import QUICK, deployment, device_on, until


def scenario(work):
    """Run an async test with a cloud of its own."""

    async def run():
        async with asyncio.timeout(15), Cloud() as cloud:
            await work(cloud)

    asyncio.run(run())


# Commands

READING = ["health_check", "list_flows", "get_shadow", "get_system_metrics", "get_executions", "get_gpio_state"]


def test_every_reading_action_answers(tmp_path):
    async def work(cloud):
        async with device_on(cloud, LocalDriver(tmp_path)):
            link = await cloud.link()
            for action in [*READING, "get_node_types"]:
                answer = await link.ask(action)
                assert answer["status"] == "success", answer
                assert isinstance(answer["data"], dict)
            health = (await link.ask("health_check"))["data"]
            assert {"status", "version", "uptime"} <= health.keys()

    scenario(work)


@pytest.mark.parametrize("kind", ["local", "simulated"])
def test_system_metrics_have_the_released_agents_names(tmp_path, kind):
    async def work(cloud):
        driver = LocalDriver(tmp_path) if kind == "local" else SimulatedDriver("x", Behaviour())
        async with device_on(cloud, driver):
            data = (await (await cloud.link()).ask("get_system_metrics"))["data"]
        top = "hostname os arch board_model uptime temperature cpu memory swap load_avg network"
        assert set(top.split()) == data.keys()
        assert data["memory"].keys() == {f"{k}_bytes" for k in ("total", "used", "free", "available")} | {"percent"}
        assert data["load_avg"].keys() == {"1min", "5min", "15min"}
        assert data["network"].keys() == {"rx_bytes", "tx_bytes"}
        assert "usage_percent" in data["cpu"]

    scenario(work)


def test_a_flow_is_created_started_changed_stopped_deleted(tmp_path):
    async def work(cloud):
        async with device_on(cloud, LocalDriver(tmp_path)):
            link = await cloud.link()
            flow = deployment()["flow"]

            async def does(action, payload, **expected):
                answer = await link.ask(action, payload)
                assert answer.get("data", answer.get("code")) == (expected or answer["code"]), answer
                return answer

            await does("create_flow", {"flow": {"id": "f", **flow}}, flow_id="f", status="created")
            await does("create_flow", {"flow": {"id": "f", **flow}}, flow_id="f", status="created")
            await does("start_flow", {"flow_id": "f"}, flow_id="f", status="started")
            await does("start_flow", {"flow_id": "f"}, flow_id="f", status="already_running")
            changed = {**flow, "nodes": flow["nodes"][:1]}
            changed["nodes"] = [{**changed["nodes"][0], "wires": []}]
            await does("update_flow", {"flow_id": "f", "flow": changed}, flow_id="f", status="updated")
            told = (await link.ask("get_flow", {"flow_id": "f"}))["data"]["flow"]
            assert (told["status"], len(told["definition"]["nodes"])) == ("running", 1)
            await does("stop_flow", {"flow_id": "f"}, flow_id="f", status="stopped")
            await does("delete_flow", {"flow_id": "f"}, flow_id="f", status="deleted")
            for action in ("get_flow", "start_flow", "stop_flow", "delete_flow"):
                assert (await link.ask(action, {"flow_id": "f"}))["code"] == "FLOW_NOT_FOUND"
            await does("remove_flow", {"flow_id": "f"}, flow_id="f", status="removed")

    scenario(work)


def test_deploy_flow_answers_what_it_did():
    async def work(cloud):
        async with device_on(cloud):
            link = await cloud.link()
            for status in ("installed", "already_installed"):
                data = (await link.ask("deploy_flow", deployment()))["data"]
                assert data == {"flow_id": "flow-1", "version": 1, "content_hash": "hash-1", "status": status}
            assert (await link.ask("deploy_flow", deployment(version=2)))["data"]["status"] == "installed"

    scenario(work)


@pytest.mark.parametrize(
    ("action", "payload", "code"),
    [
        ("fly", {}, "UNKNOWN_ACTION"),
        ("start_flow", {}, "INVALID_PAYLOAD"),
        ("start_flow", ["f"], "INVALID_PAYLOAD"),
        ("create_flow", {"flow": 1}, "INVALID_PAYLOAD"),
        ("create_flow", {"flow": {"nodes": 1}}, "INVALID_FLOW"),
        ("create_flow", {"flow": {"nodes": [], "id": "x" * 201}}, "INVALID_PAYLOAD"),
        ("create_flow", {"flow": {"nodes": [], "id": {"a": 1}}}, "INVALID_PAYLOAD"),
        ("deploy_flow", {"flow_id": "f"}, "INVALID_PAYLOAD"),
        ("deploy_flow", deployment(start="yes"), "INVALID_PAYLOAD"),
        ("deploy_flow", deployment(content_hash=""), "INVALID_PAYLOAD"),
        ("configure", {"settings": {"heartbeat_interval": "soon"}}, "INVALID_PAYLOAD"),
        ("configure", {"settings": {"server_url": "ftp://x"}}, "INVALID_PAYLOAD"),
    ],
)
def test_errors_carry_a_code(action, payload, code):
    async def work(cloud):
        async with device_on(cloud):
            answer = await (await cloud.link()).ask(action, payload)
            assert (answer["status"], answer["code"]) == ("error", code)
            assert answer["error"]

    scenario(work)


def test_frames_that_make_no_sense_change_nothing():
    async def work(cloud):
        async with device_on(cloud):
            link = await cloud.link()
            for frame in ("", "nonsense", "[]", '{"type":"command"}', '{"type":"from the future"}', '{"type":"pong"}'):
                link.send(frame)
            assert (await link.ask("health_check"))["status"] == "success"

    scenario(work)


def test_a_drivers_mistake_is_an_answer_and_an_answer_too_large_another():
    class Broken(SimulatedDriver):
        async def executions(self):
            return ["x" * 2**20]

        async def gpio_state(self):
            raise RuntimeError("no such bus")

    async def work(cloud):
        async with device_on(cloud, Broken("b", Behaviour())):
            link = await cloud.link()
            assert (await link.ask("get_executions"))["error"] == "answer too large"
            answer = await link.ask("get_gpio_state")
            assert (answer["code"], answer["error"]) == ("INTERNAL_ERROR", "RuntimeError: no such bus")

    scenario(work)


# Dedup


def test_a_repeated_id_is_applied_once_and_answered_each_time():
    async def work(cloud):
        driver = SimulatedDriver("slow", Behaviour(latency_ms=100))
        async with device_on(cloud, driver) as device:
            link = await cloud.link()
            for _ in range(3):
                link.command("deploy_flow", deployment(), "same")
            first = await link.answer("same")
            link.command("deploy_flow", deployment(version=2), "same")
            assert await link.answer("same", count=2) == first
            await asyncio.sleep(0.3)
            assert device.answers.applied == {"same": 1}

    scenario(work)


def test_changes_are_done_one_after_the_other_and_reads_meanwhile():
    class Watched(SimulatedDriver):
        busy = highest = 0

        async def deploy(self, order):
            self.busy += 1
            self.highest = max(self.highest, self.busy)
            await asyncio.sleep(0.05)
            self.busy -= 1
            return await super().deploy(order)

    async def work(cloud):
        driver = Watched("w", Behaviour())
        async with device_on(cloud, driver):
            link = await cloud.link()
            for number in range(4):
                link.command("deploy_flow", deployment(version=number), f"id-{number}")
            await link.ask("health_check")
            assert driver.busy == 1
            for number in range(4):
                await link.answer(f"id-{number}")
        assert driver.highest == 1

    scenario(work)


def test_answers_are_bounded_and_those_of_changes_survive_a_restart(tmp_path):
    path = tmp_path / "answers.jsonl"

    async def fill():
        answers = Answers(path, limit=10)
        for number in range(45):
            await answers.keep(f"id-{number}", f"answer {number}", changing=True)
        await answers.keep("read", "not kept", changing=False)
        assert answers.get("read") == "not kept"

    asyncio.run(fill())
    with path.open("a") as file:
        file.write('["cut sho')
    again = Answers(path, limit=10)
    assert [again.get(f"id-{n}") for n in (34, 35, 44)] == [None, "answer 35", "answer 44"]
    assert again.get("read") is None
    assert len(path.read_text().splitlines()) == 10
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_restarted_agent_answers_an_old_id_without_doing_it_again(tmp_path):
    async def work(cloud):
        for applied in ({"once": 1}, {}):
            answers = Answers(tmp_path / "answers.jsonl")
            async with device_on(cloud, LocalDriver(tmp_path / "flows"), answers=answers):
                link = await cloud.link(nth=2 - len(applied))
                link.command("deploy_flow", deployment(), "once")
                assert (await link.answer("once"))["data"]["status"] == "installed"
                assert answers.applied == applied

    scenario(work)


# Reconnecting


def test_it_reconnects_after_every_kind_of_end():
    async def work(cloud):
        async with device_on(cloud) as device:
            (await cloud.link(nth=1)).cut()
            (await cloud.link(nth=2)).close(1012, "restart")
            (await cloud.link(nth=3)).send({"type": "bye", "reconnect_after_ms": 20})
            (await cloud.link(nth=4)).close(1013, "later")
            link = await cloud.link(nth=5)
            assert (await link.ask("health_check"))["status"] == "success"
            assert device.connections == 5
            assert cloud.history[2].close_code == 1000

    scenario(work)


def test_an_answer_that_found_no_socket_goes_over_the_next_one():
    async def work(cloud):
        async with device_on(cloud, SimulatedDriver("slow", Behaviour(latency_ms=150))) as device:
            first = await cloud.link()
            first.command("deploy_flow", deployment(), "late")
            await until(lambda: device.received["command"])
            cloud.refuse = (1013, "later")
            first.cut()
            await until(lambda: device.answers.get("late"))
            await asyncio.sleep(0.05)
            cloud.refuse = None
            assert (await (await cloud.link(nth=2)).answer("late"))["status"] == "success"
            assert device.answers.applied == {"late": 1}

    scenario(work)


def test_a_refusal_is_waited_out_and_new_credentials_are_tried_at_once():
    async def work(cloud):
        async with device_on(cloud) as device:
            await cloud.link()
            cloud.refuse = (4003, "disabled")
            cloud.history[0].close(4003, "disabled")
            await asyncio.sleep(0.9)
            assert device.last_end.code == 4003
            assert cloud.dials <= 5
            cloud.refuse = None
            await cloud.link(nth=2)

        cloud.keys.clear()
        asked = []

        async def renew(refused):
            asked.append(refused.last_end.code)
            device_id, api_key = cloud.add(api_key="device_fresh")
            return Credentials(device_id, api_key, cloud.url)

        rest = Rest(cloud.url)
        device = Device(
            Credentials("device-1", "device_stale", cloud.url),
            SimulatedDriver("x", Behaviour()),
            rest,
            options=QUICK,
            refused=renew,
        )
        device.start()
        await cloud.link(nth=3)
        assert asked == [1008]
        await device.stop()
        await rest.close()

    scenario(work)


def test_a_cloud_that_does_not_say_connected_is_left():
    async def work(cloud):
        cloud.silent = True
        options = Options(connected_timeout=0.1, waits=QUICK.waits)
        async with device_on(cloud, options=options) as device:
            await until(lambda: cloud.dials >= 3)
            assert not device.connected
            cloud.silent = False
            await cloud.link()

    scenario(work)


def test_stopping_closes_with_1000_and_finishes_what_runs():
    async def work(cloud):
        async with device_on(cloud, SimulatedDriver("slow", Behaviour(latency_ms=100))) as device:
            link = await cloud.link()
            link.command("deploy_flow", deployment(), "last")
            await until(lambda: device.received["command"])
        assert (await link.answer("last"))["status"] == "success"
        await until(lambda: link.close_code == 1000)

    scenario(work)


def test_stopping_while_nothing_answers_takes_no_time():
    async def run():
        rest = Rest("http://127.0.0.1:9")
        device = Device(Credentials("d", "k", ""), SimulatedDriver("x", Behaviour()), rest, options=QUICK)
        device.start()
        await asyncio.sleep(0.2)
        started = time.monotonic()
        await device.stop()
        assert time.monotonic() - started < 0.5
        await rest.close()

    asyncio.run(run())


def test_heartbeats_follow_the_interval_and_silence_ends_the_link():
    async def work(cloud):
        cloud.hello["heartbeat_interval"] = 0.05
        async with device_on(cloud) as device:
            link = await cloud.link()
            await until(lambda: sum(frame["type"] == "ping" for frame in link.frames) >= 3)
            assert device.received["pong"] >= 1
            device._heartbeat._heard -= 60
            link.send = lambda frame: None
            await cloud.link(nth=2)

    scenario(work)


# Shadow


def test_it_reports_being_online_before_anything_else():
    async def work(cloud):
        async with device_on(cloud):
            await until(lambda: len(cloud.rest_calls) >= 2)
        (get, path, _), (put, same, body) = cloud.rest_calls[:2]
        assert (get, put, path, same) == ("GET", "PUT", "/api/v1/devices/device-1/shadow", path)
        assert body["reported"]["online"] is True
        assert {"agent_version", "last_updated"} <= body["reported"].keys()

    scenario(work)


def test_pushed_desires_are_echoed_coalesced_and_survive_a_bad_moment():
    async def work(cloud):
        shadow = cloud.shadow("device-1")
        async with device_on(cloud) as device:
            device._shadow.retry = type(device._shadow.retry)(tries=6, base=0.01)
            link = await cloud.link()
            await until(lambda: shadow["version"] == 2)
            shadow["desired"] = {"colour": "red", "heartbeat_interval": 7}
            cloud.rest_failures = [503, 429, 409, 500]
            for version in range(10):
                link.send({"type": "shadow", "version": version, "desired": {}, "delta": shadow["desired"]})
                await asyncio.sleep(0.002)
            await until(lambda: shadow["reported"].get("colour") == "red")
            await asyncio.sleep(0.15)
            assert shadow["delta"] == {}
            assert shadow["version"] in (3, 4)  # of ten pushes; a slow machine may report once more
            assert device.settings.get("heartbeat_interval") == 7

    scenario(work)


def test_what_could_not_be_reported_goes_with_the_next_report():
    async def work(cloud):
        shadow = cloud.shadow("device-1")
        async with device_on(cloud) as device:
            link = await cloud.link()
            await until(lambda: shadow["version"] == 2)
            device._shadow.retry = type(device._shadow.retry)(tries=1)
            cloud.rest_failures = [503]
            link.send({"type": "shadow", "version": 3, "desired": {}, "delta": {"a": {"x": 1, "y": 1}}})
            await until(lambda: not cloud.rest_failures)
            await asyncio.sleep(0.1)
            link.send({"type": "shadow", "version": 4, "desired": {}, "delta": {"a": {"y": 2}}})
            await until(lambda: shadow["version"] == 3)
            assert shadow["reported"]["a"] == {"x": 1, "y": 2}

    scenario(work)


def test_a_real_device_reports_only_what_it_understands(tmp_path):
    async def work(cloud):
        shadow = cloud.shadow("device-1")
        shadow["desired"] = shadow["delta"] = {"colour": "red", "log_level": "INFO", "heartbeat_interval": "x"}
        async with device_on(cloud, LocalDriver(tmp_path)) as device:
            await until(lambda: "log_level" in shadow["reported"])
            answer = await (await cloud.link()).ask("update_desired", {"desired": {}})
            assert answer["data"] == {"delta": {"colour": "red", "heartbeat_interval": "x"}}
            assert device.settings.all() == {"log_level": "INFO"}

    scenario(work)


def test_settings_are_kept(tmp_path):
    async def work(cloud):
        settings = Settings(tmp_path / "settings.json")
        async with device_on(cloud, settings=settings):
            wanted = {"heartbeat_interval": 5, "local_url": "http://127.0.0.1:1880"}
            answer = await (await cloud.link()).ask("configure", {"settings": wanted})
            assert answer["data"] == {"settings": wanted}
        assert Settings(tmp_path / "settings.json").all() == wanted
        assert json.loads((tmp_path / "settings.json").read_text()) == wanted

    scenario(work)


# A bad link


def test_nothing_is_applied_twice_over_a_bad_link():
    """With each answer resent until it comes, as the cloud does: 20 % lost, 20 % twice, 20 % overtaken, 5 % cut."""

    async def work(cloud):
        faults = LinkFaults(drop_rate=0.05, loss_rate=0.2, duplicate_rate=0.2, reorder_rate=0.2, hold_ms=20)
        async with device_on(cloud, faults=faults) as device:
            await cloud.link()

            def answered(command_id):
                frames = (frame for link in cloud.history for frame in link.frames)
                return any(frame.get("id") == command_id for frame in frames if frame["type"] == "response")

            for number in range(60):
                while not answered(f"id-{number}"):
                    cloud.links["device-1"].command("deploy_flow", deployment(version=number), f"id-{number}")
                    await asyncio.sleep(0.03)
            assert set(device.answers.applied.values()) == {1}
            assert len(device.answers.applied) == 60
            assert device.connections > 1

    scenario(work)
