"""The devices of a deployment page by page, and what each device has run: lists that stay quick when they are long."""

import base64
import binascii
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import Select, and_, exists, func, not_, select, tuple_

from app import db
from app.deployments.models import Deployment, Execution, Installation
from app.devices.models import Device
from app.errors import NotFound, ValidationFailed
from app.flows.models import Flow
from app.pagination import Page, paginate

SORTABLE_EXECUTIONS = {
    "device_name": Execution.device_name,
    "state": Execution.state,
    "attempt": Execution.attempt,
    "queued_at": Execution.queued_at,
    "started_at": Execution.started_at,
    "finished_at": Execution.finished_at,
    "id": Execution.id,
}
BY_NAME = "device_name"


@dataclass(frozen=True)
class CursorPage(Page):
    """A page that also tells where the next one begins, where its order allows that."""

    next_cursor: str | None = None


def executions(
    org_id: UUID,
    deployment_id: UUID,
    *,
    limit: int,
    offset: int,
    sort: str | None = None,
    cursor: str | None = None,
    **filters: Any,
) -> CursorPage | dict[str, Any]:
    """Each device's part, by device name if nothing else is said; then ``cursor`` pages on without counting through.

    Raises NotFound, or ValidationFailed for a sort field that there is not, or a cursor that does not fit.
    """
    if not db.session.scalar(select(exists().where(Deployment.org_id == org_id, Deployment.id == deployment_id))):
        raise NotFound("deployment")
    query = _filtered(org_id, deployment_id, **filters)
    if sort not in (None, BY_NAME):
        if cursor:
            raise ValidationFailed(details={"cursor": [f"Only with the order by {BY_NAME}."]})
        page = paginate(query, limit=limit, offset=offset, sort=sort, by=SORTABLE_EXECUTIONS, default=BY_NAME)
        return CursorPage(page.items, page.total, page.limit, page.offset)
    if cursor and offset:
        raise ValidationFailed(details={"cursor": ["Not together with offset."]})
    total = db.session.scalar(select(func.count()).select_from(query.subquery())) or 0
    found = list(db.session.scalars(by_name(query, limit + 1, offset, cursor)))
    items, more = found[:limit], len(found) > limit
    following = _cursor(items[-1]) if more else None
    if cursor:  # without a Link header: offsets mean nothing here
        return {"items": items, "total": total, "limit": limit, "offset": 0, "next_cursor": following}
    return CursorPage(items, total, limit, offset, following)


def _filtered(
    org_id: UUID,
    deployment_id: UUID,
    *,
    state: str | None = None,
    kind: str | None = None,
    device_id: UUID | None = None,
    q: str | None = None,
) -> Select[Any]:
    query = select(Execution).where(Execution.org_id == org_id, Execution.deployment_id == deployment_id)
    if state is not None:
        query = query.where(Execution.state == state)
    if kind is not None:
        query = query.where(Execution.kind == kind)
    if device_id is not None:
        query = query.where(Execution.device_id == device_id)
    if q is not None:
        query = query.where(Execution.device_name.icontains(q, autoescape=True))
    return query


def by_name(query: Select[Any], limit: int, offset: int, cursor: str | None) -> Select[Any]:
    """The next executions by device name, in the order of ``ix_executions_deployment_id_device_name``."""
    if cursor:
        query = query.where(tuple_(Execution.device_name, Execution.id) > tuple_(*_place(cursor)))
    return query.order_by(Execution.device_name, Execution.id).limit(limit).offset(offset)


def _cursor(last: Execution) -> str:
    return base64.urlsafe_b64encode(orjson.dumps([last.device_name, last.id])).decode().rstrip("=")


def _place(cursor: str) -> tuple[str, UUID]:
    try:
        name, identifier = orjson.loads(base64.urlsafe_b64decode(cursor.encode() + b"=" * (-len(cursor) % 4)))
        if not isinstance(name, str) or "\0" in name:
            raise ValueError("no name")
        return name, UUID(identifier)
    except (ValueError, TypeError, AttributeError, binascii.Error):
        raise ValidationFailed(details={"cursor": ["Not a cursor of this list."]}) from None


_LEDGER: tuple[Any, ...] = (
    Installation.id,
    Installation.flow_id,
    Flow.name.label("flow_name"),
    Installation.version,
    Installation.content_hash,
    Installation.deployment_id,
    Deployment.name.label("deployment_name"),
    Installation.installed_at,
    Installation.replaced_at,
)


def of_device(
    org_id: UUID,
    device_id: UUID,
    *,
    limit: int,
    offset: int,
    sort: str | None = None,
    flow_id: UUID | None = None,
    current: bool | None = None,
) -> Page:
    """The ledger of a device: what ran there when, and by which deployment; newest first.

    ``current``: only what runs now, or only what does not. Raises NotFound or ValidationFailed.
    """
    if not db.session.scalar(select(exists().where(Device.org_id == org_id, Device.id == device_id))):
        raise NotFound("device")
    runs = and_(Installation.replaced_at.is_(None), Installation.version.is_not(None))
    query = (
        select(*_LEDGER, runs.label("current"))
        .join(Flow, and_(Flow.org_id == Installation.org_id, Flow.id == Installation.flow_id))
        .outerjoin(
            Deployment, and_(Deployment.org_id == Installation.org_id, Deployment.id == Installation.deployment_id)
        )
        .where(Installation.org_id == org_id, Installation.device_id == device_id)
    )
    if flow_id is not None:
        query = query.where(Installation.flow_id == flow_id)
    if current is not None:
        query = query.where(runs if current else not_(runs))
    by = {"installed_at": Installation.installed_at, "id": Installation.id}
    return paginate(query, limit=limit, offset=offset, sort=sort, by=by, default="-installed_at")
