"""The v1 twin is as strict as it claims: what it lets pass, the cloud's tests would not find."""

import asyncio
import time

import pytest

from agent.metrics import flatten, system_metrics
from agent.protocol import now
from tests.agent.cloud import Cloud
from tests.agent.support import until
from tests.twins.v1_agent import GoStrict, V1Agent, check_shadow, parse_frame


def with_twin(work, seconds=15, **options):
    """Run `work(cloud, twin)`; the twin is started by it and stopped here."""

    async def run():
        async with asyncio.timeout(seconds), Cloud(hello={}) as cloud:
            device_id, api_key = cloud.add()
            twin = V1Agent(cloud.url, device_id, api_key, time_scale=0.01, flows=["f"], **options)
            try:
                await work(cloud, twin)
            finally:
                await asyncio.to_thread(twin.stop)

    asyncio.run(run())


async def connected(cloud, twin):
    twin.start()
    link = await cloud.link()
    await asyncio.to_thread(twin.wait_connected)
    return link


def test_it_provisions_connects_without_a_protocol_and_syncs_its_shadow_first():
    async def run():
        async with asyncio.timeout(10), Cloud(codes={"code": "device-1"}, hello={}) as cloud:
            twin = V1Agent(cloud.url, provisioning_code="code")
            await asyncio.to_thread(twin.start)
            link = await cloud.link()
            link.command("health_check", {}, "early")
            assert (await link.answer("early"))["data"].keys() == {"status", "version", "uptime"}
            assert link.frames[0].keys() == {"type", "device_id", "api_key", "version", "timestamp"}
            assert [call[0] for call in cloud.rest_calls] == ["POST", "GET", "PUT"]
            await asyncio.to_thread(twin.stop)
            assert twin.gave_up is False

    asyncio.run(run())


def test_its_commands_answer_as_v1_does():
    async def work(cloud, twin):
        link = await connected(cloud, twin)
        for action in ("list_flows", "get_shadow", "update_desired", "get_system_metrics", "get_executions"):
            assert (await link.ask(action))["status"] == "success"
        assert (await link.ask("start_flow", {"flow_id": "f"}))["data"] == {"flow_id": "f", "status": "started"}
        assert "already running" in (await link.ask("start_flow", {"flow_id": "f"}))["error"]
        assert (await link.ask("stop_flow", {"flow_id": "f"}))["data"]["status"] == "stopped"
        metrics = (await link.ask("get_system_metrics"))["data"]
        assert dict(flatten(metrics)).keys() == dict(flatten(await asyncio.to_thread(system_metrics))).keys() | {
            "temperature"
        }
        twin.metrics_error = "failed to read /proc/stat"
        answer = await link.ask("get_system_metrics")
        assert (answer["status"], answer["error"]) == ("error", "failed to read /proc/stat")
        answer = await link.ask("create_flow", {"flow": {}})
        assert (answer["error"], "code" in answer) == ("create flow not yet implemented", False)
        assert (await link.ask("deploy_flow"))["error"] == "unknown command action: deploy_flow"

    with_twin(work)


def test_two_starts_at_once_start_twice():
    async def work(cloud, twin):
        link = await connected(cloud, twin)
        for command_id in ("a", "b"):
            link.command("start_flow", {"flow_id": "f"}, command_id)
        for command_id in ("a", "b"):
            await link.answer(command_id)
        assert twin.starts == ["f", "f"]

    with_twin(work, start_seconds=0.2)


def test_frames_that_go_would_drop_are_dropped_in_silence():
    async def work(cloud, twin):
        link = await connected(cloud, twin)
        command = {"type": "command", "id": "x", "action": "health_check", "payload": {}}
        for wrong in ({"timestamp": ""}, {"timestamp": "2026-01-01T00:00:00"}, {"payload": []}, {"id": 5}):
            link.send({**command, **wrong})
        assert (await link.ask("health_check"))["status"] == "success"
        assert len(twin.dropped) == 4
        assert len(twin.commands()) == 1

    with_twin(work)


def test_a_refused_first_dial_is_never_retried():
    async def work(cloud, twin):
        cloud.keys.clear()
        twin.start()
        await until(lambda: twin.gave_up)
        assert twin.dials == 1
        assert "unknown device" in twin.failures[0]
        with pytest.raises(AssertionError, match="unknown device"):
            twin.wait_connected(1)

    with_twin(work)


def test_a_dropped_one_tries_five_times_and_gives_up():
    async def work(cloud, twin):
        (await connected(cloud, twin)).cut()
        await asyncio.to_thread(twin.wait_connected)
        second = await cloud.link(nth=2)
        cloud.refuse = (1013, "later")
        started = time.monotonic()
        second.cut()
        await until(lambda: twin.gave_up)
        assert twin.dials == 2 + 5
        assert 0.75 <= time.monotonic() - started < 2

    with_twin(work)


def test_a_shadow_that_is_not_answered_by_200_is_a_failure():
    async def work(cloud, twin):
        cloud.rest_failures = [500]
        twin.start()
        await until(lambda: twin.gave_up)
        assert "GET shadow was answered 500" in twin.failures[0]

    with_twin(work)


GOOD = {"device_id": "d", "version": 3, "delta": {}, "metadata": {"desired": {"a.b": now()}, "reported": {}}}


@pytest.mark.parametrize(
    "wrong",
    [
        {"version": "3"},
        {"version": True},
        {"version": None},
        {"delta": None},
        {"delta": []},
        {"metadata": {"desired": {"a": {"b": now()}}}},
        {"metadata": {"reported": {"a": "2026-01-01T00:00:00"}}},
        {"metadata": {"reported": {"a": ""}}},
        {"updated_at": "yesterday"},
    ],
)
def test_a_shadow_of_another_shape_is_refused(wrong):
    check_shadow(GOOD)
    with pytest.raises(GoStrict):
        check_shadow({**GOOD, **wrong})


@pytest.mark.parametrize("stamp", ["2026-11-22T21:51:05Z", "2026-11-22T21:51:05.123456+02:00"])
def test_times_with_a_zone_pass(stamp):
    assert parse_frame(f'{{"type": "pong", "timestamp": "{stamp}"}}')["type"] == "pong"
