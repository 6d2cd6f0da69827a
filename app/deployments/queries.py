"""Deployments and their stages: locked, begun, moved on, written down. Devices' part in them: ``executions``.

Time is always the database's ``now()``. Row-level security keeps each statement within its tenant.
"""

from typing import Any
from uuid import UUID

from sqlalchemy import text

from app import db
from app.deployments.rollout import EXECUTION_STATES, FINAL, Decision

_LOCK = text("""
SELECT id, org_id, flow_id, version, status, strategy, target, force, started_at FROM deployments
WHERE id = :deployment FOR UPDATE
""")


def lock(deployment_id: UUID) -> Any | None:
    """The deployment, which nobody else drives until this transaction ends; None when there is none."""
    return db.session.execute(_LOCK, {"deployment": deployment_id}).first()


_SAVE = text("""
UPDATE deployments SET
    updated_at = CASE WHEN (status, reason) IS DISTINCT FROM (:status, :reason) THEN now() ELSE updated_at END,
    finished_at = CASE WHEN :final THEN coalesce(finished_at, now()) END,
    next_check_at = now() + make_interval(secs => CAST(:check_in AS float8)),
    status = :status, reason = :reason, cause = coalesce(:cause, cause)
WHERE id = :deployment
""")
_END_STAGES = text("""
UPDATE deployment_stages SET
    status = CASE status WHEN 'running' THEN :status ELSE 'skipped' END,
    finished_at = CASE status WHEN 'running' THEN now() END
WHERE deployment_id = :deployment AND status IN ('pending', 'running')
""")
_STAGE_ENDS = {"succeeded": "succeeded", "failed": "failed", "canceled": "skipped", "rolling_back": "failed"}


def save(deployment_id: UUID, before: str, decision: Decision) -> None:
    """Write a decision down."""
    values = {
        "deployment": deployment_id,
        "status": decision.status,
        "reason": decision.reason,
        "check_in": decision.check_in,
        "cause": decision.cause,
        "final": decision.status in FINAL,
    }
    db.session.execute(_SAVE, values)
    if decision.status != before and decision.status in _STAGE_ENDS:
        end_stages(deployment_id, _STAGE_ENDS[decision.status])


def end_stages(deployment_id: UUID, status: str) -> None:
    """Close the stages that are still open: the running one becomes ``status``, those after it were skipped."""
    db.session.execute(_END_STAGES, {"deployment": deployment_id, "status": status})


_STAGE_SUCCEEDED = text("""
UPDATE deployment_stages s SET status = 'succeeded', finished_at = now()
FROM deployments d
WHERE d.id = :deployment AND s.deployment_id = d.id AND s.number = d.current_stage AND s.status = 'running'
""")
_NEXT_STAGE = text("""
WITH next AS (
    UPDATE deployments SET current_stage = current_stage + 1 WHERE id = :deployment RETURNING id, current_stage
)
UPDATE deployment_stages s SET status = 'running', started_at = now()
FROM next WHERE s.deployment_id = next.id AND s.number = next.current_stage
""")


_BEGIN = text("""
UPDATE deployments SET
    status = CASE WHEN :found THEN 'in_progress' ELSE 'canceled' END,
    cause = CASE WHEN NOT :found THEN 'no device matched when it was to start' END
WHERE id = :deployment
""")


def begin(deployment_id: UUID, found: bool) -> None:
    """Its time has come: it runs, or it is over if no device has been found."""
    db.session.execute(_BEGIN, {"deployment": deployment_id, "found": found})


def stage_succeeded(deployment_id: UUID) -> None:
    """The current stage has come up to its threshold; from now on it soaks."""
    db.session.execute(_STAGE_SUCCEEDED, {"deployment": deployment_id})


def next_stage(deployment_id: UUID) -> None:
    db.session.execute(_NEXT_STAGE, {"deployment": deployment_id})


_DUE = text("""
UPDATE deployments SET next_check_at = now() + interval '5 seconds'
WHERE id IN (
    SELECT id FROM deployments WHERE next_check_at <= now() ORDER BY next_check_at LIMIT 500 FOR UPDATE SKIP LOCKED)
RETURNING org_id, id
""")


def take_due() -> list[tuple[UUID, UUID]]:
    """Deployments to look at now, of all tenants (system transactions only), as ``(org_id, id)``."""
    return [(row.org_id, row.id) for row in db.session.execute(_DUE)]


_PROGRESS = text("""
SELECT deployment_id, kind, state, count(*) AS number FROM executions
WHERE deployment_id = ANY (CAST(:ids AS uuid[])) GROUP BY deployment_id, kind, state
""")


def progress(deployment_ids: list[UUID]) -> dict[tuple[UUID, str], dict[str, int]]:
    """``{(deployment, kind): {state: number, …, total}}`` with every state named, of those that have executions."""
    found: dict[tuple[UUID, str], dict[str, int]] = {}
    for row in db.session.execute(_PROGRESS, {"ids": deployment_ids}):
        counts = found.setdefault((row.deployment_id, row.kind), no_progress())
        counts[row.state] = row.number
        counts["total"] += row.number
    return found


def no_progress() -> dict[str, int]:
    return dict.fromkeys((*EXECUTION_STATES, "total"), 0)
