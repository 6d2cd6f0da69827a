"""Which devices a deployment is about: frozen at its start, joining later if it is dynamic, lost to newer ones.

Several deployments of one flow may want the same device: the one that was started last has it, and the others' open
executions there become ``superseded``. Each deployment gives its own up, in its own tick, so that whoever writes to a
deployment's executions holds that deployment's row. Deployments of different flows do not compete for a device: they
take turns, because only one changing command is ever in flight there.
"""

from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, and_, any_, func, literal, select, text, true

from app import db
from app.deployments.rollout import Strategy
from app.devices.models import Device
from app.errors import ValidationFailed
from app.jobs import enqueue
from config.settings import settings

NAMED = 10


def matching(org_id: UUID, target: dict[str, Any]) -> ColumnElement[bool]:
    """The condition for a device to be meant by a target. Disabled ones never are."""
    return and_(_named(org_id, target), Device.disabled_at.is_(None))


def left_out(org_id: UUID, target: dict[str, Any]) -> ColumnElement[bool]:
    """The condition for a device to be left out of a target because it is disabled."""
    return and_(_named(org_id, target), Device.disabled_at.is_not(None))


def _named(org_id: UUID, target: dict[str, Any]) -> ColumnElement[bool]:
    wanted: ColumnElement[bool] = true()
    if "device_ids" in target:
        wanted = Device.id == any_(literal([UUID(str(one)) for one in target["device_ids"]]))
    elif "tags" in target:
        wanted = Device.tags.overlap(target["tags"])
    return and_(Device.org_id == org_id, wanted)


def count(org_id: UUID, target: dict[str, Any]) -> int:
    """How many devices match now.

    Raises ValidationFailed when none does (of a dynamic target some may come), or one that is named does not exist.
    """
    if "device_ids" in target:
        _refuse_unknown(org_id, target["device_ids"])
    number = db.session.scalar(select(func.count()).select_from(Device).where(matching(org_id, target))) or 0
    if not number and not target.get("dynamic"):
        raise ValidationFailed(details={"target": ["No device matches."]})
    return number


def _refuse_unknown(org_id: UUID, device_ids: list[UUID]) -> None:
    query = select(Device.id).where(Device.org_id == org_id, Device.id == any_(literal(device_ids)))
    unknown = sorted(str(one) for one in set(device_ids) - set(db.session.scalars(query)))
    if unknown:
        more = f" and {len(unknown) - NAMED} more" if len(unknown) > NAMED else ""
        raise ValidationFailed(
            details={"target.device_ids": [f"There is no such device: {', '.join(unknown[:NAMED])}{more}."]}
        )


