"""`make run` as a person meets it: the demo, the printed curl, Ctrl-C."""

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import psutil
import pytest

from config.launch import leftovers
from tests.platform import TLS, free_port

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]


class Run:
    """`python -m config.supervisor` on servers of its own URLs, its output in a file."""

    def __init__(self, data_dir: Path, port: int) -> None:
        self.log = data_dir.parent / "output"
        environ = {**os.environ, "EDGEFLOW_DATA_DIR": str(data_dir), "EDGEFLOW_PORT": str(port)}
        environ.pop("DATABASE_URL", None)
        environ.pop("REDIS_URL", None)
        environ["EDGEFLOW_LOG_LEVEL"] = "INFO"
        with self.log.open("w") as output:
            command = [sys.executable, "-m", "config.supervisor"]
            self.process = subprocess.Popen(command, cwd=ROOT, env=environ, stdout=output, stderr=output)

    def text(self) -> str:
        return self.log.read_text()

    def until(self, condition: Callable[[], object], seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert self.process.poll() is None, self.text()
            assert time.monotonic() < deadline, self.text()
            time.sleep(0.1)

    def curl(self, about: str = "") -> list[str]:
        """The words of the printed command, the first one that names ``about``."""
        found = re.search(rf"^ +(curl .*{about}.*)$", self.text(), re.MULTILINE)
        return shlex.split(found.group(1)) if found else []

    def interrupt(self) -> float:
        """Ctrl-C; the seconds until everything has ended."""
        began = time.monotonic()
        self.process.send_signal(signal.SIGINT)
        assert self.process.wait(15) == 0
        return time.monotonic() - began


def test_a_first_start_shows_a_rollout_and_a_killed_one_goes_on(data_dir: Path) -> None:
    port = free_port()
    first = Run(data_dir, port)
    first.until(first.curl, 90)
    assert "deployment succeeded, 10 of 10 devices" in first.text()
    again = first.curl()
    first.process.kill()
    first.process.wait()

    second = Run(data_dir, port)
    second.until(lambda: "ready: http" in second.text(), 30)
    second.until(second.curl, 30)
    assert second.curl() == again
    assert deployed(again, port)["status"] == "succeeded"
    assert subscribed(second.curl("/billing/subscription"), port)["status"] == "active"
    kill_web(second)
    answer = httpx.get(f"http://127.0.0.1:{port}/healthz", timeout=30, verify=TLS)  # waits in the queue, is not refused
    assert answer.status_code == 200
    assert "web was killed by signal 9" in second.text()
    assert second.interrupt() < 10
    assert leftovers.marked(data_dir) == []
    for secret in (data_dir / "secrets").iterdir():
        if secret.name != "demo":
            assert secret.read_text().strip() not in second.text()


def subscribed(command: list[str], port: int) -> dict[str, object]:
    """Run the printed curl, which pays; the subscription as it is read afterwards."""
    subprocess.run(command, capture_output=True, timeout=60, check=True)
    key = next(word for word in command if word.startswith("X-API-Key: ")).removeprefix("X-API-Key: ")
    url = f"http://127.0.0.1:{port}/api/v1/billing/subscription"
    return dict(httpx.get(url, headers={"X-API-Key": key}, timeout=30, verify=TLS).json())


def kill_web(run: Run) -> None:
    """Master and workers, as a crash of the whole part."""
    (master,) = [one for one in psutil.Process(run.process.pid).children() if "gunicorn" in " ".join(one.cmdline())]
    os.killpg(master.pid, signal.SIGKILL)
    psutil.wait_procs([master], timeout=0.5)


def deployed(command: list[str], port: int) -> dict[str, object]:
    """Run the printed curl and follow its deployment to the end."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    made = httpx.Response(201, text=done.stdout).json()
    key = next(word for word in command if word.startswith("X-API-Key: ")).removeprefix("X-API-Key: ")
    with httpx.Client(base_url=f"http://127.0.0.1:{port}/api/v1", headers={"X-API-Key": key}, verify=TLS) as client:
        deadline = time.monotonic() + 30
        while True:
            answer = client.get(f"/deployments/{made['id']}").json()
            if answer["status"] in ("succeeded", "failed", "paused") or time.monotonic() > deadline:
                return dict(answer)
            time.sleep(0.2)
