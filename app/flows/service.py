"""Flows: drafts, publishing, versions."""

from typing import Any
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import defer

from app import db, rows
from app.billing import quotas
from app.devices import drift
from app.errors import NotFound
from app.flows.definition import content_hash, node_types
from app.flows.models import Flow, FlowVersion
from app.pagination import Page, paginate

SORTABLE = {
    "name": Flow.name,
    "created_at": Flow.created_at,
    "updated_at": Flow.updated_at,
    "latest_version": Flow.latest_version,
    "id": Flow.id,
}


def create(org_id: UUID, actor: str, *, name: str, description: str, definition: dict[str, Any]) -> Flow:
    """A new draft. Raises QuotaExceeded."""
    quotas.claim(org_id, "flows")
    flow = Flow(
        org_id=org_id,
        name=name,
        description=description,
        definition=definition,
        content_hash=content_hash(definition),
        created_by=actor,
    )
    db.session.add(flow)
    db.session.flush()
    return flow


def get(org_id: UUID, flow_id: UUID) -> Flow:
    """Raises NotFound."""
    return _one(org_id, flow_id)


def lock(org_id: UUID, flow_id: UUID) -> Flow:
    """The flow, which nobody else changes, publishes or deletes until this transaction ends. Raises NotFound."""
    return _one(org_id, flow_id, lock=True)


def list_flows(
    org_id: UUID, *, limit: int, offset: int, sort: str | None = None, status: str | None = None, q: str | None = None
) -> Page:
    """Flows without their definitions. Raises ValidationFailed for a sort field that there is not."""
    query = select(Flow).options(defer(Flow.definition)).where(Flow.org_id == org_id)
    if status:
        query = query.where(Flow.latest_version.is_(None) if status == "draft" else Flow.latest_version.is_not(None))
    if q:
        query = query.where(Flow.name.icontains(q, autoescape=True))
    return paginate(query, limit=limit, offset=offset, sort=sort, by=SORTABLE, default="-created_at")


def update(org_id: UUID, flow_id: UUID, **changes: Any) -> Flow:
    """Change what is given of the draft; published versions stay as they are. Raises NotFound."""
    flow = lock(org_id, flow_id)
    if "definition" in changes:
        flow.content_hash = content_hash(changes["definition"])
    for key, value in changes.items():
        setattr(flow, key, value)
    db.session.flush()
    db.session.refresh(flow)
    return flow


def publish(org_id: UUID, actor: str, flow_id: UUID) -> Flow:
    """Freeze the draft as the next version; an unchanged draft has one already. Raises NotFound.

    The row lock lets one publisher at a time number the versions.
    """
    flow = lock(org_id, flow_id)
    if not flow.has_unpublished_changes:
        return flow
    flow.latest_version = (flow.latest_version or 0) + 1
    flow.published_hash = flow.content_hash
    version = FlowVersion(
        org_id=org_id,
        flow_id=flow.id,
        number=flow.latest_version,
        name=flow.name,
        definition=flow.definition,
        content_hash=flow.content_hash,
        node_types=node_types(flow.definition),
        published_by=actor,
    )
    db.session.add(version)
    db.session.flush()
    db.session.refresh(flow)
    return flow


def delete(org_id: UUID, flow_id: UUID) -> None:
    """Delete a flow with its versions. Raises NotFound. Whether a deployment uses it is the caller's to ask."""
    db.session.delete(lock(org_id, flow_id))
    db.session.flush()
    drift.forget(flow_id)


def versions(org_id: UUID, flow_id: UUID, *, limit: int, offset: int, sort: str | None = None) -> Page:
    """The published versions, without their definitions, newest first. Raises NotFound."""
    _one(org_id, flow_id)
    query = (
        select(FlowVersion)
        .options(defer(FlowVersion.definition))
        .where(FlowVersion.org_id == org_id, FlowVersion.flow_id == flow_id)
    )
    by = {"version": FlowVersion.number, "published_at": FlowVersion.created_at}
    return paginate(query, limit=limit, offset=offset, sort=sort, by=by, default="-version")


def version(org_id: UUID, flow_id: UUID, number: int) -> FlowVersion:
    """One published version. Raises NotFound."""
    found = db.session.get(FlowVersion, (flow_id, number))
    if found is None or found.org_id != org_id:
        raise NotFound("flow version")
    return found


def _one(org_id: UUID, flow_id: UUID, *, lock: bool = False) -> Flow:
    query = select(Flow).where(Flow.org_id == org_id, Flow.id == flow_id)
    return rows.one(query, "flow", lock=lock)
