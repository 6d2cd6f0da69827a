"""The supervisor over small programs: order, restarts, and nothing left behind however it ends."""

import io
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from config.launch import leftovers
from config.launch.console import Terminal
from config.launch.program import LaunchError
from config.launch.supervision import SERVES, STORES, Supervisor, pause_before
from config.launch.watchdog import Watchdog
from tests.config import parts

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    leftovers.kill_all(leftovers.marked(tmp_path))


@pytest.fixture
def shown() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def supervisor(folder: Path, shown: io.StringIO) -> Iterator[Supervisor]:
    one = Supervisor(Terminal(shown), Watchdog(parts.environment(folder)))
    yield one
    one.killing.set()
    one.stop()


def events(folder: Path) -> list[str]:
    file = folder / "events"
    return file.read_text().split() if file.exists() else []


def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


def test_stops_what_serves_before_what_stores(supervisor: Supervisor, folder: Path) -> None:
    supervisor.start(parts.writer(folder, "postgres", signal.SIGINT), STORES, 5)
    supervisor.start(parts.writer(folder, "valkey"), STORES, 5)
    for name in ("web", "worker", "scheduler"):
        supervisor.add(parts.writer(folder, name), SERVES)
    supervisor.wait(lambda: len(events(folder)) == 5)
    supervisor.stop()
    ended = events(folder)[5:]
    assert sorted(ended[:3]) == ["-scheduler", "-web", "-worker"]
    assert sorted(ended[3:]) == ["-postgres", "-valkey"]
    assert leftovers.marked(folder) == []


def test_a_dead_part_is_started_again_and_its_children_are_not_left(supervisor: Supervisor, folder: Path) -> None:
    part = supervisor.add(parts.writer(folder, "web"), SERVES)
    supervisor.wait(lambda: events(folder) == ["+web"])
    assert part.process is not None
    supervisor.wait(lambda: bool(psutil.Process(part.process.pid).children()))  # type: ignore[union-attr]
    old = psutil.Process(part.process.pid).children()
    part.process.kill()
    supervisor.wait(lambda: events(folder) == ["+web", "+web"])
    assert not any(child.is_running() and child.status() != psutil.STATUS_ZOMBIE for child in old)


def test_a_part_that_keeps_dying_is_given_more_and_more_time(
    supervisor: Supervisor, folder: Path, shown: io.StringIO
) -> None:
    assert [pause_before(deaths) for deaths in (1, 2, 3, 4, 5, 6, 60)] == [1, 2, 4, 8, 16, 30, 30]
    supervisor.add(parts.shell(folder, "worker", "echo up >> events; echo a last word; exit 3"), SERVES)
    began = time.monotonic()
    supervisor.wait(lambda: len(events(folder)) == 3)
    assert 3 <= time.monotonic() - began < 6
    supervisor.wait(lambda: shown.getvalue().count("a last word") == 3)
    assert "worker ended with exit code 3; starting it again in 1 s" in shown.getvalue()
    assert "worker ended with exit code 3; starting it again in 2 s" in shown.getvalue()


def test_the_second_request_kills(supervisor: Supervisor, folder: Path) -> None:
    supervisor.add(parts.shell(folder, "deaf", "trap '' TERM; echo up >> events; while :; do sleep 0.1; done"), SERVES)
    supervisor.wait(lambda: events(folder) == ["up"])
    threading.Timer(0.3, supervisor.killing.set).start()
    began = time.monotonic()
    supervisor.stop()
    assert time.monotonic() - began < 3
    assert leftovers.marked(folder) == []


def test_a_failing_command_is_an_error(supervisor: Supervisor, folder: Path) -> None:
    supervisor.run(parts.shell(folder, "migrate", "true"))
    with pytest.raises(LaunchError, match="migrate failed with exit code 4"):
        supervisor.run(parts.shell(folder, "migrate", "exit 4"))


def test_secrets_of_the_environment_are_not_shown(folder: Path) -> None:
    assert parts.PATH not in repr(parts.shell(folder, "web", "true"))


@pytest.fixture
def supervising(folder: Path) -> Iterator["subprocess.Popen[bytes]"]:
    process = subprocess.Popen([sys.executable, "-m", "tests.config.parts", str(folder)], cwd=ROOT)
    until(lambda: len(events(folder)) == 3)
    yield process
    process.kill()
    process.wait()


def test_the_watchdog_stops_everything_when_the_supervisor_is_killed(
    supervising: "subprocess.Popen[bytes]", folder: Path
) -> None:
    supervising.kill()
    until(lambda: leftovers.marked(folder) == [])
    ended = events(folder)[3:]
    assert (sorted(ended[:2]), ended[2:]) == (["-web", "-worker"], ["-store"])


def test_the_next_start_ends_what_even_the_watchdog_could_not(
    supervising: "subprocess.Popen[bytes]", folder: Path
) -> None:
    watchdogs = [one for one in leftovers.marked(folder) if leftovers._is_watchdog(one)]
    assert len(watchdogs) == 1
    supervising.send_signal(signal.SIGSTOP)  # or it would start another one
    watchdogs[0].kill()
    supervising.kill()
    supervising.wait()
    assert len(leftovers.marked(folder)) > 3
    leftovers.end_marked(folder)
    assert leftovers.marked(folder) == []


def test_a_taken_port_is_told_before_anything_starts(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        environ = {name: value for name, value in os.environ.items() if not name.endswith("_URL")}
        environ.update(EDGEFLOW_PORT=str(port), EDGEFLOW_DATA_DIR=str(folder / "data"), EDGEFLOW_ENV="development")
        command = [sys.executable, "-m", "config.supervisor"]
        done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 1
    assert done.stdout.count("\n") == 1, done.stdout + done.stderr
    assert f"EDGEFLOW_PORT: 127.0.0.1:{port} is not to be had" in done.stdout
    assert not (folder / "data" / "postgres").exists()


def test_a_line_cannot_move_the_cursor() -> None:
    shown = io.StringIO()
    Terminal(shown).line("web", "name\x1b[2Jd\x9bevice\rover\tend")
    assert shown.getvalue() == "web       │ name�[2Jd�evice�over\tend\n"
