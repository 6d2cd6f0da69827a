"""Deployments as users act on them: each action is one transition, repeated ones change nothing."""

from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, and_, any_, func, insert, literal, select, true

from app import db
from app.deployments import engine, queries, rollout
from app.deployments.models import Deployment, Execution, Installation, Stage
from app.devices.models import Device
from app.errors import Conflict, InvalidState, NotFound, ValidationFailed
from app.flows.models import Flow, FlowVersion
from app.jobs import enqueue
from app.pagination import Page, paginate

SORTABLE = {
    "name": Deployment.name,
    "status": Deployment.status,
    "created_at": Deployment.created_at,
    "updated_at": Deployment.updated_at,
    "started_at": Deployment.started_at,
    "finished_at": Deployment.finished_at,
    "id": Deployment.id,
}
SORTABLE_EXECUTIONS = {
    "device_name": Execution.device_name,
    "state": Execution.state,
    "attempt": Execution.attempt,
    "queued_at": Execution.queued_at,
    "started_at": Execution.started_at,
    "finished_at": Execution.finished_at,
    "id": Execution.id,
}
NAMED = 10


def create(
    org_id: UUID,
    actor: str,
    *,
    flow_id: UUID,
    target: dict[str, Any],
    strategy: dict[str, Any],
    version: int | None = None,
    name: str | None = None,
    start: bool = False,
) -> dict[str, Any]:
    """A new deployment of a published version; ``start`` starts it at once.

    Raises NotFound (no such flow), Conflict (never published), ValidationFailed (no such version, no such device).
    """
    flow_name, number = _published(org_id, flow_id, version)
    deployment = Deployment(
        org_id=org_id,
        flow_id=flow_id,
        version=number,
        name=name or f"{flow_name} v{number}",
        target=_plain(target),
        strategy=strategy,
        reason=rollout.describe(rollout.State("created")),
        created_by=actor,
    )
    db.session.add(deployment)
    db.session.flush()
    size = _count_targets(org_id, target)
    db.session.add(Stage(org_id=org_id, deployment_id=deployment.id, number=0, percent=100, size=size))
    db.session.flush()
    if start:
        _start(deployment)
    return _detail(deployment)


def get(org_id: UUID, deployment_id: UUID) -> dict[str, Any]:
    """A deployment with its progress and stages. Raises NotFound."""
    return _detail(_one(org_id, deployment_id))


def list_deployments(
    org_id: UUID,
    *,
    limit: int,
    offset: int,
    sort: str | None = None,
    status: str | None = None,
    flow_id: UUID | None = None,
) -> Page:
    """Deployments with their progress, newest first. Raises ValidationFailed for a sort field that there is not."""
    query = select(Deployment).where(Deployment.org_id == org_id)
    if status:
        query = query.where(Deployment.status == status)
    if flow_id:
        query = query.where(Deployment.flow_id == flow_id)
    page = paginate(query, limit=limit, offset=offset, sort=sort, by=SORTABLE, default="-created_at")
    progress = queries.progress([deployment.id for deployment in page.items])
    items = [_summary(deployment, progress) for deployment in page.items]
    return Page(items, page.total, page.limit, page.offset)


def executions(
    org_id: UUID,
    deployment_id: UUID,
    *,
    limit: int,
    offset: int,
    sort: str | None = None,
    state: str | None = None,
    kind: str | None = None,
    device_id: UUID | None = None,
) -> Page:
    """Each device's part. Raises NotFound, or ValidationFailed for a sort field that there is not."""
    _one(org_id, deployment_id)
    query = select(Execution).where(Execution.org_id == org_id, Execution.deployment_id == deployment_id)
    for column, wanted in ((Execution.state, state), (Execution.kind, kind), (Execution.device_id, device_id)):
        if wanted is not None:
            query = query.where(column == wanted)  # type: ignore[arg-type]
    return paginate(query, limit=limit, offset=offset, sort=sort, by=SORTABLE_EXECUTIONS, default="device_name")


