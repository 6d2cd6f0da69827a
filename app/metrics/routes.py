"""Metrics: not carried out yet."""

from typing import Any, NoReturn
from uuid import UUID

from flask.views import MethodView

from app.api import Blueprint
from app.auth.roles import Role
from app.errors import NotBuilt
from app.metrics import schemas
from app.organizations.access import requires

blp = Blueprint("metrics", __name__, description="Metrics of devices and flows (not in this release)")


def _not_built() -> NoReturn:
    raise NotBuilt("metrics are not available in this release")


@blp.route("/metrics")
class Metrics(MethodView):
    @requires(Role.VIEWER)
    @blp.arguments(schemas.OrganizationMetricQuery, location="query")
    @blp.response(200, schemas.MetricsRead)
    @blp.errors(501)
    def get(self, query: dict[str, Any]) -> NoReturn:
        """Query the organization's metrics; without a name, its summary."""
        _not_built()


@blp.route("/metrics/devices/<uuid:device_id>")
class DeviceMetrics(MethodView):
    @requires(Role.VIEWER)
    @blp.arguments(schemas.MetricQuery, location="query")
    @blp.response(200, schemas.DeviceMetricsRead)
    @blp.errors(501)
    def get(self, query: dict[str, Any], device_id: UUID) -> NoReturn:
        """Query a device's metrics."""
        _not_built()
