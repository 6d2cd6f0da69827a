"""The program as it is started: provisioning, credentials, signals."""

import asyncio
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from agent import credentials, hardware
from agent.cli import main
from agent.credentials import Credentials
from tests.agent.cloud import Cloud
from tests.agent.support import deployment, until

ROOT = Path(__file__).parents[2]


async def start(*arguments):
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "agent", *map(str, arguments), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


async def end(process):
    process.send_signal(signal.SIGTERM)
    output, errors = await asyncio.wait_for(process.communicate(), 10)
    return output.decode(), errors.decode()


def test_it_provisions_runs_a_flow_and_is_the_same_device_after_a_restart(tmp_path):
    async def run():
        async with asyncio.timeout(20), Cloud(codes={"the-code": "device-1"}) as cloud:
            arguments = ["run", "--url", cloud.url, "--provisioning-code", "the-code", "--state-dir", tmp_path / "s"]
            process = await start(*arguments)
            link = await cloud.link(seconds=10)
            assert (await link.ask("deploy_flow", deployment()))["data"]["status"] == "installed"
            second = await start(*arguments)
            _, errors = await second.communicate()
            assert second.returncode == 1
            assert "another agent runs" in errors.decode()
            assert "key" not in (await end(process))[1]
            await until(lambda: link.close_code == 1000)
            process = await start(*arguments)
            link = await cloud.link(nth=2, seconds=10)
            flows = (await link.ask("list_flows"))["data"]["flows"]
            assert [(flow["id"], flow["status"]) for flow in flows] == [("flow-1", "running")]
            while not (await link.ask("get_executions"))["data"]["executions"]:
                await asyncio.sleep(0.02)
            await asyncio.sleep(0.1)
            _, log = await end(process)
            assert process.returncode == 0
            assert "· out: 1" in log
            assert [path for method, path, _ in cloud.rest_calls].count("/api/v1/devices/provision") == 1

    asyncio.run(run())
    stored = tmp_path / "s" / "credentials.json"
    assert stat.S_IMODE(stored.stat().st_mode) == 0o600
    assert stat.S_IMODE(stored.parent.stat().st_mode) == 0o700


def test_a_refused_code_is_one_clear_line(tmp_path, capsys):
    async def run():
        async with Cloud() as cloud:
            arguments = ["run", "--url", cloud.url, "--state-dir", str(tmp_path)]
            codes = [await asyncio.to_thread(call, [*arguments, *more]) for more in ([], ["--provisioning-code", "x"])]
            assert codes == [1, 1]

    def call(arguments):
        return subprocess.run([sys.executable, "-m", "agent", *arguments], cwd=ROOT, stderr=errors).returncode

    with (tmp_path / "errors").open("w") as errors:
        asyncio.run(run())
    lines = (tmp_path / "errors").read_text().splitlines()
    assert len(lines) == 2
    assert "a provisioning code is needed" in lines[0]
    assert "provisioning failed: 401" in lines[1]


def test_credentials_are_private_and_belong_to_a_cloud_and_a_code(tmp_path):
    path = tmp_path / "new" / "credentials.json"
    assert credentials.load(path) is None
    kept = Credentials("d", "device_k", "http://a", None, credentials.hash_code("code"))
    generous = os.umask(0)
    try:
        credentials.save(path, kept)
    finally:
        os.umask(generous)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert credentials.load(path) == kept
    assert kept.belong_to("http://a", "code")
    assert kept.belong_to("http://b", None)
    assert not kept.belong_to("http://a", "another")
    assert not kept.belong_to("http://b", "code")
    path.write_text('{"device_id": 1}')
    with pytest.raises(ValueError, match="does not hold credentials"):
        credentials.load(path)


def test_hardware_is_the_same_each_time_and_differs_between_simulated_devices():
    assert hardware.hardware_info() == hardware.hardware_info()
    assert {"arch", "os"} <= hardware.hardware_info().keys()
    one = hardware.simulated_hardware(1, "demo-001")
    assert one == hardware.simulated_hardware(1, "demo-001")
    others = [hardware.simulated_hardware(2, "demo-001"), hardware.simulated_hardware(1, "demo-002")]
    assert all(one[key] != other[key] for other in others for key in ("serial", "mac", "machine_id"))


@pytest.mark.parametrize(
    "option",
    [["--runtime-url", "http://127.0.0.1:1880/admin?x=1"], ["--editor-url", "http://127.0.0.1/#x"],
     ["--editor-url", "http://someone@127.0.0.1:1880/"], ["--editor-timeout", "0"]],
)  # fmt: skip
def test_a_runtime_that_cannot_be_addressed_so_is_refused_at_the_start(option, tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["run", "--url", "http://127.0.0.1:9", "--driver", "nodered", "--state-dir", str(tmp_path), *option])
    assert f"{option[0]}: must be" in capsys.readouterr().err


def test_help_names_every_command(capsys):
    for arguments in (["--help"], ["run", "--help"], ["simulate", "--help"]):
        with pytest.raises(SystemExit) as caught:
            main(arguments)
        assert caught.value.code == 0
    assert "--provisioning-code" in capsys.readouterr().out


def test_the_agent_imports_nothing_of_the_platform():
    code = "import sys, agent.cli; print([m for m in ('app', 'config', 'workers', 'scheduler') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
