"""The simulator: a fleet is made once, connects, is the same next time, and stops."""

import asyncio
import signal
import stat
import subprocess
import sys
import time
from dataclasses import replace

import pytest

from agent.enrol import Member
from agent.simulator import Fleet, FleetError, FleetOptions, FleetThread
from tests.agent.cloud import Cloud
from tests.agent.support import QUICK, deployment, until
from tests.agent.test_run import ROOT


def in_cloud(work, seconds=20):
    async def run():
        async with asyncio.timeout(seconds), Cloud() as cloud:
            await work(cloud)

    asyncio.run(run())


def options_for(cloud, tmp_path, devices=5):
    state = tmp_path / "fleet.json"
    return FleetOptions(cloud.url, devices, tags=("a",), api_key="edgeflow_test", state_file=state, link=QUICK)


def created(cloud):
    return sum(call[:2] == ("POST", "/api/v1/devices") for call in cloud.rest_calls)


def test_a_fleet_is_made_once_and_reused(tmp_path):
    async def work(cloud):
        options = options_for(cloud, tmp_path)
        async with Fleet(options) as fleet:
            assert fleet.connected == 5
            first = {device.name: device.credentials.device_id for device in fleet.devices}
        assert list(first) == [f"demo-{number:03d}" for number in range(1, 6)]
        async with Fleet(replace(options, devices=6)) as fleet:
            assert fleet.connected == 6
            again = {device.name: device.credentials.device_id for device in fleet.devices}
        assert again | first == again
        assert created(cloud) == 6
        assert stat.S_IMODE(options.state_file.stat().st_mode) == 0o600
        assert all(link.close_code == 1000 for link in cloud.history)

    in_cloud(work)


def test_a_device_that_the_cloud_forgot_is_made_again_and_a_lost_key_renewed(tmp_path):
    async def work(cloud):
        options = options_for(cloud, tmp_path, devices=3)
        async with Fleet(options) as fleet:
            ids = [device.credentials.device_id for device in fleet.devices]
        cloud.codes = {code: device_id for code, device_id in cloud.codes.items() if device_id != ids[0]}
        cloud.keys = {key: device_id for key, device_id in cloud.keys.items() if device_id == ids[2]}
        async with Fleet(options) as fleet:
            assert fleet.connected == 3
            now = [device.credentials.device_id for device in fleet.devices]
        assert now[1:] == ids[1:]
        assert now[0] != ids[0]
        assert created(cloud) == 4

    in_cloud(work)


def test_it_signs_in_by_password_and_says_when_it_cannot(tmp_path):
    async def work(cloud):
        options = options_for(cloud, tmp_path, devices=2)
        async with Fleet(replace(options, api_key="", email="a@example.com", password="secret")) as fleet:
            assert fleet.connected == 2
        with pytest.raises(FleetError, match="401"):
            await Fleet(replace(options, api_key="edgeflow_wrong", state_file=None)).start()
        with pytest.raises(FleetError, match="needs an API key"):
            Fleet(replace(options, api_key=""))

    in_cloud(work)


def test_the_ledger_counts_each_change_and_flows_are_seen(tmp_path):
    async def work(cloud):
        members = [Member(f"m-{n}", *cloud.add(f"device-{n}", f"key-{n}")) for n in range(3)]
        async with Fleet(FleetOptions(cloud.url, members=members, link=QUICK)) as fleet:
            for link in cloud.history:
                await link.ask("deploy_flow", deployment(), command_id=f"to-{link.device_id}")
            assert fleet.ledger == {f"device-{n}": {f"to-device-{n}": 1} for n in range(3)}
            assert [flow["version"] for flows in (await fleet.flows()).values() for flow in flows] == [1, 1, 1]

    in_cloud(work)


def test_a_fleet_in_a_thread():
    async def work(cloud):
        members = [Member("m", *cloud.add())]

        def use():
            with FleetThread(FleetOptions(cloud.url, members=members, link=QUICK)) as thread:
                assert thread.fleet.connected == 1
                return thread.run(thread.fleet.flows())

        assert await asyncio.to_thread(use) == {"device-1": []}

    in_cloud(work)


def test_the_command_prints_progress_and_stops_cleanly(tmp_path):
    async def work(cloud):
        arguments = [
            "simulate",
            "--url",
            cloud.url,
            "--devices",
            "20",
            "--api-key",
            "edgeflow_test",
            "--prefix",
            "pump",
        ]
        files = ["--state-file", tmp_path / "state.json", "--ledger-file", tmp_path / "ledger.json"]
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "agent", *arguments, *map(str, files), cwd=ROOT, stdout=subprocess.PIPE
        )
        await until(lambda: len(cloud.history) == 20, 10)
        await asyncio.sleep(0.2)
        process.send_signal(signal.SIGINT)
        output, _ = await process.communicate()
        assert process.returncode == 0
        assert "connected 20/20" in output.decode()
        assert all(link.close_code == 1000 for link in cloud.history)
        assert (tmp_path / "ledger.json").exists()

    in_cloud(work)


def test_hundreds_of_sockets_in_one_process():
    """Each with its commands; the whole in seconds. By hand, the same holds for thousands."""

    async def work(cloud):
        count = 300
        members = [Member(f"m-{n}", *cloud.add(f"device-{n}", f"key-{n}")) for n in range(count)]
        link_options = replace(QUICK, sync_shadow=False)
        started = time.monotonic()
        async with Fleet(FleetOptions(cloud.url, members=members, link=link_options)) as fleet:
            assert fleet.connected == count
            asked = (link.ask("deploy_flow", deployment()) for link in list(cloud.history))
            answers = await asyncio.gather(*asked)
            assert {answer["data"]["status"] for answer in answers} == {"installed"}
            assert time.monotonic() - started < 10

    in_cloud(work)
