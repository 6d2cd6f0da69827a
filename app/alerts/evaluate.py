"""One evaluation: take rules that are due and carry their alerts on, set-wise, in the caller's system transaction.

The taken rules stay locked until that transaction ends: no other evaluation looks at them meanwhile, and when its
process dies they are due again at once, with nothing of it left.
"""

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import text

from app import db
from app.alerts import queries
from config.settings import settings

BATCH = 250
REST_SECONDS = 9.0
"""Less than a tick, so that one which comes a little early finds every rule due."""


@dataclass(frozen=True)
class Outcome:
    """``changed``: ``(org_id, rule_id)`` of rules with something to tell; ``firing``, ``resolved``: how many alerts."""

    evaluated: int
    changed: list[tuple[UUID, UUID]]
    firing: int
    resolved: int


def take(most: int = BATCH) -> dict[str, list[UUID]]:
    """Take up to ``most`` due rules that nobody holds; their ids by type."""
    # Estimates of what a statement's own parts give are guesses: compiling for them would cost more than it saves.
    db.session.execute(text("SET LOCAL jit = off"))
    taken: dict[str, list[UUID]] = {}
    for rule_id, kind in db.session.execute(queries.TAKE, {"rest": REST_SECONDS, "most": most}):
        taken.setdefault(kind, []).append(rule_id)
    return taken


def carry_on(taken: dict[str, list[UUID]]) -> Outcome:
    """Evaluate taken rules: one statement for each type among them."""
    found: list[Any] = []
    for kind, ids in sorted(taken.items()):
        values: dict[str, Any] = {"rules": ids, "type": kind}
        if kind == "device_offline":
            values["offline_after"] = settings().offline_after
        found += db.session.execute(queries.EVALUATE[kind], values).all()
    return Outcome(
        evaluated=sum(len(ids) for ids in taken.values()),
        changed=[(row.org_id, row.rule_id) for row in found],
        firing=sum(row.firing for row in found),
        resolved=sum(row.resolved for row in found),
    )
