"""Deployments as users act on them: each action is one transition, repeated ones change nothing."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import func, select

from app import db, rows
from app.auth.roles import Role
from app.billing import quotas
from app.deployments import engine, ledger, members, preview, queries, rollout, snapshot
from app.deployments.models import Deployment, Stage
from app.deployments.state import count
from app.errors import Conflict, Forbidden, InvalidState, NotFound, ValidationFailed
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
    schedule_at: datetime | None = None,
    approval: dict[str, Any] | None = None,
    force: bool = False,
) -> dict[str, Any]:
    """A new deployment of a published version; ``start`` starts it at once, ``schedule_at`` then; with ``approval``
    neither before somebody has approved it. ``force``: devices install it again although they have it.

    Raises NotFound (no such flow), Conflict (never published), ValidationFailed (no such version, no such device) or
    QuotaExceeded.
    """
    flow_name, number = _published(org_id, flow_id, version)
    devices = members.count(org_id, target)
    quotas.claim(org_id, "deployments_per_month")
    deployment = Deployment(
        org_id=org_id,
        flow_id=flow_id,
        version=number,
        name=name or f"{flow_name} v{number}",
        target=_plain(target),
        strategy=strategy,
        schedule_at=schedule_at,
        approval_role=approval["role"] if approval else None,
        start_when_approved=start,
        force=force,
        created_by=actor,
    )
    db.session.add(deployment)
    db.session.flush()
    _add_stages(deployment, devices)
    if approval:
        _become(deployment, "waiting_for_approval")
    else:
        _release(deployment)
    return _detail(deployment)


def _add_stages(deployment: Deployment, devices: int) -> None:
    """As large as they would be if it started now; that is settled at the start."""
    percents = rollout.Strategy.of(deployment.strategy).stages
    for number, size in enumerate(members.stage_sizes(percents, devices)):
        stage = Stage(number=number, percent=percents[number], size=size)
        stage.org_id, stage.deployment_id = deployment.org_id, deployment.id
        db.session.add(stage)
    db.session.flush()


def _release(deployment: Deployment) -> None:
    """Nothing more is needed of anybody: it starts, waits for its time, or for being started."""
    if deployment.schedule_at is not None:
        _become(deployment, "scheduled")
    elif deployment.start_when_approved:
        _start(deployment)
    else:
        _become(deployment, "created")


def approve(org_id: UUID, actor: str, role: Role, deployment_id: UUID) -> dict[str, Any]:
    """Approve a deployment, which then goes on as it was asked to; one that is approved stays as it is.

    Raises NotFound, InvalidState, or Forbidden: for a lesser role than it wants, or for its creator, unless an owner.
    """
    deployment = _lock(org_id, deployment_id)
    if deployment.approved_at is None:
        _want(deployment, "approve")
        _refuse_approver(deployment, actor, role)
        deployment.approved_by, deployment.approved_at = actor, db.session.scalar(select(func.now()))
        _release(deployment)
    return _detail(deployment)


def _refuse_approver(deployment: Deployment, actor: str, role: Role) -> None:
    wanted = Role(deployment.approval_role or Role.OPERATOR)
    if not role.includes(wanted):
        raise Forbidden(f"approving this deployment needs the role {wanted}; yours is {role}")
    if actor == deployment.created_by and role is not Role.OWNER:
        raise Forbidden("somebody else must approve what you have created")


def dry_run(
    org_id: UUID, *, flow_id: UUID, target: dict[str, Any], limit: int, offset: int, version: int | None = None
) -> dict[str, Any]:
    """What ``create`` with a start at once would do; nothing is stored. Raises what ``create`` raises."""
    _name, number = _published(org_id, flow_id, version)
    members.count(org_id, target)
    meant, disabled = members.matching(org_id, target), members.left_out(org_id, target)
    return preview.preview(org_id, flow_id, number, meant=meant, disabled=disabled, limit=limit, offset=offset)


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


def start(org_id: UUID, deployment_id: UUID, *, acknowledge_failures: bool = False) -> dict[str, Any]:
    """Start a deployment, or resume a paused one; one that runs stays as it is.

    Raises NotFound, InvalidState (also for too many failures that are not acknowledged), or Conflict when no device
    is left to start with.
    """
    deployment = _lock(org_id, deployment_id)
    if not _goes_on(deployment):
        _want(deployment, "start")
        if deployment.status == "paused":
            _resume(deployment, acknowledge_failures)
        else:
            _start(deployment)
    return _detail(deployment)


def _goes_on(deployment: Deployment) -> bool:
    """Whether it is started and not paused; it may be waiting for its maintenance window."""
    return deployment.status == "in_progress" or (
        deployment.status == "scheduled" and deployment.started_at is not None
    )


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
        ledger.end_installs(deployment.id)
        queries.end_stages(deployment.id, "skipped")
        _become(deployment, "canceled")
    return _detail(deployment)


def rollback(org_id: UUID, deployment_id: UUID) -> dict[str, Any]:
    """Return every device that was started to its own previous version. Raises NotFound or InvalidState."""
    deployment = _lock(org_id, deployment_id)
    if deployment.status not in ("rolling_back", "rolled_back"):
        _want(deployment, "rollback")
        ledger.add_rollbacks(deployment.id)
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
    return rows.one(query, "deployment", lock=True)


def _want(deployment: Deployment, action: str) -> None:
    allowed = _allowed(deployment)
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


def _start(deployment: Deployment) -> None:
    if not engine.begin(deployment):
        raise Conflict("no device matches the target any more")
    db.session.refresh(deployment)
    _look(deployment)


def _resume(deployment: Deployment, acknowledge_failures: bool) -> None:
    state = snapshot.take(deployment.id)
    if rollout.why_stopped(state):
        if not acknowledge_failures:
            raise InvalidState(
                f'{rollout.describe(state)}; send {{"acknowledge_failures": true}} to go on',
                current_state=deployment.status,
                allowed_actions=list(_allowed(deployment)),
            )
        deployment.acknowledged_failures = state.failed
        stage = db.session.get_one(Stage, (deployment.id, deployment.current_stage))
        stage.acknowledged_failures = count(state.stage.counts, *rollout.FAILED)
    _become(deployment, "in_progress")


def _become(deployment: Deployment, status: str) -> None:
    """Take a status and look at once what follows from it."""
    deployment.status = status
    db.session.flush()
    _look(deployment)


def _look(deployment: Deployment) -> None:
    """What follows from how a deployment stands now; a worker goes on after the commit."""
    engine.tick(deployment)
    db.session.refresh(deployment)
    if deployment.next_check_at is not None:
        enqueue("rollouts.advance", deployment.org_id, deployment.id)


def _allowed(deployment: Deployment) -> tuple[str, ...]:
    return rollout.allowed(deployment.status, started=deployment.started_at is not None)


def _summary(deployment: Deployment, progress: dict[tuple[UUID, str], dict[str, int]]) -> dict[str, Any]:
    columns = {column.key: getattr(deployment, column.key) for column in Deployment.__mapper__.columns}
    return {
        **columns,
        "allowed_actions": _allowed(deployment),
        "approval": _approval(deployment),
        "progress": progress.get((deployment.id, "install"), queries.no_progress()),
    }


def _approval(deployment: Deployment) -> dict[str, Any] | None:
    if deployment.approval_role is None:
        return None
    return {
        "required": True,
        "role": deployment.approval_role,
        "approved_by": deployment.approved_by,
        "approved_at": deployment.approved_at,
    }


def _detail(deployment: Deployment) -> dict[str, Any]:
    """All about one deployment. The reason of one that runs is told as things stand, not as the last tick left it."""
    progress = queries.progress([deployment.id])
    detail = _summary(deployment, progress)
    if deployment.status in ("in_progress", "rolling_back"):
        detail["reason"] = rollout.describe(snapshot.take(deployment.id))
    stages = select(Stage).where(Stage.org_id == deployment.org_id, Stage.deployment_id == deployment.id)
    stages = stages.execution_options(populate_existing=True)
    return {
        **detail,
        "rollback_progress": progress.get((deployment.id, "rollback")),
        "stages": db.session.scalars(stages.order_by(Stage.number)).all(),
    }
