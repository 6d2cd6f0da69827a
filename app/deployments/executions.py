"""Executions and their commands, set-wise: what is due is claimed, sent again, answered or given up in one statement.

Writes about a command are fenced: they name its ``command_id``, which is new with each attempt, and want the state that
they leave. Time is always the database's ``now()``. Row-level security keeps each statement within its tenant.
"""

from collections.abc import Iterable, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import text

from app import db
from app.deployments.preflight import REJECTED, lacking, words
from config.settings import settings

NOT_SENT_PAUSE = 2  # seconds until a command that no gateway took is tried again

REACHABLE = "c.disconnected_at IS NULL AND c.last_seen_at > now() - make_interval(secs => :offline_after)"
_MAY_RETRY = (
    "d.status IN ('in_progress', 'scheduled', 'paused', 'rolling_back') "
    "AND e.attempt <= CAST(d.strategy->>'retries' AS int)"
)
_BACKOFF = "CAST(d.strategy->>'retry_backoff_seconds' AS float8) * 2 ^ (e.attempt - 1)"

_EXPIRE = text(f"""
UPDATE executions e SET
    state = CASE WHEN e.device_id IS NULL THEN 'removed' WHEN {_MAY_RETRY} THEN 'queued' ELSE 'timed_out' END,
    next_attempt_at = CASE WHEN {_MAY_RETRY} THEN now() + make_interval(secs => {_BACKOFF}) END,
    finished_at = CASE WHEN e.device_id IS NOT NULL AND {_MAY_RETRY} THEN NULL ELSE now() END,
    error = CASE WHEN e.device_id IS NULL THEN 'the device was deleted'
        ELSE 'no answer within ' || (d.strategy->>'timeout_seconds') || ' s' END,
    error_code = CASE WHEN e.device_id IS NULL THEN 'DEVICE_REMOVED' ELSE 'DEVICE_TIMEOUT' END,
    command_id = NULL, lease_until = NULL, redeliver_at = NULL
FROM deployments d
WHERE d.id = e.deployment_id AND e.deployment_id = :deployment AND e.state IN ('queued', 'in_progress')
  AND (e.device_id IS NULL OR e.state = 'in_progress' AND e.lease_until < now())
""")


def expire(deployment_id: UUID) -> None:
    """End the attempts whose lease is over, and the executions whose device was deleted."""
    db.session.execute(_EXPIRE, {"deployment": deployment_id})


_ONE_CLAIMER = text("SELECT pg_advisory_xact_lock(hashtextextended(current_setting('app.org_id'), 42))")
_CLAIM = text(f"""
WITH due AS (
    SELECT e.id, e.device_id, e.version, route.gateway, now_there.version AS installed, now_there.content_hash
    FROM executions e
    JOIN LATERAL (
        SELECT c.gateway FROM connections c JOIN devices v ON v.id = c.device_id AND v.disabled_at IS NULL
        WHERE c.device_id = e.device_id AND {REACHABLE} OFFSET 0) route ON true
    LEFT JOIN LATERAL (
        SELECT i.version, i.content_hash FROM installations i
        WHERE i.device_id = e.device_id AND i.flow_id = :flow AND i.replaced_at IS NULL OFFSET 0) now_there ON true
    WHERE e.deployment_id = :deployment AND e.kind = :kind AND e.state = 'queued' AND e.stage <= :stage
      AND (e.next_attempt_at IS NULL OR e.next_attempt_at <= now())
      AND NOT EXISTS (
          SELECT FROM executions b
          WHERE b.device_id = e.device_id AND b.state IN ('in_progress', 'superseded')
            AND (b.state = 'in_progress' OR b.redeliver_at > now())
          OFFSET 0)
    ORDER BY e.stage, e.id
    LIMIT :number
    FOR UPDATE OF e SKIP LOCKED
), met AS MATERIALIZED (
    SELECT due.*, {lacking("has.list", "needs.list")} AS lacks
    FROM due
    LEFT JOIN LATERAL (
        SELECT s.reported->'node_types' AS list FROM shadows s
        WHERE s.device_id = due.device_id OFFSET 0) has ON true
    LEFT JOIN LATERAL (
        SELECT v.node_types AS list FROM flow_versions v
        WHERE v.flow_id = :flow AND v.number = due.version OFFSET 0) needs ON true
), judged AS MATERIALIZED (
    SELECT met.*, coalesce(cardinality(lacks), 0) = 0 AS fit FROM met
)
UPDATE executions e SET
    state = CASE WHEN j.fit THEN 'in_progress' ELSE 'rejected' END,
    error = CASE WHEN NOT j.fit THEN {words("j.lacks")} END,
    error_code = CASE WHEN NOT j.fit THEN '{REJECTED}' END,
    finished_at = CASE WHEN NOT j.fit THEN now() END,
    attempt = e.attempt + CAST(j.fit AS int), next_attempt_at = NULL,
    command_id = CASE WHEN j.fit THEN gen_random_uuid() END,
    started_at = coalesce(e.started_at, CASE WHEN j.fit THEN now() END),
    sent_at = CASE WHEN j.fit THEN now() ELSE e.sent_at END,
    previous_version = CASE WHEN e.kind = 'install' AND e.attempt = 0 THEN j.installed ELSE e.previous_version END,
    lease_until = CASE WHEN j.fit THEN now() + make_interval(secs => :timeout) END,
    redeliver_at = CASE WHEN j.fit THEN now() + make_interval(secs => :redeliver) END
FROM judged j
WHERE e.id = j.id
RETURNING e.device_id, e.command_id, e.version, j.gateway, j.installed, j.content_hash,
    CASE WHEN j.fit THEN nextval('rollout_turns') END AS turn
""")


