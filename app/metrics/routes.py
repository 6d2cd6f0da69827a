"""Routes of metrics."""

from typing import Any
from uuid import UUID

from flask import Response, request
from flask.views import MethodView

from app.api import Blueprint
from app.auth.roles import Role
from app.metrics import csv, schemas, service
from app.organizations.access import current, requires

blp = Blueprint("metrics", __name__, description="Metrics of devices and flows, as series of aggregated points.")


@blp.route("/metrics")
class Metrics(MethodView):
    @requires(Role.VIEWER)
    @blp.arguments(schemas.OrganizationMetricQuery, location="query")
    @blp.response(200, schemas.MetricsRead)
    @blp.doc(responses=schemas.CSV)
    def get(self, query: dict[str, Any]) -> Any:
        """Query the organization's metrics; without a name, its summary.

        All devices together make one series of each name, unless `group_by` says otherwise; grouped by tag, a device
        counts for each of its tags. A bucket without points is null. With `Accept: text/csv` the series come as CSV.
        400 with a `proposed_step` when a series had more than 11,000 points.
        """
        return _answer(service.organization(current.org, **query))


@blp.route("/metrics/devices/<uuid:device_id>")
class DeviceMetrics(MethodView):
    @requires(Role.VIEWER)
    @blp.arguments(schemas.MetricQuery, location="query")
    @blp.response(200, schemas.DeviceMetricsRead)
    @blp.doc(responses=schemas.CSV)
    def get(self, query: dict[str, Any], device_id: UUID) -> Any:
        """Query a device's metrics; without a name, the newest value of each."""
        return _answer(service.device(current.org, device_id, **query))


def _answer(found: dict[str, Any]) -> Any:
    wanted = request.accept_mimetypes.best_match(("application/json", "text/csv"))
    if wanted == "text/csv" and "series" in found:
        return Response(csv.write(found["series"]), mimetype="text/csv")
    return found
