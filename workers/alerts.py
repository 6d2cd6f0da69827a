"""Jobs of alert rules: who is told of what they find is the notifications' business."""

import structlog

from app import db, jobs, occurrences
from app.alerts import evaluate as evaluation
from app.jobs import enqueue
from workers.base import actor

log = structlog.get_logger("worker")


@actor("alerts.evaluate")
def evaluate(due_at: str | None = None) -> None:
    """Evaluate some of the rules that are due; if there may be more, another job takes them meanwhile."""
    with db.transaction(system=True):
        if due_at is not None and not occurrences.claim("alerts.evaluate", due_at):
            return
        taken = evaluation.take()
        if sum(map(len, taken.values())) == evaluation.BATCH:
            jobs.send("alerts.evaluate")
        outcome = evaluation.carry_on(taken)
        for org_id, rule_id in outcome.changed:
            enqueue("alerts.notify", org_id, rule_id)
    if outcome.changed:
        log.info("alerts changed", firing=outcome.firing, resolved=outcome.resolved, rules=len(outcome.changed))
