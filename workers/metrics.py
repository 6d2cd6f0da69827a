"""Jobs of metrics: roll-ups."""

import time

from app import db, occurrences
from app.metrics import rollup
from app.metrics.levels import LEVELS, Level
from workers.base import actor, log

JOB = "metrics.rollup"
BUDGET_SECONDS = 45.0  # then the next occurrence goes on
LONG_SECONDS = 0.5  # storing waits meanwhile
MOST = 10  # spans in one transaction


@actor("metrics.rollup")
def roll_up(due_at: str) -> None:
    """Complete the buckets whose time has come, from fine to coarse; each transaction is whole by itself."""
    with db.transaction(system=True):
        if not occurrences.claim(JOB, due_at):
            return
    catch_up(BUDGET_SECONDS)


def catch_up(seconds: float) -> None:
    """Roll up for at most about so many seconds, or until everything is complete."""
    deadline = time.monotonic() + seconds
    for level in LEVELS:
        _catch_up(level, deadline)


def _catch_up(level: Level, deadline: float) -> None:
    spans = 1
    while True:
        began = time.monotonic()
        with db.transaction(system=True) as session:
            step = rollup.advance(session, level, level.span * spans)
        taken = time.monotonic() - began
        if step is None or not step.more:
            return
        spans = min(MOST, spans * 2) if taken < LONG_SECONDS else max(1, spans // 2)
        if time.monotonic() > deadline:
            log.info("roll-up goes on later", level=level.name, until=step.until.isoformat())
            return
