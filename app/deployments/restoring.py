"""What one does about a flow that differs on a device from what was deployed: take it over, or put it right."""

from collections.abc import Callable
from typing import Any
from uuid import UUID

from marshmallow import ValidationError
from sqlalchemy import text

from app import db
from app.api_schema import flatten
from app.deployments import service as deployments
from app.deployments.schemas import StrategyCreate
from app.edge_nodes import service as edge_nodes
from app.errors import BadDeviceResponse, InvalidState, NotFound, ValidationFailed, VersionConflict
from app.flows import service as flows
from app.flows.models import Flow
from app.flows.schemas import FlowUpdate
from app.tunnel.queries import Route

KNOWN = ("nodes", "connections", "config")
DEVICE_SECONDS = 30.0

_STANDING = text("""
SELECT v.name AS device_name, f.name AS flow_name, i.version,
    s.drift ? CAST(:flow AS text) AS drifts, s.reported->'flows'->CAST(:flow AS text) IS NULL AS gone
FROM installations i
JOIN flows f ON f.id = i.flow_id
JOIN devices v ON v.id = i.device_id
JOIN shadows s ON s.device_id = i.device_id
WHERE i.device_id = :device AND i.flow_id = CAST(:flow AS uuid) AND i.replaced_at IS NULL AND i.version IS NOT NULL
""")


def adopt(
    org_id: UUID,
    device_id: UUID,
    flow_id: UUID,
    route: Route | None,
    *,
    overwrite: bool = False,
    release: Callable[[], None],
    name: str | None = None,
) -> Flow:
    """Make what a device runs the flow's draft. ``release`` ends the transaction before the device is asked.

    Raises NotFound (no such device, or the flow was not deployed there), InvalidState (nothing differs, or the flow is
    not there any more), VersionConflict (the draft has unpublished changes, unless ``overwrite``), ValidationFailed
    (what runs there is no flow that could be published), and what ``edge_nodes.ask`` raises.
    """
    reached = _known(route)
    if _drifting(device_id, flow_id).gone:
        raise InvalidState(
            "the flow is not on the device any more", current_state="removed", allowed_actions=["restore"]
        )
    _refuse_unpublished(flows.get(org_id, flow_id), overwrite)
    told = edge_nodes.ask(
        org_id, device_id, reached, "get_flow", {"flow_id": str(flow_id)}, timeout=DEVICE_SECONDS, release=release
    )
    changes = _draft(told, name)
    _refuse_unpublished(flows.lock(org_id, flow_id), overwrite)
    return flows.update(org_id, flow_id, **changes)


def restore(org_id: UUID, actor: str, device_id: UUID, flow_id: UUID, route: Route | None) -> dict[str, Any]:
    """A started deployment, to this device alone, of the version that was deployed there; it waits while it is offline.

    Raises NotFound, InvalidState (nothing differs, or the device is disabled) or QuotaExceeded.
    """
    _known(route)
    found = _drifting(device_id, flow_id)
    return deployments.create(
        org_id,
        actor,
        flow_id=flow_id,
        version=found.version,
        name=f"{found.flow_name} v{found.version} restored on {found.device_name}"[:200],
        target={"device_ids": [device_id]},
        strategy=StrategyCreate().load({}),
        start=True,
        force=True,
    )


def _known(route: Route | None) -> Route:
    """Raises NotFound or InvalidState (disabled)."""
    if route is None:
        raise NotFound("device")
    if route.disabled:
        raise InvalidState("the device is disabled", current_state="disabled", allowed_actions=["enable"])
    return route


def _drifting(device_id: UUID, flow_id: UUID) -> Any:
    """How the flow stands on the device. Raises NotFound, or InvalidState when nothing differs."""
    found = db.session.execute(_STANDING, {"device": device_id, "flow": str(flow_id)}).first()
    if found is None:
        raise NotFound("flow deployed to the device")
    if not found.drifts:
        raise InvalidState(
            "the flow does not differ on the device from what was deployed", current_state="in_sync", allowed_actions=[]
        )
    return found


def _refuse_unpublished(flow: Flow, overwrite: bool) -> None:
    if flow.has_unpublished_changes and not overwrite:
        raise VersionConflict(
            'the draft has changes that are not published; send {"overwrite": true} to lose them',
            current_version=flow.latest_version,
        )


def _draft(told: Any, name: str | None) -> dict[str, Any]:
    """The changes to the draft that a device's answer to ``get_flow`` amounts to.

    A flow is told with its definition beside its state, or as it is. What else stands in it is the device's own.
    """
    flow = told.get("flow", told) if isinstance(told, dict) else None
    definition = flow.get("definition", flow) if isinstance(flow, dict) else None
    if not isinstance(definition, dict) or "nodes" not in definition:
        raise BadDeviceResponse("the device told no definition of the flow", outcome="done")
    given = {key: definition[key] for key in KNOWN if key in definition}
    try:
        changes: dict[str, Any] = FlowUpdate().load({"definition": given, **({"name": name} if name else {})})
    except ValidationError as error:
        raise ValidationFailed("what runs on the device is no valid flow", details=flatten(error.messages)) from None
    return changes
