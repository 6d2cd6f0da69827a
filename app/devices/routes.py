"""Routes of devices."""

from typing import Any
from uuid import UUID

from flask.views import MethodView

from app import limits
from app.api import PREFIX, Blueprint
from app.auth.roles import Role
from app.deployments import listing, restoring
from app.deployments.listing_schemas import LedgerQuery, LedgerRead
from app.deployments.schemas import DeploymentRead
from app.devices import provisioning, service, shadows
from app.devices.schemas import (
    DeviceCreate,
    DeviceCreated,
    DeviceDetailRead,
    DevicePage,
    DeviceQuery,
    DeviceStatus,
    DeviceUpdate,
    Provisioned,
    ProvisionRequest,
    ShadowRead,
    ShadowUpdate,
)
from app.errors import NotFound, Unauthorized
from app.flows.models import Flow
from app.flows.schemas import FlowAdopt, FlowRead
from app.organizations.access import current, public, requires
from app.pagination import Page, page_of
from app.replay import commit_before_waiting
from app.tunnel import queries as tunnel
from config.settings import settings

blp = Blueprint("devices", __name__, description="The fleet: register, provision and watch devices, keep their shadows")

# A whole fleet may stand behind one address and start at once.
PROVISION_LIMIT = "6000 per minute"


@blp.route("/devices")
class Devices(MethodView):
    @requires(Role.VIEWER)
    @blp.arguments(DeviceQuery, location="query")
    @blp.response(200, DevicePage)
    def get(self, query: dict[str, Any]) -> Any:
        """List devices."""
        return service.list_devices(current.org, **query)

    @requires(Role.OPERATOR)
    @blp.arguments(DeviceCreate)
    @blp.response(201, DeviceCreated)
    @blp.errors(402)
    def post(self, data: dict[str, Any]) -> Any:
        """Register a device; its key and provisioning code are shown this once."""
        return service.create(current.org, **data)


@blp.route("/devices/provision", methods=["POST"])
@limits.limiter.exempt
@public
@blp.arguments(ProvisionRequest)
@blp.response(201, Provisioned)
@blp.errors(401, 402)
def provision(data: dict[str, Any]) -> Any:
    """Trade a provisioning code for a device's id and key, as agents do."""
    limits.by_address("provision", PROVISION_LIMIT)
    try:
        given = provisioning.provision(**data)
    except Unauthorized:
        limits.by_address("failed-auth", settings().rate_limit_ip)
        raise
    return given, {"Location": f"{PREFIX}/devices/{given['device_id']}"}


@blp.route("/devices/<uuid:device_id>")
class DeviceById(MethodView):
    @requires(Role.VIEWER)
    @blp.response(200, DeviceDetailRead)
    def get(self, device_id: UUID) -> Any:
        """Show a device."""
        return service.describe(current.org, device_id)

    @requires(Role.OPERATOR)
    @blp.arguments(DeviceUpdate)
    @blp.response(200, DeviceDetailRead)
    def put(self, data: dict[str, Any], device_id: UUID) -> Any:
        """Change a device's name, type, tags or metadata, disable or enable it."""
        return service.update(current.org, device_id, **data)

    @requires(Role.OPERATOR)
    @blp.response(204)
    def delete(self, device_id: UUID) -> None:
        """Delete a device: its tunnel closes and its key is void."""
        service.remove(current.org, device_id)


@blp.route("/devices/<uuid:device_id>/status")
class LiveStatus(MethodView):
    @requires(Role.VIEWER)
    @blp.response(200, DeviceStatus)
    def get(self, device_id: UUID) -> Any:
        """Show whether a device is connected now, and how it is."""
        return service.live_status(current.org, device_id)


@blp.route("/devices/<uuid:device_id>/shadow")
class DeviceShadow(MethodView):
    @requires(Role.VIEWER, device=True)
    @blp.response(200, ShadowRead)
    def get(self, device_id: UUID) -> Any:
        """Show a device's shadow."""
        _speaks_of_itself(device_id)
        return shadows.document(current.org, device_id)

    @requires(Role.OPERATOR, device=True)
    @blp.arguments(ShadowUpdate)
    @blp.response(200, ShadowRead)
    @blp.errors(409)
    def put(self, data: dict[str, Any], device_id: UUID) -> Any:
        """Merge into a device's shadow: users into desired, the device into reported."""
        _speaks_of_itself(device_id)
        return shadows.update(current.org, device_id, by_device=current.device_id is not None, **data)


@blp.route("/devices/<uuid:device_id>/deployments")
class Ledger(MethodView):
    @requires(Role.VIEWER)
    @blp.arguments(LedgerQuery, location="query")
    @blp.response(200, page_of(LedgerRead))
    def get(self, query: dict[str, Any], device_id: UUID) -> Page:
        """List what has run on a device when, and by which deployment, newest first."""
        return listing.of_device(current.org, device_id, **query)


@blp.route("/devices/<uuid:device_id>/flows/<uuid:flow_id>/adopt")
class Adopted(MethodView):
    @requires(Role.OPERATOR, beside=tunnel.route_beside)
    @blp.arguments(FlowAdopt, required=False)
    @blp.response(200, FlowRead)
    @blp.errors(409, 501, 502, 503, 504)
    def post(self, data: dict[str, Any], device_id: UUID, flow_id: UUID) -> Flow:
        """Take over what a device runs instead of what was deployed: it becomes the flow's draft.

        409 `VERSION_CONFLICT` when the draft has changes that are not published, unless `overwrite`; `INVALID_STATE`
        when nothing differs.
        """
        route = tunnel.route(current.beside)
        return restoring.adopt(current.org, device_id, flow_id, route, release=commit_before_waiting, **data)


@blp.route("/devices/<uuid:device_id>/flows/<uuid:flow_id>/restore")
class Restored(MethodView):
    @requires(Role.OPERATOR, beside=tunnel.route_beside)
    @blp.response(202, DeploymentRead)
    @blp.errors(402, 409)
    def post(self, device_id: UUID, flow_id: UUID) -> dict[str, Any]:
        """Deploy again what a device had instead of what it runs: a deployment to this device alone.

        It waits while the device is offline. 409 `INVALID_STATE` when nothing differs.
        """
        return restoring.restore(current.org, current.actor, device_id, flow_id, tunnel.route(current.beside))


def _speaks_of_itself(device_id: UUID) -> None:
    """To a device key, another device's id is as one that does not exist. Raises NotFound."""
    if current.device_id not in (None, device_id):
        raise NotFound("device")
