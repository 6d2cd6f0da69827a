"""Processes that an earlier, killed start left running on a data folder."""

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import psutil  # type: ignore[import-untyped]

# Every process of ours carries its data folder under this name, so it is found again without a pid file to believe.
MARK = "EDGEFLOW_SUPERVISED"


def servers_in(folder: Path, name: str) -> list[psutil.Process]:
    """Live processes called ``name`` that work in ``folder``.

    Servers overwrite their environment, but they and their children keep their working folder.
    """
    return [process for process in _alive() if _works_in(process, folder, name)]


def marked(data_dir: Path) -> list[psutil.Process]:
    """Live processes that a supervisor of ``data_dir`` started, itself excepted."""
    return [process for process in _alive() if _mark_of(process) == str(data_dir)]


def end_marked(data_dir: Path, patience: float = 12.0) -> None:
    """End what a killed supervisor of ``data_dir`` left: its watchdog is doing so; if that was killed too, kill them.

    The stores are not among them, they are found by their folder.
    """
    deadline = time.monotonic() + patience
    while (left := marked(data_dir)) and any(map(_is_watchdog, left)) and time.monotonic() < deadline:
        time.sleep(0.1)
    kill_all(left)


def _is_watchdog(process: psutil.Process) -> bool:
    try:
        return any(Path(word).name == "watchdog.py" for word in process.cmdline())
    except psutil.Error:  # ended meanwhile
        return False


def _alive() -> Iterator[psutil.Process]:
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):  # ended while we looked
            # A zombie answers to signals but runs nothing: only its parent has yet to notice.
            if process.pid != os.getpid() and process.status() != psutil.STATUS_ZOMBIE:
                yield process


def _works_in(process: psutil.Process, folder: Path, name: str) -> bool:
    try:
        return process.name() == name and Path(process.cwd()) == folder
    except (psutil.Error, OSError):  # another user's process, or it ended
        return False


def _mark_of(process: psutil.Process) -> str | None:
    try:
        return process.environ().get(MARK)
    except (psutil.Error, OSError):  # another user's process, or it ended
        return None


def stop_servers(folder: Path, name: str, number: signal.Signals, patience: float = 5.0) -> None:
    """End the servers of ``folder``, politely for ``patience`` seconds, and return when none is left."""
    leaders = [process for process in servers_in(folder, name) if not _works_in_parent(process, folder, name)]
    for process in leaders:
        with contextlib.suppress(psutil.Error):  # ended meanwhile
            process.send_signal(number)
    deadline = time.monotonic() + patience
    while servers_in(folder, name) and time.monotonic() < deadline:
        time.sleep(0.05)
    kill_all(servers_in(folder, name))


def _works_in_parent(process: psutil.Process, folder: Path, name: str) -> bool:
    try:
        parent = process.parent()
    except psutil.Error:
        return False
    return parent is not None and _works_in(parent, folder, name)


def kill_all(processes: list[psutil.Process], patience: float = 5.0) -> None:
    """Kill and wait until they are gone."""
    for process in processes:
        with contextlib.suppress(psutil.Error):  # ended meanwhile
            process.kill()
    psutil.wait_procs(processes, timeout=patience)
