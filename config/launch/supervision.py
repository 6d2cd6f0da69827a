"""Keeping programs running: started in order, started again when they die, stopped in order."""

import subprocess
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from config.launch.console import Terminal
from config.launch.program import LaunchError, Program, await_ready, kill_group, send
from config.launch.watchdog import PATIENCE, Watchdog

SERVES, STORES = 0, 1  # the stages of stopping: first what serves, then what stores
LONGEST_PAUSE = 30.0
HEALTHY_SECONDS = 60.0
_TICK = 0.1


class Stopped(Exception):
    """A person asked to stop while something was waited for."""


def pause_before(deaths: int) -> float:
    """Seconds until the next start after ``deaths`` deaths in a row: 1, 2, 4 … 30."""
    return min(2.0 ** (deaths - 1), LONGEST_PAUSE)


@dataclass
class Part:
    """A supervised program and what became of it."""

    program: Program
    stage: int = SERVES
    process: "subprocess.Popen[bytes] | None" = None
    started: float = 0.0
    deaths: int = 0
    due: float = 0.0

    @property
    def runs(self) -> bool:
        return self.process is not None and self.process.poll() is None


class Supervisor:
    """Runs parts. One thread calls ``start``, ``wait``, ``watch`` and ``stop``; any thread may call ``add``.

    ``stopping`` set means end in order, ``killing`` set means without waiting for what serves.
    """

    def __init__(self, terminal: Terminal, watchdog: Watchdog) -> None:
        self.stopping = threading.Event()
        self.killing = threading.Event()
        self._terminal = terminal
        self._watchdog = watchdog
        self._parts: list[Part] = []
        self._logs: list[threading.Thread] = []

    def add(self, program: Program, stage: int = SERVES) -> Part:
        """Have a program kept running from the next tick on."""
        part = Part(program, stage)
        self._parts.append(part)
        return part

    def start(self, program: Program, stage: int, seconds: float) -> Part:
        """Run a program now and return when it serves; raises LaunchError after ``seconds`` or its end, or Stopped."""
        part = self.add(program, stage)
        self._spawn(part)
        try:
            await_ready(program, lambda: self.stopping.is_set() or not part.runs, seconds)
        except LaunchError:
            if self.stopping.is_set():
                raise Stopped from None
            raise
        return part

    def run(self, program: Program) -> None:
        """Run a program to its end; raises LaunchError unless it succeeded, Stopped if a person did not wait."""
        part = Part(program)
        self._spawn(part)
        process = part.process
        assert process is not None
        while process.poll() is None:
            self.tick()
            if self.stopping.wait(_TICK):
                self._parts.append(part)  # stop() ends it with the others
                raise Stopped
        self._watchdog.forget(process.pid)
        if process.returncode != 0:
            raise LaunchError(f"{program.name} failed with exit code {process.returncode}: its lines are above")

    def wait(self, done: Callable[[], bool]) -> None:
        """Keep everything running until ``done()``; raises Stopped if a person asks for the end first."""
        while not done():
            self.tick()
            if self.stopping.wait(_TICK):
                raise Stopped

    def watch(self) -> None:
        """Keep everything running until a person asks for the end."""
        while not self.stopping.wait(_TICK):
            self.tick()

    def tick(self) -> None:
        """Look once: notice the dead, start what is due."""
        self._watchdog.check()
        now = time.monotonic()
        for part in list(self._parts):
            if part.process is not None and not part.runs:
                self._bury(part, now)
            if part.process is None and now >= part.due:
                self._revive(part, now)

    def _bury(self, part: Part, now: float) -> None:
        assert part.process is not None
        self._end(part.process)
        code, part.process = part.process.returncode, None
        part.deaths = 1 if now - part.started >= HEALTHY_SECONDS else part.deaths + 1
        part.due = now + pause_before(part.deaths)
        how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
        self._terminal.say(f"{part.program.name} {how}; starting it again in {pause_before(part.deaths):.0f} s")

    def _revive(self, part: Part, now: float) -> None:
        try:
            self._spawn(part)
        except (LaunchError, OSError) as error:
            part.deaths += 1
            part.due = now + pause_before(part.deaths)
            self._terminal.say(f"{part.program.name} cannot be started: {error}; again in {part.due - now:.0f} s")
            return
        if part.deaths:
            self._terminal.say(f"{part.program.name} is started again")

    def _spawn(self, part: Part) -> None:
        part.program.before()
        process = part.program.spawn(subprocess.PIPE)
        self._watchdog.watch(process.pid, part.program.stop_signal, part.stage)
        part.process, part.started = process, time.monotonic()
        assert process.stdout is not None
        self._logs = [log for log in self._logs if log.is_alive()]
        self._logs.append(self._terminal.follow(part.program.name, process.stdout))

    def stop(self) -> None:
        """End everything: what serves, in the order of starting, then what stores, last started first."""
        serving = [part for part in self._parts if part.stage == SERVES]
        storing = [part for part in reversed(self._parts) if part.stage == STORES]
        self._stop_stage(serving, PATIENCE[SERVES], hurry=self.killing)
        # These take a moment only, and spare the next start a recovery: no reason to kill them at once.
        self._stop_stage(storing, PATIENCE[STORES], hurry=threading.Event())
        for log in self._logs:
            log.join(timeout=0.2)
        self._watchdog.close()

    def _stop_stage(self, parts: Iterable[Part], patience: float, hurry: threading.Event) -> None:
        running = [(part, part.process) for part in parts if part.process is not None]
        for part, process in running:
            send(process, part.program.stop_signal)
        deadline = time.monotonic() + patience
        while any(process.poll() is None for _, process in running):
            if hurry.is_set() or time.monotonic() > deadline:
                break
            time.sleep(0.02)
        for part, process in running:
            if process.poll() is None and not hurry.is_set():
                self._terminal.say(f"{part.program.name} did not end within {patience:g} s and is killed")
            self._end(process)
            part.process = None

    def _end(self, process: "subprocess.Popen[bytes]") -> None:
        kill_group(process.pid)
        process.wait()
        self._watchdog.forget(process.pid)
