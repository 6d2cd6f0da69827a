"""Routes of alert rules."""

from typing import Any
from uuid import UUID

from flask.views import MethodView

from app.alerts import listing, preview, schemas, service
from app.api import Blueprint
from app.auth.roles import Role
from app.organizations.access import current, requires
from app.pagination import Page

blp = Blueprint("alerts", __name__, description="Alert rules: what they watch, what fires, and who is told.")


@blp.route("/alerts")
class Alerts(MethodView):
    @requires(Role.VIEWER)
    @blp.arguments(schemas.AlertQuery, location="query")
    @blp.response(200, schemas.AlertPage)
    def get(self, query: dict[str, Any]) -> Page:
        """List the alert rules, newest first."""
        return listing.list_rules(current.org, **query)

    @requires(Role.OPERATOR)
    @blp.arguments(schemas.AlertCreate)
    @blp.response(201, schemas.AlertRead)
    def post(self, data: dict[str, Any]) -> dict[str, Any]:
        """Create an alert rule. Secrets made for its webhooks are in this answer and never again."""
        return service.create(current.org, current.actor, **data)


@blp.route("/alerts/preview")
class AlertPreview(MethodView):
    @requires(Role.VIEWER)
    @blp.arguments(schemas.AlertCreate)
    @blp.arguments(schemas.PreviewQuery, location="query")
    @blp.response(200, schemas.PreviewRead)
    def post(self, data: dict[str, Any], query: dict[str, Any]) -> dict[str, Any]:
        """Tell when a rule would have fired, had there been one: run over what is stored. Nothing is kept."""
        return preview.preview(current.org, data, **query)


@blp.route("/alerts/<uuid:alert_id>")
class Alert(MethodView):
    @requires(Role.VIEWER)
    @blp.response(200, schemas.AlertRead)
    def get(self, alert_id: UUID) -> dict[str, Any]:
        """Show an alert rule with its state."""
        return service.get(current.org, alert_id)

    @requires(Role.OPERATOR)
    @blp.arguments(schemas.AlertUpdate)
    @blp.response(200, schemas.AlertRead)
    def put(self, data: dict[str, Any], alert_id: UUID) -> dict[str, Any]:
        """Change an alert rule, only the fields given; silence it with `silenced_until`."""
        return service.update(current.org, current.actor, alert_id, **data)

    @requires(Role.OPERATOR)
    @blp.response(204)
    def delete(self, alert_id: UUID) -> None:
        """Delete an alert rule with its alerts and their history."""
        service.remove(current.org, alert_id)


@blp.route("/alerts/<uuid:alert_id>/acknowledge")
class AlertAcknowledge(MethodView):
    @requires(Role.OPERATOR)
    @blp.arguments(schemas.Acknowledgement, required=False)
    @blp.response(200, schemas.AlertRead)
    @blp.errors(409)
    def post(self, data: dict[str, Any], alert_id: UUID) -> dict[str, Any]:
        """Acknowledge the rule's firing alerts: they go on firing, without reminders. 409 if none fires."""
        return service.acknowledge(current.org, current.actor, alert_id, **data)


@blp.route("/alerts/<uuid:alert_id>/instances")
class AlertInstances(MethodView):
    @requires(Role.VIEWER)
    @blp.arguments(schemas.InstanceQuery, location="query")
    @blp.response(200, schemas.InstancePage)
    def get(self, query: dict[str, Any], alert_id: UUID) -> Page:
        """List the alerts of a rule: one for each device or deployment and time that it came to pass."""
        return listing.instances(current.org, alert_id, **query)


@blp.route("/alerts/<uuid:alert_id>/events")
class AlertEvents(MethodView):
    @requires(Role.VIEWER)
    @blp.arguments(schemas.EventQuery, location="query")
    @blp.response(200, schemas.AlertEventPage)
    def get(self, query: dict[str, Any], alert_id: UUID) -> Page:
        """List what has happened to a rule and its alerts, newest first."""
        return listing.events(current.org, alert_id, **query)
