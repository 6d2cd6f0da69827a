"""Inside a process of the platform: places at which it dies or stops when told, and protections taken away.

``EDGEFLOW_FAULTS_FOLDER`` is a folder; a file in it named like a point arms that point, and the process that takes the
file away is the one that dies there (SIGKILL) or stops (SIGSTOP). ``EDGEFLOW_FAULTS_WITHOUT`` names, separated by
spaces, protections that this process does without.
"""

import os
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from sqlalchemy import text

FOLDER, WITHOUT = "EDGEFLOW_FAULTS_FOLDER", "EDGEFLOW_FAULTS_WITHOUT"


def install(part: str) -> None:
    """Prepare this process, which is a ``part`` (web, worker, scheduler). Its modules are imported by now."""
    for name, prepare in POINTS.items():
        if name.startswith(part):
            prepare(name)
    for name in os.environ.get(WITHOUT, "").split():
        CONTROLS[name]()


def reached(name: str, how: signal.Signals = signal.SIGKILL) -> None:
    """A point is passed: if it is armed, this process ends or stops here and now."""
    folder = Path(os.environ[FOLDER])
    try:
        (folder / name).unlink()
    except FileNotFoundError:
        return
    (folder / f"{name}.at").write_text(str(os.getpid()))
    os.kill(os.getpid(), how)
    time.sleep(0.1)  # a stop reaches this thread only a moment after the call: it must not get any further


def _after_commit(name: str) -> None:
    """What has committed is not told to anybody: the jobs that were to follow are lost with the process."""
    from app import db

    commit = db.commit

    def committing() -> None:
        waiting = db.session().info.get("after_commit")
        if waiting:
            waiting.insert(0, lambda: reached(name))
        commit()

    db.commit = committing


def _after_send(name: str) -> None:
    """The commands are at the gateways, and the job that sent them is not noted as done."""
    from app.tunnel import bus

    bus.send_many = _then(bus.send_many, name)


def _before_send(name: str) -> None:
    """The claim has committed, and its commands are still here."""
    from app.deployments import engine

    send = engine.send

    def sending(*args: Any) -> None:
        reached(name, signal.SIGSTOP)
        send(*args)

    engine.send = sending


def _before_commit(name: str) -> None:
    """Answers are written, and the transaction has not committed."""
    from app.deployments import engine

    engine.settle = _then(engine.settle, name)


def _after_answer(name: str) -> None:
    """Devices have answered, and no job has been sent that would settle it."""
    from app.tunnel.answers import Answers

    hand_over = Answers._hand_over

    def handing_over(self: Answers, batch: Any) -> None:
        reached(name)
        hand_over(self, batch)

    Answers._hand_over = handing_over  # type: ignore[method-assign]


def _occurrence_sent(name: str) -> None:
    """An occurrence is sent, and not noted as sent."""
    from app import jobs

    jobs.send = _then(jobs.send, name)


def _then(call: Callable[..., Any], name: str) -> Callable[..., Any]:
    def called(*args: Any, **options: Any) -> Any:
        result = call(*args, **options)
        reached(name)
        return result

    return called


POINTS: dict[str, Callable[[str], None]] = {
    "web.after-commit": _after_commit,
    "web.after-answer": _after_answer,
    "worker.after-commit": _after_commit,
    "worker.after-send": _after_send,
    "worker.before-send": _before_send,
    "worker.before-commit": _before_commit,
    "scheduler.after-send": _occurrence_sent,
}


def _no_reconciler() -> None:
    from app.deployments import engine

    engine.take_due = list


def _no_redelivery() -> None:
    from app.deployments import executions

    executions.redeliver = lambda *_: ()


def _no_send_limit() -> None:
    """A worker sends what it has claimed, however long it was stopped in between."""
    from app.deployments import engine

    advance = engine.advance
    engine.advance = lambda *args: [replace(batch, send_before=float("inf")) for batch in advance(*args)]


def _no_turns() -> None:
    """A gateway passes on what later commands have overtaken."""
    from app.tunnel.hub import Hub

    Hub._overtaken = lambda *_: False  # type: ignore[method-assign]


def _no_epoch() -> None:
    """A disconnect marks the device offline, whichever connection of it has ended."""
    from app.tunnel import queries

    queries._GONE = text(str(queries._GONE).replace("AND c.epoch = g.epoch", ""))


CONTROLS: dict[str, Callable[[], None]] = {
    "reconciler": _no_reconciler,
    "redelivery": _no_redelivery,
    "send-limit": _no_send_limit,
    "turns": _no_turns,
    "epoch": _no_epoch,
}
