"""What happened in a deployment, in order: rows that the database writes in the transaction of each change.

Triggers (migration 0002) write ``status``, ``stage`` and ``execution`` events set-wise, whoever changes those;
``progress`` and ``late_answer`` come from here. Ids rise within a deployment in the order of the commits, because
whoever changes a deployment holds its row; so a reader that has seen one id has seen all lower ones.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import structlog
from sqlalchemy import BigInteger, ForeignKeyConstraint, Identity, Index, func, select, text
from sqlalchemy.orm import Mapped, mapped_column

from app import db
from app.api_schema import Schema
from app.db import Base, Tenant
from app.deployments import rollout
from app.deployments.models import Deployment
from app.errors import NotFound
from app.streams import BATCH, Part, frame

log = structlog.get_logger(__name__)

KINDS = ("status", "stage", "execution", "progress", "late_answer")
CHANNEL = "deployment_events"
"""Each transaction that writes events notifies here, with the ids of their deployments."""


class DeploymentEvent(Tenant, Base):
    """Something that happened. ``command_id``: what an execution waited for from then on, until a late answer."""

    __tablename__ = "deployment_events"
    __table_args__ = (
        ForeignKeyConstraint(["org_id", "deployment_id"], ["deployments.org_id", "deployments.id"], ondelete="CASCADE"),
        Index("ix_deployment_events_command_id", "command_id", postgresql_where=text("command_id IS NOT NULL")),
    )

    deployment_id: Mapped[UUID] = mapped_column(primary_key=True)
    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    kind: Mapped[str]
    command_id: Mapped[UUID | None]
    data: Mapped[dict[str, Any]]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


def page(org_id: UUID, deployment_id: UUID, *, after: int, limit: int) -> dict[str, Any]:
    """Events with higher ids than ``after``, oldest first, and the ``after`` of the next page. Raises NotFound."""
    finished(org_id, deployment_id)
    found = since(org_id, deployment_id, after, limit + 1)
    items = found[:limit]
    return {"items": items, "next_after": items[-1].id if items else after, "more": len(found) > limit}


def since(org_id: UUID, deployment_id: UUID, after: int, limit: int) -> Sequence[DeploymentEvent]:
    """The next events after one, oldest first."""
    query = select(DeploymentEvent).where(
        DeploymentEvent.org_id == org_id, DeploymentEvent.deployment_id == deployment_id, DeploymentEvent.id > after
    )
    return db.session.scalars(query.order_by(DeploymentEvent.id).limit(limit)).all()


def finished(org_id: UUID, deployment_id: UUID) -> bool:
    """Whether a deployment is over, and nothing is under way for it any more. Raises NotFound."""
    query = select(Deployment.status, Deployment.next_check_at).where(
        Deployment.org_id == org_id, Deployment.id == deployment_id
    )
    row = db.session.execute(query).first()
    if row is None:
        raise NotFound("deployment")
    return row.status in rollout.FINAL and row.next_check_at is None


_PROGRESS = text("""
INSERT INTO deployment_events (org_id, deployment_id, kind, data)
SELECT d.org_id, d.id, 'progress', new.data
FROM deployments d, (SELECT CAST(:data AS jsonb) AS data) new
WHERE d.id = :deployment AND new.data IS DISTINCT FROM (
    SELECT e.data FROM deployment_events e
    WHERE e.deployment_id = d.id AND e.kind = 'progress' ORDER BY e.id DESC LIMIT 1)
""")


def note_progress(deployment_id: UUID, state: rollout.State, reason: str) -> None:
    """Write down how far a locked deployment is, if that has changed."""
    if not state.counts:
        return
    rolling_back = state.status in ("rolling_back", "rolled_back", "rollback_failed")
    counts = {one: state.count(one) for one in rollout.EXECUTION_STATES}
    data = {
        "kind": "rollback" if rolling_back else "install",
        "counts": {**counts, "total": sum(counts.values())},
        "reason": reason,
    }
    db.session.execute(_PROGRESS, {"deployment": deployment_id, "data": db.as_json(data)})


_LOCK_LATE = text("""
SELECT id FROM deployments
WHERE id IN (SELECT deployment_id FROM deployment_events WHERE command_id = ANY (CAST(:ids AS uuid[])))
ORDER BY id FOR NO KEY UPDATE
""")
_LATE = text("""
WITH answers AS (
    SELECT * FROM unnest(
            CAST(:ids AS uuid[]), CAST(:outcomes AS text[]), CAST(:errors AS text[]), CAST(:codes AS text[]))
        AS a (command_id, outcome, error, code)
), asked AS (
    UPDATE deployment_events e SET command_id = NULL
    FROM answers a
    WHERE e.command_id = a.command_id AND NOT EXISTS (
        SELECT FROM executions x WHERE x.command_id = a.command_id AND x.state = 'in_progress')
    RETURNING e.org_id, e.deployment_id, e.data, a.command_id, a.outcome, a.error, a.code
)
INSERT INTO deployment_events (org_id, deployment_id, kind, data)
SELECT k.org_id, k.deployment_id, 'late_answer', jsonb_build_object(
    'execution_id', k.data->'execution_id', 'device_id', k.data->'device_id', 'device_name', k.data->'device_name',
    'kind', k.data->'kind', 'attempt', k.data->'attempt', 'state', x.state,
    'answer', k.outcome, 'error', CASE WHEN k.outcome IN ('rejected', 'failed', 'timeout', 'error') THEN k.error END,
    'error_code', k.code)
FROM asked k LEFT JOIN executions x ON x.id = CAST(k.data->>'execution_id' AS uuid)
WHERE k.outcome IS DISTINCT FROM x.state
RETURNING deployment_id, data
""")


def note_late(answers: Sequence[Sequence[Any]]) -> None:
    """Write down answers ``[command_id, outcome, error, code]`` that came when nobody waited for them any more.

    They have changed nothing; each command's first one becomes an event, unless it only repeats what was known. In a
    transaction of its own: it locks the deployments in order.
    """
    ids, outcomes, errors, codes = (list(column) for column in zip(*answers, strict=True))
    db.session.execute(_LOCK_LATE, {"ids": ids})
    values = {"ids": ids, "outcomes": outcomes, "errors": errors, "codes": codes}
    for row in db.session.execute(_LATE, values):
        log.info("late answer", deployment_id=row.deployment_id, **{key: row.data[key] for key in _LOGGED})


_LOGGED = ("device_name", "state", "answer", "error_code")


class Tail:
    """The events of a deployment after ``after``, part by part, as a stream tells them, until it is over."""

    def __init__(self, org_id: UUID, deployment_id: UUID, after: int, schema: Schema) -> None:
        self._org_id, self._deployment_id, self._after, self._schema = org_id, deployment_id, after, schema

    def __call__(self) -> Part:
        """The next part. Raises NotFound."""
        # In this order: what happened before the end is there once the end is.
        over = finished(self._org_id, self._deployment_id)
        found = since(self._org_id, self._deployment_id, self._after, BATCH)
        self._after = found[-1].id if found else self._after
        frames = "".join(frame(one.kind, self._schema.dump(one), id=one.id) for one in found)
        more = len(found) == BATCH
        return Part(frames, more=more, over=over and not more)
