"""Alert rules: not carried out yet."""

from typing import Any, NoReturn
from uuid import UUID

from flask.views import MethodView

from app.alerts import schemas
from app.api import Blueprint
from app.auth.roles import Role
from app.errors import NotBuilt
from app.organizations.access import requires

blp = Blueprint("alerts", __name__, description="Alert rules (not in this release)")


def _not_built() -> NoReturn:
    raise NotBuilt("alerts are not available in this release")


@blp.route("/alerts")
class Alerts(MethodView):
    @requires(Role.VIEWER)
    @blp.arguments(schemas.AlertQuery, location="query")
    @blp.response(200, schemas.AlertPage)
    @blp.errors(501)
    def get(self, query: dict[str, Any]) -> NoReturn:
        """List the alert rules."""
        _not_built()

    @requires(Role.OPERATOR)
    @blp.arguments(schemas.AlertCreate)
    @blp.response(201, schemas.AlertRead)
    @blp.errors(501)
    def post(self, data: dict[str, Any]) -> NoReturn:
        """Create an alert rule."""
        _not_built()


@blp.route("/alerts/<uuid:alert_id>")
class Alert(MethodView):
    @requires(Role.VIEWER)
    @blp.response(200, schemas.AlertRead)
    @blp.errors(501)
    def get(self, alert_id: UUID) -> NoReturn:
        """Show an alert rule with its state."""
        _not_built()

    @requires(Role.OPERATOR)
    @blp.arguments(schemas.AlertUpdate)
    @blp.response(200, schemas.AlertRead)
    @blp.errors(501)
    def put(self, data: dict[str, Any], alert_id: UUID) -> NoReturn:
        """Change an alert rule; only the fields given."""
        _not_built()

    @requires(Role.OPERATOR)
    @blp.response(204)
    @blp.errors(501)
    def delete(self, alert_id: UUID) -> NoReturn:
        """Delete an alert rule."""
        _not_built()


@blp.route("/alerts/<uuid:alert_id>/acknowledge")
class AlertAcknowledge(MethodView):
    @requires(Role.OPERATOR)
    @blp.arguments(schemas.Acknowledgement, required=False)
    @blp.response(200, schemas.AlertRead)
    @blp.errors(409, 501)
    def post(self, data: dict[str, Any], alert_id: UUID) -> NoReturn:
        """Acknowledge the rule's firing alerts."""
        _not_built()
