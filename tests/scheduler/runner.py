"""A worker for the tests: it carries out each scheduled job by noting that it did, and gets every message twice.

Run by ``dramatiq tests.scheduler.runner``; the tables ``deliveries`` and ``runs`` are made by the test.
"""

import dramatiq
from sqlalchemy import text

from app import db, jobs, occurrences
from scheduler.schedule import SCHEDULE

NOTE_DELIVERY = text("INSERT INTO deliveries (job, due_at) VALUES (:job, CAST(:due_at AS timestamptz)) RETURNING id")
NOTE_RUN = text("INSERT INTO runs (job, due_at) VALUES (:job, CAST(:due_at AS timestamptz))")
FIRST = text("SELECT count(*) = 1 FROM deliveries WHERE job = :job AND due_at = CAST(:due_at AS timestamptz)")


def run(job: str, due_at: str) -> None:
    values = {"job": job, "due_at": due_at}
    with db.transaction() as session:
        session.execute(NOTE_DELIVERY, values)
        if session.scalar(FIRST, values):
            jobs.enqueue(job, due_at)
    with db.transaction() as session:
        if occurrences.claim(job, due_at):
            session.execute(NOTE_RUN, values)


def declare(job: str) -> None:
    @dramatiq.actor(actor_name=job, queue_name=job.split(".")[0], broker=jobs.broker())
    def perform(due_at: str) -> None:
        run(job, due_at)


for entry in SCHEDULE:
    declare(entry.job)