def claim(deployment_id: UUID, flow_id: UUID, kind: str, number: int, stage: int, timeout: float) -> Sequence[Any]:
    """Take up to ``number`` queued executions, of stages up to ``stage``, whose devices can be reached and have nothing
    else in flight. Those of devices that lack a node type are rejected: their rows come without a ``command_id``.

    Claims of one organization take turns, so that each sees what the others have in flight; the unique index would
    refuse a second command for a device anyhow. What a device ran before is noted at its first attempt.
    ``OFFSET 0`` keeps these look-ups by device: joined, fresh tables without statistics made the planner read whole
    tenants again and again (150 ms a claim of 50 among 5,000 devices, against 5 ms). ``MATERIALIZED`` has what a device
    lacks compared once, and not for each column that depends on it.
    """
    db.session.execute(_ONE_CLAIMER)
    values = {
        "deployment": deployment_id,
        "flow": flow_id,
        "kind": kind,
        "number": number,
        "stage": stage,
        "timeout": timeout,
        "redeliver": settings().redeliver_seconds,
        "offline_after": settings().offline_after,
    }
    return db.session.execute(_CLAIM, values).all()


_REDELIVER = text(f"""
UPDATE executions e SET redeliver_at = now() + make_interval(secs => :redeliver)
FROM connections c
WHERE c.device_id = e.device_id AND {REACHABLE}
  AND e.deployment_id = :deployment AND e.state = 'in_progress' AND e.redeliver_at <= now()
RETURNING e.device_id, e.command_id, e.version, c.gateway, nextval('rollout_turns') AS turn,
    (SELECT i.version FROM installations i
     WHERE i.device_id = e.device_id AND i.flow_id = :flow AND i.replaced_at IS NULL) AS installed,
    (SELECT i.content_hash FROM installations i
     WHERE i.device_id = e.device_id AND i.flow_id = :flow AND i.replaced_at IS NULL) AS content_hash
""")


def redeliver(deployment_id: UUID, flow_id: UUID) -> Sequence[Any]:
    """Commands that have been unanswered for long, to be sent again under their ids."""
    values = {
        "deployment": deployment_id,
        "flow": flow_id,
        "redeliver": settings().redeliver_seconds,
        "offline_after": settings().offline_after,
    }
    return db.session.execute(_REDELIVER, values).all()


