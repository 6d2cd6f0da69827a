"""How a deployment stands: everything that a decision wants to know, counted by the database in two statements."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import text

from app import db
from app.deployments.executions import REACHABLE
from app.deployments.rollout import ALL_STAGES, State, Strategy
from app.deployments.state import StageState
from app.deployments.strategy import Health, standing
from config.settings import settings

_UNJUDGED = "e.state IN ('succeeded', 'already_installed') AND e.health IS NULL"
_STANDING = text("""
SELECT d.status, d.strategy, d.acknowledged_failures, d.started_at, d.schedule_at, d.current_stage, d.cause,
    coalesce(CAST(d.target->>'dynamic' AS boolean), false) AS dynamic, now() AS now,
    coalesce(s.acknowledged_failures, 0) AS stage_acknowledged,
    CASE WHEN s.status = 'succeeded' THEN s.finished_at END AS stage_succeeded_at
FROM deployments d LEFT JOIN deployment_stages s ON s.deployment_id = d.id AND s.number = d.current_stage
WHERE d.id = :deployment
""")
# By state, in which order an index has them, so little is sorted. Whether a device can be reached is asked for those
# that wait for it alone: asked for all, it was most of the time of what each look at a deployment costs. ``OFFSET 0``
# as in ``executions.claim``: without statistics the planner began with the connections, and took a second.
_SNAPSHOT = text(f"""
WITH waiting AS (
    SELECT count(*) AS online,
        count(*) FILTER (WHERE e.next_attempt_at IS NULL OR e.next_attempt_at <= now()) AS ready
    FROM executions e CROSS JOIN LATERAL (
        SELECT FROM connections c WHERE c.device_id = e.device_id AND {REACHABLE} OFFSET 0) c
    WHERE e.deployment_id = :deployment AND e.kind = :kind AND e.state = 'queued' AND e.stage <= :stage
)
SELECT s.*, w.online, w.ready
FROM waiting w CROSS JOIN (
    SELECT e.state, count(*) AS number, count(*) FILTER (WHERE e.stage = :stage) AS here,
        count(*) FILTER (WHERE e.stage > :stage) AS later,
        count(*) FILTER (WHERE e.state = 'in_progress' AND e.redeliver_at <= now()) AS overdue,
        extract(epoch FROM least(
            min(e.lease_until) FILTER (WHERE e.state = 'in_progress'),
            min(e.redeliver_at) FILTER (WHERE e.state = 'in_progress' AND e.redeliver_at > now()),
            min(e.next_attempt_at) FILTER (WHERE e.state = 'queued' AND e.next_attempt_at > now())
        ) - now()) AS due_in,
        min(e.device_name || ': ' || left(coalesce(e.error, e.state), 200))
            FILTER (WHERE e.state IN ('failed', 'timed_out', 'rejected')) AS failure,
        count(*) FILTER (WHERE {_UNJUDGED}) AS watched,
        count(*) FILTER (WHERE {_UNJUDGED} AND e.stage = :stage) AS watched_here,
        count(*) FILTER (WHERE e.health = 'unknown') AS unreported,
        min(e.finished_at) FILTER (WHERE {_UNJUDGED}) AS watched_first,
        max(e.finished_at) FILTER (WHERE {_UNJUDGED}) AS watched_last,
        count(*) FILTER (WHERE e.attempt > 0) AS notified,
        count(*) FILTER (WHERE e.sent_at > now() - interval '1 minute') AS sent_lately,
        extract(epoch FROM min(e.sent_at) FILTER (WHERE e.sent_at > now() - interval '1 minute')
            + interval '1 minute' - now()) AS frees_in
    FROM executions e
    WHERE e.deployment_id = :deployment AND e.kind = :kind
    GROUP BY e.state
) s
""")
WATCHED = ("in_progress", "scheduled", "paused")
"""In these the health of what was installed is still of interest."""
ROLLING_BACK = ("rolling_back", "rolled_back", "rollback_failed")


def take(deployment_id: UUID) -> State:
    """How the deployment stands, in two statements. A rollback has no stages: all its executions are of one."""
    row = db.session.execute(_STANDING, {"deployment": deployment_id}).one()
    strategy, back = Strategy.of(row.strategy), row.status in ROLLING_BACK
    values = {
        "deployment": deployment_id,
        "kind": "rollback" if back else "install",
        "stage": ALL_STAGES if back else row.current_stage,
        "offline_after": settings().offline_after,
    }
    rows = db.session.execute(_SNAPSHOT, values).all()
    here = {one.state: one.here for one in rows if one.here}
    totals = _totals(rows)
    if row.status in WATCHED and strategy.health:
        totals |= _watched(rows, strategy.health, row.now, totals["due_in"])
    return State(
        status=row.status,
        strategy=strategy,
        acknowledged=0 if back else row.acknowledged_failures,
        now=row.now,
        started=row.started_at is not None,
        starts_at=row.schedule_at,
        dynamic=row.dynamic,
        stage=StageState(
            row.current_stage, here, row.stage_acknowledged, row.stage_succeeded_at, totals.pop("watched_here", 0)
        ),
        window=standing(strategy.maintenance_windows, row.now),
        cause=row.cause,
        **totals,
    )


def _watched(rows: Sequence[Any], health: Health, now: datetime, due_in: float | None) -> dict[str, Any]:
    """What is watched for its health; the next of it to be judged is due then, if nothing else is before."""
    seen = [row for row in rows if row.watched]
    if not seen:
        return {}
    watch = timedelta(seconds=health.for_seconds)
    judged_in = (min(row.watched_first for row in seen) + watch - now).total_seconds()
    return {
        "watched": sum(row.watched for row in seen),
        "watched_here": sum(row.watched_here for row in seen),
        "watched_until": max(row.watched_last for row in seen) + watch,
        "due_in": judged_in if due_in is None else min(due_in, judged_in),
    }


def _totals(rows: Sequence[Any]) -> dict[str, Any]:
    summed = ("overdue", "notified", "sent_lately", "unreported")
    return {
        "counts": {row.state: row.number for row in rows},
        "online": rows[0].online if rows else 0,
        "ready": rows[0].ready if rows else 0,
        "reserved": sum(row.later for row in rows if row.state == "queued"),
        "due_in": min((float(row.due_in) for row in rows if row.due_in is not None), default=None),
        "frees_in": min((float(row.frees_in) for row in rows if row.frees_in is not None), default=None),
        "failure": min((row.failure for row in rows if row.failure), default=None),
        **{name: sum(getattr(row, name) for row in rows) for name in summed},
    }
