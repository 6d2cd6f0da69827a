"""Whether what was installed fares well, by what devices report of it: ``{flow_id: {hash, status, errors, …}}``.

Set-wise as all of ``queries``. A report counts if it is about what the execution installed and was written since it
began; errors are those since then. One that says nothing of it until the end of the watch is taken for healthy.
"""

from uuid import UUID

from sqlalchemy import text

from app import db
from app.deployments.strategy import Health

_JUDGE = text("""
WITH watched AS (
    SELECT e.id, e.finished_at + make_interval(secs => :seconds) <= now() AS over,
        runs.deployment_id IS NOT NULL AND (told.drifts OR told.flow->>'hash' = runs.content_hash) AS known,
        told.flow IS NULL AS gone,
        CASE WHEN told.status_at > e.started_at THEN left(told.flow->>'status', 40) END AS status,
        CASE WHEN told.errors_at > e.started_at AND jsonb_typeof(told.flow->'errors') = 'number'
            THEN CAST(told.flow->>'errors' AS numeric) END AS errors
    FROM executions e
    LEFT JOIN LATERAL (
        SELECT i.content_hash, i.deployment_id FROM installations i
        WHERE i.device_id = e.device_id AND i.flow_id = CAST(:flow AS uuid) AND i.replaced_at IS NULL
          AND i.deployment_id = e.deployment_id OFFSET 0) runs ON true
    LEFT JOIN LATERAL (
        SELECT s.reported->'flows'->CAST(:flow AS text) AS flow, s.drift ? CAST(:flow AS text) AS drifts,
            CAST(s.reported_times->>('flows.' || CAST(:flow AS text) || '.status') AS timestamptz) AS status_at,
            CAST(s.reported_times->>('flows.' || CAST(:flow AS text) || '.errors') AS timestamptz) AS errors_at
        FROM shadows s WHERE s.device_id = e.device_id OFFSET 0) told ON true
    WHERE e.deployment_id = :deployment AND e.kind = 'install' AND e.state IN ('succeeded', 'already_installed')
      AND e.health IS NULL
), judged AS (
    SELECT id, over, known, CASE
        WHEN known IS NOT TRUE THEN NULL
        WHEN gone THEN 'unhealthy: the flow is not there any more'
        WHEN status <> 'running' THEN 'unhealthy: the flow does not run, it is ' || status
        WHEN errors > CAST(:most AS int) THEN
            'unhealthy: ' || left(CAST(errors AS text), 20) || ' errors since it was installed, more than '
            || CAST(:most AS int)
        END AS fault
    FROM watched
)
UPDATE executions e SET
    state = CASE WHEN j.fault IS NULL THEN e.state ELSE 'failed' END,
    finished_at = CASE WHEN j.fault IS NULL THEN e.finished_at ELSE now() END,
    error = j.fault, error_code = CASE WHEN j.fault IS NOT NULL THEN 'UNHEALTHY' END,
    health = CASE WHEN j.fault IS NOT NULL THEN 'unhealthy' WHEN j.known THEN 'healthy' ELSE 'unknown' END
FROM judged j
WHERE e.id = j.id AND (j.over OR j.fault IS NOT NULL)
""")


def judge(deployment_id: UUID, flow_id: UUID, health: Health) -> None:
    """Fail what does not fare well, at once; pass what has fared well for so long."""
    values = {
        "deployment": deployment_id,
        "flow": str(flow_id),
        "seconds": health.for_seconds,
        "most": health.max_errors,
    }
    db.session.execute(_JUDGE, values)
