"""A program to run: what it is called with, as whom, and how it is asked to stop."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO


class LaunchError(RuntimeError):
    """Something cannot be started; the message is one line for the person at the terminal."""


@dataclass(frozen=True)
class Account:
    """The user and group that a server runs as, when that is not the current user."""

    uid: int
    gid: int


def _nothing() -> None:
    """Most programs leave nothing behind that the next start must clear."""


def _at_once() -> None:
    """Most programs are not waited for."""


@dataclass(frozen=True, kw_only=True)
class Program:
    """One long-running command.

    ``before`` clears what a killed predecessor left; ``probe`` raises LaunchError while the program does not serve.
    Secrets belong into ``environment``, never into ``command``, which everybody on the machine can read. ``inherits``:
    file descriptors of ours that it gets, under the same numbers.
    """

    name: str
    command: Sequence[str]
    cwd: Path
    environment: Mapping[str, str] = field(repr=False)
    stop_signal: signal.Signals = signal.SIGTERM
    account: Account | None = None
    inherits: Sequence[int] = ()
    before: Callable[[], None] = _nothing
    probe: Callable[[], None] = _at_once

    def spawn(self, output: int | IO[bytes]) -> "subprocess.Popen[bytes]":
        """Start it in a session of its own, so that the terminal's Ctrl-C reaches the supervisor alone."""
        return subprocess.Popen(
            list(self.command),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=self.cwd,
            env=dict(self.environment),
            start_new_session=True,
            pass_fds=tuple(self.inherits),
            user=self.account.uid if self.account else None,
            group=self.account.gid if self.account else None,
            extra_groups=[] if self.account else None,
        )


def run_as(account: Account | None, command: Sequence[str], environment: Mapping[str, str]) -> str:
    """Run a short command as ``account`` and return its output; raises LaunchError with the output if it fails."""
    try:
        done = subprocess.run(
            list(command),
            check=False,
            cwd="/",
            env=dict(environment),
            capture_output=True,
            text=True,
            timeout=60,
            user=account.uid if account else None,
            group=account.gid if account else None,
            extra_groups=[] if account else None,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise LaunchError(f"{command[0]}: {error}") from error
    if done.returncode != 0:
        raise LaunchError(f"{Path(command[0]).name}: {(done.stderr or done.stdout).strip()}")
    return done.stdout


def await_ready(program: Program, ended: Callable[[], bool], seconds: float) -> None:
    """Return when ``program`` serves; raises LaunchError with its last reason when it ended or after ``seconds``."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return program.probe()
        except LaunchError:
            if ended() or time.monotonic() > deadline:
                raise
        time.sleep(0.02)


def send(process: "subprocess.Popen[bytes]", number: signal.Signals) -> None:
    """Signal the program itself, not its children: it knows best in which order they end."""
    with contextlib.suppress(ProcessLookupError):  # it ended meanwhile, which is what was asked
        process.send_signal(number)


def kill_group(pid: int) -> None:
    """Kill whatever is left of the session that ``pid`` led: a killed master must not leave its children serving."""
    with contextlib.suppress(ProcessLookupError, PermissionError):  # no such group: nothing was left
        os.killpg(pid, signal.SIGKILL)
