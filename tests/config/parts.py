"""Small programs to supervise, and a process that supervises them (``python -m tests.config.parts FOLDER``)."""

import signal
import sys
from pathlib import Path

from config.launch.console import Terminal
from config.launch.leftovers import MARK
from config.launch.program import Program
from config.launch.supervision import SERVES, STORES, Supervisor
from config.launch.watchdog import Watchdog

PATH = "/usr/local/bin:/usr/bin:/bin"


def environment(folder: Path) -> dict[str, str]:
    return {"PATH": PATH, MARK: str(folder)}


def writer(folder: Path, name: str, number: signal.Signals = signal.SIGTERM) -> Program:
    """A program with a child that writes its start, and its end once it was asked for by ``number``."""
    script = (
        f'echo "+{name}" >> events; sleep 600 & '
        f'trap "echo -{name} >> events; exit" {number.name.removeprefix("SIG")}; while :; do wait $!; sleep 0.02; done'
    )
    return shell(folder, name, script, number)


def shell(folder: Path, name: str, script: str, number: signal.Signals = signal.SIGTERM) -> Program:
    return Program(
        name=name, command=["sh", "-c", script], cwd=folder, environment=environment(folder), stop_signal=number
    )


def main() -> None:
    folder = Path(sys.argv[1])
    supervisor = Supervisor(Terminal(), Watchdog(environment(folder)))
    supervisor.start(writer(folder, "store", signal.SIGINT), STORES, 5)
    for name in ("web", "worker"):
        supervisor.add(writer(folder, name), SERVES)
    supervisor.watch()


if __name__ == "__main__":
    main()