_LOCK_ANSWERED = text("""
SELECT d.id FROM executions e
JOIN deployments d ON d.id = e.deployment_id
JOIN devices v ON v.id = e.device_id
WHERE e.command_id = ANY (CAST(:ids AS uuid[]))
ORDER BY d.id, v.id
FOR UPDATE OF d FOR KEY SHARE OF v
""")
# ``OFFSET 0`` as above: joined, the planner read all that is in progress anywhere, and what had been since the last
# vacuum.
_SETTLE = text(f"""
WITH answers AS (
    SELECT * FROM unnest(
            CAST(:ids AS uuid[]), CAST(:outcomes AS text[]), CAST(:errors AS text[]), CAST(:codes AS text[]))
        AS a (command_id, outcome, error, code)
), verdicts AS (
    SELECT e.id, a.command_id, a.outcome, a.error, a.code, {_BACKOFF} AS backoff,
        CASE
            WHEN a.outcome IN ('succeeded', 'already_installed', 'rejected', 'failed') THEN a.outcome
            WHEN a.outcome = 'unknown' THEN 'in_progress'
            WHEN a.outcome = 'not_sent' AND d.status IN ('canceled', 'failed') THEN 'canceled'
            WHEN a.outcome = 'not_sent' OR {_MAY_RETRY} THEN 'queued'
            WHEN a.outcome = 'timeout' THEN 'timed_out'
            ELSE 'failed'
        END AS state
    FROM answers a
    JOIN LATERAL (
        SELECT * FROM executions e
        WHERE e.command_id = a.command_id AND e.state = 'in_progress' AND e.device_id IS NOT NULL OFFSET 0) e ON true
    JOIN deployments d ON d.id = e.deployment_id
)
UPDATE executions e SET
    state = v.state,
    attempt = e.attempt - CAST(v.outcome = 'not_sent' AS int),
    started_at = CASE WHEN v.outcome <> 'not_sent' OR e.attempt > 1 THEN e.started_at END,
    sent_at = CASE WHEN v.outcome <> 'not_sent' THEN e.sent_at END,
    finished_at = CASE WHEN v.state NOT IN ('queued', 'in_progress') THEN now() END,
    next_attempt_at = CASE WHEN v.state = 'queued'
        THEN now() + make_interval(secs => CASE v.outcome WHEN 'not_sent' THEN {NOT_SENT_PAUSE} ELSE v.backoff END) END,
    command_id = CASE WHEN v.state = 'in_progress' THEN e.command_id END,
    lease_until = CASE WHEN v.state = 'in_progress' THEN e.lease_until END,
    redeliver_at = CASE WHEN v.state = 'in_progress' THEN now() + interval '1 second' END,
    error = CASE WHEN v.outcome IN ('rejected', 'failed', 'timeout', 'error') THEN v.error END,
    error_code = CASE WHEN v.outcome IN ('rejected', 'failed', 'timeout', 'error') THEN v.code END
FROM verdicts v
WHERE e.id = v.id
RETURNING e.id, e.deployment_id, e.device_id, e.state, v.command_id
""")
_RELEASE = text("""
WITH released AS (
    UPDATE executions SET command_id = NULL, redeliver_at = NULL
    WHERE command_id = ANY (CAST(:ids AS uuid[])) AND state = 'superseded'
    RETURNING deployment_id, device_id
)
SELECT deployment_id FROM released
UNION
SELECT e.deployment_id FROM released r JOIN executions e ON e.device_id = r.device_id AND e.state = 'queued'
""")


def settle(answers: Iterable[tuple[UUID, str, str | None, str | None]]) -> Sequence[Any]:
    """Record answers ``(command_id, outcome, error, code)``; the executions that changed.

    Locks the deployments first, so that nobody cancels or rolls back between a verdict and its writing, and the devices
    against being deleted, in the order that a deletion takes them.
    """
    ids, outcomes, errors, codes = (list(column) for column in zip(*answers, strict=True))
    db.session.execute(_LOCK_ANSWERED, {"ids": ids})
    values = {"ids": ids, "outcomes": outcomes, "errors": errors, "codes": codes}
    return db.session.execute(_SETTLE, values).all()


def release(command_ids: list[UUID]) -> set[UUID]:
    """Devices have answered superseded commands: nothing is in flight there any more.

    The deployments concerned: also those that waited for these devices.
    """
    return set(db.session.scalars(_RELEASE, {"ids": command_ids}))


_CONNECTED = text("""
UPDATE executions SET
    redeliver_at = CASE WHEN state = 'in_progress' THEN now() END,
    next_attempt_at = CASE WHEN error_code IS NOT NULL THEN next_attempt_at END
WHERE device_id = :device AND state IN ('queued', 'in_progress')
RETURNING deployment_id
""")
_REMOVED = text(
    "SELECT DISTINCT deployment_id FROM executions WHERE device_id IS NULL AND state IN ('queued', 'in_progress')"
)


def connected(device_id: UUID) -> set[UUID]:
    """A device has connected: what it has not answered is sent again, what waited for it goes. Its deployments."""
    return set(db.session.scalars(_CONNECTED, {"device": device_id}))


def with_removed_devices() -> set[UUID]:
    """The deployments that have open executions of deleted devices."""
    return set(db.session.scalars(_REMOVED))