def start(org_id: UUID, deployment_id: UUID, *, acknowledge_failures: bool = False) -> dict[str, Any]:
    """Start a deployment, or resume a paused one; one that runs stays as it is.

    Raises NotFound, InvalidState (also for too many failures that are not acknowledged), or Conflict when no device
    is left to start with.
    """
    deployment = _lock(org_id, deployment_id)
    if deployment.status != "in_progress":
        _want(deployment, "start")
        if deployment.status == "paused":
            _resume(deployment, acknowledge_failures)
        else:
            _start(deployment)
    return _detail(deployment)


def pause(org_id: UUID, deployment_id: UUID) -> dict[str, Any]:
    """Send nothing new; what is under way finishes and counts. Raises NotFound or InvalidState."""
    deployment = _lock(org_id, deployment_id)
    if deployment.status != "paused":
        _want(deployment, "pause")
        _become(deployment, "paused")
    return _detail(deployment)


def cancel(org_id: UUID, deployment_id: UUID) -> dict[str, Any]:
    """End a deployment: queued devices are left alone, those under way finish. Raises NotFound or InvalidState."""
    deployment = _lock(org_id, deployment_id)
    if deployment.status != "canceled":
        _want(deployment, "cancel")
        queries.end_installs(deployment.id)
        queries.end_stages(deployment.id, "skipped")
        _become(deployment, "canceled")
    return _detail(deployment)


def rollback(org_id: UUID, deployment_id: UUID) -> dict[str, Any]:
    """Return every device that was started to its own previous version. Raises NotFound or InvalidState."""
    deployment = _lock(org_id, deployment_id)
    if deployment.status not in ("rolling_back", "rolled_back"):
        _want(deployment, "rollback")
        queries.add_rollbacks(deployment.id)
        queries.end_stages(deployment.id, "skipped")
        _become(deployment, "rolling_back")
    return _detail(deployment)


def refuse_if_in_use(org_id: UUID, flow_id: UUID) -> None:
    """Raises Conflict while a deployment that is not over uses the flow."""
    query = select(Deployment.name).where(
        Deployment.org_id == org_id, Deployment.flow_id == flow_id, Deployment.status.in_(rollout.ACTIVE)
    )
    names = db.session.scalars(query.limit(NAMED)).all()
    if names:
        raise Conflict(f"the flow is used by deployments that are not over: {', '.join(names)}")


def _one(org_id: UUID, deployment_id: UUID) -> Deployment:
    found = db.session.get(Deployment, deployment_id)
    if found is None or found.org_id != org_id:
        raise NotFound("deployment")
    return found


def _lock(org_id: UUID, deployment_id: UUID) -> Deployment:
    query = select(Deployment).where(Deployment.org_id == org_id, Deployment.id == deployment_id)
    found = db.session.scalar(query.with_for_update().execution_options(populate_existing=True))
    if found is None:
        raise NotFound("deployment")
    return found


def _want(deployment: Deployment, action: str) -> None:
    allowed = rollout.ALLOWED[deployment.status]
    if action not in allowed:
        raise InvalidState(
            f"{action} is not possible: the deployment is {deployment.status.replace('_', ' ')}",
            current_state=deployment.status,
            allowed_actions=list(allowed),
        )


def _published(org_id: UUID, flow_id: UUID, version: int | None) -> tuple[str, int]:
    """The flow's name and the version meant. Shares the flow's row, so that nobody deletes it meanwhile."""
    query = select(Flow.name, Flow.latest_version).where(Flow.org_id == org_id, Flow.id == flow_id)
    flow = db.session.execute(query.with_for_update(read=True, key_share=True)).first()
    if flow is None:
        raise NotFound("flow")
    if flow.latest_version is None:
        raise Conflict("the flow has not been published")
    known = select(FlowVersion.number).where(FlowVersion.flow_id == flow_id, FlowVersion.number == version)
    if version is not None and db.session.scalar(known) is None:
        raise ValidationFailed(details={"version": [f"The flow has no version {version}."]})
    return flow.name, version or flow.latest_version


def _plain(target: dict[str, Any]) -> dict[str, Any]:
    if "device_ids" in target:
        return {"device_ids": sorted({str(device_id) for device_id in target["device_ids"]})}
    return target


