"""Jobs of notifications: what alerts give to tell, and the telling. Each may run twice, late, or beside another."""

from uuid import UUID

from app import db, jobs, occurrences
from app.alerts import delivery, notifications
from app.jobs import enqueue
from workers.base import actor


@actor("alerts.notify")
def notify(org_id: str, rule_id: str) -> None:
    """Plan what a rule's alerts give to tell, and have it sent."""
    org = UUID(org_id)
    with db.transaction(org):
        if notifications.plan_for(org, UUID(rule_id)):
            enqueue("alerts.deliver", org)


@actor("alerts.deliver")
def deliver(org_id: str) -> None:
    """Send what is due of an organization; what is left then waits behind the jobs of others."""
    if delivery.deliver(UUID(org_id)):
        jobs.send("alerts.deliver", org_id)


@actor("alerts.redrive")
def redrive(due_at: str | None = None) -> None:
    """Ask for whatever is to be told and to be sent, whatever became of the jobs that should have done it."""
    with db.transaction(system=True):
        if due_at is None or occurrences.claim("alerts.redrive", due_at):
            for org_id, rule_id in notifications.untold():
                enqueue("alerts.notify", org_id, rule_id)
            for org_id in delivery.due():
                enqueue("alerts.deliver", org_id)


@actor("alerts.remind")
def remind(due_at: str | None = None) -> None:
    """Ask for the reminders that are due."""
    with db.transaction(system=True):
        if due_at is None or occurrences.claim("alerts.remind", due_at):
            for org_id, rule_id in notifications.due_reminders():
                enqueue("alerts.notify", org_id, rule_id)
