"""Jobs of billing: what is to be done at Stripe, and what it says. Each may run twice, late, or beside another."""

from uuid import UUID

from app import db, jobs, occurrences
from app.billing import accounts, events, metering, sync, usage
from app.billing.stripe_client import StripeDown
from app.jobs import enqueue
from workers.base import actor, log

SWEEP_AGAIN_MILLISECONDS = 15 * 60 * 1000
AGGREGATE_MILLISECONDS = 30 * 60 * 1000


@actor("billing.work")
def work(org_id: str) -> None:
    """Carry out what is due of an organization; what is left then waits behind the jobs of others."""
    if sync.work(UUID(org_id)):
        jobs.send("billing.work", org_id)


@actor("billing.redrive")
def redrive(due_at: str | None = None) -> None:
    """Ask for every account with something to do, whatever became of the job that should have done it."""
    with db.transaction(system=True):
        if due_at is None or occurrences.claim("billing.redrive", due_at):
            for org_id in accounts.due():
                enqueue("billing.work", org_id)


@actor("billing.sweep")
def sweep(due_at: str | None = None) -> None:
    """Take the events that never arrived; while Stripe does not answer, again later."""
    with db.transaction(system=True):
        if due_at is not None and not occurrences.claim("billing.sweep", due_at):
            return
    try:
        events.sweep()
    except StripeDown as down:
        log.warning("events not swept", error=str(down))
        jobs.send("billing.sweep", delay=SWEEP_AGAIN_MILLISECONDS)


@actor("billing.aggregate", time_limit=AGGREGATE_MILLISECONDS)
def aggregate(due_at: str | None = None) -> None:
    """Add up the usage of the hours that are over, and have what has settled told to Stripe."""
    with db.transaction(system=True):
        if due_at is not None and not occurrences.claim("billing.aggregate", due_at):
            return
    changed = usage.catch_up()
    with db.transaction(system=True):
        told = metering.submit()
    log.info("usage added up", rows=changed, reporting=told)
