"""What devices run, and the way back: the ledger of installations, and the executions that undo a deployment.

Set-wise as all of ``queries``, whose rules hold here too: fenced, on the database's clock, within the tenant.
"""

from uuid import UUID

from sqlalchemy import text

from app import db
from app.devices import drift
from config.settings import settings

_CLOSE = text("""
UPDATE installations SET replaced_at = now()
WHERE id = ANY (ARRAY(
    SELECT (SELECT i.id FROM installations i
            WHERE i.device_id = e.device_id AND i.flow_id = d.flow_id AND i.replaced_at IS NULL)
    FROM executions e JOIN deployments d ON d.id = e.deployment_id
    WHERE e.id = ANY (CAST(:ids AS uuid[]))))
""")
_RECORD = text("""
INSERT INTO installations (org_id, device_id, flow_id, version, content_hash, deployment_id)
SELECT e.org_id, e.device_id, d.flow_id, e.version,
    (SELECT v.content_hash FROM flow_versions v WHERE v.flow_id = d.flow_id AND v.number = e.version),
    coalesce(CASE WHEN e.kind = 'rollback' THEN (
        SELECT p.deployment_id FROM installations p
        WHERE p.device_id = e.device_id AND p.flow_id = d.flow_id AND p.deployment_id <> e.deployment_id
          AND p.installed_at <= (
              SELECT n.started_at FROM executions n
              WHERE n.deployment_id = e.deployment_id AND n.device_id = e.device_id AND n.kind = 'install')
        ORDER BY p.installed_at DESC LIMIT 1) END, e.deployment_id)
FROM executions e JOIN deployments d ON d.id = e.deployment_id
WHERE e.id = ANY (CAST(:ids AS uuid[])) AND e.device_id IS NOT NULL
RETURNING CASE WHEN EXISTS (
    SELECT FROM shadows s WHERE s.device_id = installations.device_id AND s.drift <> '{}') THEN device_id END
""")


def record(execution_ids: list[UUID]) -> None:
    """Write into the ledger what these executions have made their devices run.

    What a rollback restores is again its former deployment's, which may then be rolled back in its turn. Where a flow
    had drifted, it runs now as it was deployed.
    """
    db.session.execute(_CLOSE, {"ids": execution_ids})
    drifting = [one for one in db.session.scalars(_RECORD, {"ids": execution_ids}) if one]
    if drifting:
        drift.refresh(drifting)


_ADD_ROLLBACKS = text("""
INSERT INTO executions (org_id, deployment_id, device_id, device_name, kind, stage, version, previous_version)
SELECT org_id, deployment_id, device_id, device_name, 'rollback', stage, previous_version, version
FROM executions
WHERE deployment_id = :deployment AND kind = 'install' AND device_id IS NOT NULL AND attempt > 0
  AND (state IN ('queued', 'in_progress', 'succeeded', 'already_installed', 'timed_out', 'superseded')
       OR state = 'failed' AND coalesce(error_code, '') NOT IN ('NOT_SUPPORTED_BY_DEVICE', 'UNKNOWN_ACTION'))
ON CONFLICT DO NOTHING
""")
_END_INSTALLS = text("""
UPDATE executions SET
    state = CASE state WHEN 'queued' THEN 'canceled' ELSE 'superseded' END, finished_at = now(), next_attempt_at = NULL,
    redeliver_at = CASE WHEN state = 'in_progress' AND lease_until > now()
        THEN least(lease_until, now() + make_interval(secs => :redeliver)) END,
    lease_until = NULL
WHERE deployment_id = :deployment AND kind = 'install'
  AND (state = 'queued' OR state = 'in_progress' AND :also_running)
""")


def add_rollbacks(deployment_id: UUID) -> None:
    """An execution back to its own previous version for every device that was started; installing ends.

    Also for those that a newer deployment took over while they were under way: the command may have been carried out,
    and unless the newer one has changed the device since (``skip_newer``), nobody else would undo it.
    """
    db.session.execute(_ADD_ROLLBACKS, {"deployment": deployment_id})
    end_installs(deployment_id, also_running=True)


def end_installs(deployment_id: UUID, *, also_running: bool = False) -> None:
    """Cancel what is queued; ``also_running``: supersede what is under way, whose late answers then change nothing."""
    values = {"deployment": deployment_id, "also_running": also_running, "redeliver": settings().redeliver_seconds}
    db.session.execute(_END_INSTALLS, values)


_SKIP_NEWER = text("""
UPDATE executions r SET state = 'superseded', finished_at = now(), error_code = 'NEWER_DEPLOYMENT',
    error = 'a newer deployment has changed this device since'
FROM executions e, installations i
WHERE r.deployment_id = :deployment AND r.kind = 'rollback' AND r.state = 'queued'
  AND e.deployment_id = r.deployment_id AND e.device_id = r.device_id AND e.kind = 'install'
  AND i.device_id = r.device_id AND i.flow_id = :flow AND i.replaced_at IS NULL
  AND i.deployment_id <> r.deployment_id AND i.installed_at > e.started_at
""")


def skip_newer(deployment_id: UUID, flow_id: UUID) -> None:
    """Leave alone the devices that a newer deployment has changed since this one installed."""
    db.session.execute(_SKIP_NEWER, {"deployment": deployment_id, "flow": flow_id})