def stage_sizes(stages: tuple[int, ...], total: int) -> list[int]:
    """Devices in each stage: cumulative percents, rounded up, so that the first one is never empty."""
    ends = [-(-total * percent // 100) for percent in stages]
    return [end - begin for begin, end in zip([0, *ends], ends, strict=False)]


_WANTED = """
    (CAST(:ids AS uuid[]) IS NULL OR v.id = ANY (CAST(:ids AS uuid[])))
    AND (CAST(:tags AS text[]) IS NULL OR v.tags && CAST(:tags AS text[])) AND v.disabled_at IS NULL
"""
_PREVIOUS = """
    (SELECT i.version FROM installations i
     WHERE i.device_id = v.id AND i.flow_id = d.flow_id AND i.replaced_at IS NULL)
"""
# In an order that is another one in each deployment, so that it is not always the same devices that go first.
_FREEZE = text(f"""
INSERT INTO executions (org_id, deployment_id, device_id, device_name, version, previous_version, stage)
SELECT d.org_id, d.id, v.id, v.name, d.version, {_PREVIOUS},
    least(width_bucket(row_number() OVER (ORDER BY md5(v.id::text || d.id::text)) - 1, CAST(:ends AS bigint[])), :last)
FROM deployments d JOIN devices v ON v.org_id = d.org_id AND {_WANTED}
WHERE d.id = :deployment
""")
_SIZES = text("""
UPDATE deployment_stages s SET
    size = found.number,
    status = CASE WHEN s.number = 0 THEN 'running' ELSE s.status END,
    started_at = CASE WHEN s.number = 0 THEN now() ELSE s.started_at END
FROM (
    SELECT t.number AS stage, count(e.id) AS number
    FROM deployment_stages t
    LEFT JOIN executions e ON e.deployment_id = t.deployment_id AND e.stage = t.number AND e.kind = 'install'
    WHERE t.deployment_id = :deployment GROUP BY t.number
) found
WHERE s.deployment_id = :deployment AND s.number = found.stage
""")
_STARTED = text("UPDATE deployments SET started_at = clock_timestamp() WHERE id = :deployment")


def freeze(deployment: Any) -> bool:
    """One execution for each device that matches now, spread over the stages; False when there is none.

    The clock of this moment, not of the transaction's begin, orders the deployments that want the same device.
    """
    stages = Strategy.of(deployment.strategy).stages
    total = count_now(deployment)
    if not total and not deployment.target.get("dynamic"):
        return False
    ends, size = [], 0
    for one in stage_sizes(stages, total):
        size += one
        ends.append(size)
    values = {"deployment": deployment.id, "ends": ends, "last": len(ends) - 1, **_target(deployment.target)}
    db.session.execute(_FREEZE, values)
    db.session.execute(_SIZES, {"deployment": deployment.id})
    db.session.execute(_STARTED, {"deployment": deployment.id})
    tell_older(deployment)
    return True


def count_now(deployment: Any) -> int:
    query = select(func.count()).select_from(Device).where(matching(deployment.org_id, deployment.target))
    return db.session.scalar(query) or 0


def _target(target: dict[str, Any]) -> dict[str, Any]:
    return {"ids": target.get("device_ids"), "tags": target.get("tags")}


_JOIN = text(f"""
WITH joined AS (
    INSERT INTO executions (org_id, deployment_id, device_id, device_name, version, previous_version, stage)
    SELECT d.org_id, d.id, v.id, v.name, d.version, {_PREVIOUS}, :last
    FROM deployments d JOIN devices v ON v.org_id = d.org_id AND {_WANTED}
    WHERE d.id = :deployment
      AND NOT EXISTS (
          SELECT FROM executions e WHERE e.deployment_id = d.id AND e.device_id = v.id AND e.kind = 'install')
      AND NOT EXISTS (
          SELECT FROM deployments w JOIN executions n ON n.deployment_id = w.id AND n.kind = 'install'
          WHERE w.flow_id = d.flow_id AND (w.started_at, w.id) > (d.started_at, d.id)
            AND n.device_id = v.id AND n.state NOT IN ('canceled', 'removed'))
    ON CONFLICT DO NOTHING
    RETURNING id
)
UPDATE deployment_stages SET size = size + (SELECT count(*) FROM joined)
WHERE deployment_id = :deployment AND number = :last AND EXISTS (SELECT FROM joined)
""")


def join(deployment: Any) -> None:
    """Let the devices that have come to match a dynamic target join, in its last stage.

    Those that have ceased to match stay: what they were promised is theirs. Those that a newer deployment of the flow
    has taken are left to it.
    """
    last = len(Strategy.of(deployment.strategy).stages) - 1
    values = {"deployment": deployment.id, "last": last, **_target(deployment.target)}
    joined = db.session.execute(_JOIN, values, execution_options={"preserve_rowcount": True})
    if joined.rowcount > 0:  # type: ignore[attr-defined]
        tell_older(deployment)


_OLDER = text("""
WITH older AS (
    SELECT w.id FROM deployments d
    JOIN deployments w ON w.flow_id = d.flow_id AND (w.started_at, w.id) < (d.started_at, d.id)
    WHERE d.id = :deployment AND EXISTS (
        SELECT FROM executions o WHERE o.deployment_id = w.id AND o.state IN ('queued', 'in_progress'))
), asked AS (
    UPDATE deployments SET next_check_at = now()
    WHERE id IN (SELECT id FROM deployments WHERE id IN (SELECT id FROM older) FOR UPDATE SKIP LOCKED)
)
SELECT id FROM older
""")


def tell_older(deployment: Any) -> None:
    """Have the older deployments of the flow looked at soon: they give up what this one has taken.

    Those whose row is locked are left out, because they are being driven; the job looks at them again.
    """
    for older in db.session.scalars(_OLDER, {"deployment": deployment.id}):
        enqueue("rollouts.advance", deployment.org_id, older)


_YIELD = text("""
WITH newer AS MATERIALIZED (
    SELECT w.id FROM deployments d
    JOIN deployments w ON w.flow_id = d.flow_id AND (w.started_at, w.id) > (d.started_at, d.id)
    WHERE d.id = :deployment
)
UPDATE executions o SET
    state = 'superseded', finished_at = now(), next_attempt_at = NULL, error_code = 'NEWER_DEPLOYMENT',
    error = 'a newer deployment of this flow has taken the device over',
    redeliver_at = CASE WHEN o.state = 'in_progress' AND o.lease_until > now()
        THEN least(o.lease_until, now() + make_interval(secs => :redeliver)) END,
    lease_until = NULL
FROM newer JOIN executions n ON n.deployment_id = newer.id AND n.kind = 'install'
WHERE o.deployment_id = :deployment AND o.state IN ('queued', 'in_progress') AND n.device_id = o.device_id
  AND (n.state IN ('queued', 'in_progress')
       OR o.kind = 'install' AND n.state NOT IN ('canceled', 'removed'))
""")


def give_up_taken(deployment_id: UUID) -> None:
    """Supersede what newer deployments of the flow have taken over. What a device is doing for this one may still be
    carried out; its answer then changes nothing, and nothing else is sent there before it (or the redelivery) is due.
    """
    db.session.execute(_YIELD, {"deployment": deployment_id, "redeliver": settings().redeliver_seconds})
