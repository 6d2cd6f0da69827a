"""APScheduler drives the table: in memory, since the database's ledger is what decides."""

from datetime import UTC, datetime

import psycopg
import structlog
from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.interval import IntervalTrigger

from app import clock
from scheduler.occurrences import Ledger
from scheduler.schedule import SCHEDULE, Entry

log = structlog.get_logger("scheduler")

EPOCH = datetime.fromtimestamp(0, UTC)


def ticker(ledger: Ledger) -> BackgroundScheduler:
    """A scheduler, not started, that ticks each entry when it is due, and once at once.

    The tick at once catches up: a new leader records what came due while nobody led. One thread ticks, so that two
    ticks of the same moment do not both send what they find unsent; a tick that comes late runs once, for the present.
    """
    made = BackgroundScheduler(
        timezone=UTC,
        executors={"default": ThreadPoolExecutor(max_workers=1)},
        job_defaults={"coalesce": True, "misfire_grace_time": None, "max_instances": 1},
    )
    for entry in SCHEDULE:
        made.add_job(tick, args=[ledger, entry])
        every = IntervalTrigger(seconds=entry.every, start_date=EPOCH, timezone=UTC)
        made.add_job(tick, every, args=[ledger, entry], id=entry.job)
    return made


def tick(ledger: Ledger, entry: Entry) -> None:
    """Record the occurrence that is due and send whatever has not been sent."""
    try:
        ledger.record(entry.job, entry.due_at(clock.now()))
        ledger.send()
    except psycopg.Error as error:
        # The session is gone: this scheduler no longer leads, and has written nothing.
        log.warning("occurrence not recorded", job=entry.job, error=str(error).splitlines()[0])
