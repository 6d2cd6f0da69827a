"""What a deployment would do if it started now. Nothing is stored."""

from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Subquery, Text, and_, func, literal, literal_column, select
from sqlalchemy.dialects.postgresql import ARRAY

from app import db
from app.billing import quotas
from app.deployments import preflight
from app.deployments.models import Deployment, Execution, Installation
from app.devices import status
from app.devices.models import Connection, Device, Shadow
from app.flows.models import FlowVersion

_OPEN = ("queued", "in_progress")


def preview(
    org_id: UUID,
    flow_id: UUID,
    version: int,
    *,
    meant: ColumnElement[bool],
    disabled: ColumnElement[bool],
    limit: int,
    offset: int,
) -> dict[str, Any]:
    """``totals`` over all devices that are ``meant``, and a page of them by name. ``disabled``: those left out."""
    found = _targets(org_id, flow_id, version, meant)
    rows = db.session.execute(
        select(found).order_by(found.c.device_name, found.c.device_id).limit(limit).offset(offset)
    )
    totals = dict(db.session.execute(_totals(found)).one()._mapping)
    left_out = select(func.count()).select_from(Device).where(disabled)
    return {
        "dry_run": True,
        "flow_id": flow_id,
        "version": version,
        "totals": {**totals, "left_out_disabled": db.session.scalar(left_out) or 0},
        "quota": quotas.outlook(org_id, "deployments_per_month"),
        "items": [dict(row._mapping) for row in rows],
        "total": totals["targets"],
        "limit": limit,
        "offset": offset,
    }


def _totals(found: Subquery) -> Any:
    def number(condition: ColumnElement[bool]) -> ColumnElement[int]:
        return func.count().filter(condition)

    return select(
        func.count().label("targets"),
        number(~found.c.online).label("offline"),
        number(found.c.already_installed).label("already_installed"),
        number(found.c.from_version.is_not(None) & ~found.c.already_installed).label("version_changes"),
        number(found.c.from_version.is_(None)).label("first_installations"),
        number(found.c.busy_with.is_not(None)).label("busy"),
        number(func.cardinality(found.c.missing_node_types) > 0).label("missing_node_types"),
        number(found.c.missing_node_types.is_(None)).label("node_types_unknown"),
        number(~found.c.tells_health).label("health_unknown"),
    )


def _targets(org_id: UUID, flow_id: UUID, version: int, meant: ColumnElement[bool]) -> Subquery:
    installed = (
        select(Installation.version)
        .where(Installation.device_id == Device.id, Installation.flow_id == flow_id, Installation.replaced_at.is_(None))
        .scalar_subquery()
    )
    return (
        select(
            Device.id.label("device_id"),
            Device.name.label("device_name"),
            func.coalesce(status.live(), False).label("online"),
            installed.label("from_version"),
            literal(version).label("to_version"),
            func.coalesce(installed == version, False).label("already_installed"),
            _busy_with().label("busy_with"),
            _missing().label("missing_node_types"),
            func.coalesce(func.jsonb_typeof(Shadow.reported["flows"]) == "object", False).label("tells_health"),
        )
        .select_from(Device)
        .outerjoin(Connection, and_(Connection.org_id == Device.org_id, Connection.device_id == Device.id))
        .outerjoin(Shadow, and_(Shadow.org_id == Device.org_id, Shadow.device_id == Device.id))
        .join(
            FlowVersion,
            and_(FlowVersion.org_id == org_id, FlowVersion.flow_id == flow_id, FlowVersion.number == version),
        )
        .where(meant)
        .subquery()
    )


def _busy_with() -> Any:
    """The newest deployment that still has something to do on the device."""
    return (
        select(Deployment.id)
        .join(Execution, Execution.deployment_id == Deployment.id)
        .where(
            Execution.device_id == Device.id,
            Execution.state.in_(_OPEN),
            Deployment.status.in_(("in_progress", "paused", "rolling_back", "scheduled")),
        )
        .order_by(Deployment.started_at.desc(), Deployment.id)
        .limit(1)
        .scalar_subquery()
    )


def _missing() -> Any:
    """Types that the device does not have, by the list that it reports; null: it reports none."""
    sql = preflight.lacking("shadows.reported->'node_types'", "flow_versions.node_types")
    return literal_column(f"({sql})", ARRAY(Text))