def _matching(org_id: UUID, target: dict[str, Any]) -> ColumnElement[bool]:
    wanted: ColumnElement[bool] = true()
    if "device_ids" in target:
        wanted = Device.id == any_(literal([UUID(str(one)) for one in target["device_ids"]]))
    elif "tags" in target:
        wanted = Device.tags.overlap(target["tags"])
    return and_(Device.org_id == org_id, Device.disabled_at.is_(None), wanted)


def _count_targets(org_id: UUID, target: dict[str, Any]) -> int:
    """How many devices match now. Raises ValidationFailed when none does, or when one that is named does not exist."""
    if "device_ids" in target:
        _refuse_unknown(org_id, target["device_ids"])
    number = db.session.scalar(select(func.count()).select_from(Device).where(_matching(org_id, target))) or 0
    if not number:
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


def _start(deployment: Deployment) -> None:
    size = _freeze(deployment)
    if not size:
        raise Conflict("no device matches the target any more")
    stage = db.session.get_one(Stage, (deployment.id, 0))
    stage.size, stage.status = size, "running"
    stage.started_at = deployment.started_at = db.session.scalar(select(func.now()))
    _become(deployment, "in_progress")


def _freeze(deployment: Deployment) -> int:
    """One execution for each device that matches now; how many."""
    previous = (
        select(Installation.version)
        .where(
            Installation.device_id == Device.id,
            Installation.flow_id == deployment.flow_id,
            Installation.replaced_at.is_(None),
        )
        .scalar_subquery()
    )
    members = select(
        Device.org_id, literal(deployment.id), Device.id, Device.name, literal(deployment.version), previous
    ).where(_matching(deployment.org_id, deployment.target))
    columns = ["org_id", "deployment_id", "device_id", "device_name", "version", "previous_version"]
    # Without the Python-side defaults: they would give every row the same id.
    freeze = insert(Execution).from_select(columns, members, include_defaults=False)
    inserted = db.session.execute(freeze, execution_options={"preserve_rowcount": True})
    return inserted.rowcount  # type: ignore[attr-defined, no-any-return]


def _resume(deployment: Deployment, acknowledge_failures: bool) -> None:
    state = _state(deployment)
    if rollout.tripped(state):
        if not acknowledge_failures:
            raise InvalidState(
                f'{rollout.describe(state)}; send {{"acknowledge_failures": true}} to go on',
                current_state=deployment.status,
                allowed_actions=list(rollout.ALLOWED[deployment.status]),
            )
        deployment.acknowledged_failures = state.failed
    _become(deployment, "in_progress")


def _become(deployment: Deployment, status: str) -> None:
    """Take a status and look at once what follows from it; a worker goes on after the commit."""
    deployment.status = status
    db.session.flush()
    engine.tick(deployment)
    db.session.refresh(deployment)
    if deployment.next_check_at is not None:
        enqueue("rollouts.advance", deployment.org_id, deployment.id)


def _state(deployment: Deployment) -> rollout.State:
    return queries.snapshot(deployment.id, deployment.status, deployment.strategy, deployment.acknowledged_failures)


def _summary(deployment: Deployment, progress: dict[tuple[UUID, str], dict[str, int]]) -> dict[str, Any]:
    columns = {column.key: getattr(deployment, column.key) for column in Deployment.__mapper__.columns}
    return {
        **columns,
        "allowed_actions": rollout.ALLOWED[deployment.status],
        "progress": progress.get((deployment.id, "install"), queries.no_progress()),
    }


def _detail(deployment: Deployment) -> dict[str, Any]:
    """All about one deployment. The reason of one that runs is told as things stand, not as the last tick left it."""
    progress = queries.progress([deployment.id])
    detail = _summary(deployment, progress)
    if deployment.status in ("in_progress", "rolling_back"):
        detail["reason"] = rollout.describe(_state(deployment))
    stages = select(Stage).where(Stage.org_id == deployment.org_id, Stage.deployment_id == deployment.id)
    return {
        **detail,
        "rollback_progress": progress.get((deployment.id, "rollback")),
        "stages": db.session.scalars(stages.order_by(Stage.number)).all(),
    }
