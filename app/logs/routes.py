"""Logs: not carried out yet."""

from typing import Any, NoReturn
from uuid import UUID

from flask.views import MethodView

from app.api import Blueprint
from app.auth.roles import Role
from app.errors import NotBuilt
from app.logs import schemas
from app.organizations.access import requires

blp = Blueprint("logs", __name__, description="What devices sent and what the platform saw (not in this release)")


def _not_built() -> NoReturn:
    raise NotBuilt("logs are not available in this release")


@blp.route("/logs")
class Logs(MethodView):
    @requires(Role.VIEWER)
    @blp.arguments(schemas.OrganizationLogQuery, location="query")
    @blp.response(200, schemas.LogsRead)
    @blp.errors(501)
    def get(self, query: dict[str, Any]) -> NoReturn:
        """Query the organization's logs, newest first."""
        _not_built()


@blp.route("/logs/devices/<uuid:device_id>")
class DeviceLogs(MethodView):
    @requires(Role.VIEWER)
    @blp.arguments(schemas.LogQuery, location="query")
    @blp.response(200, schemas.LogsRead)
    @blp.errors(501)
    def get(self, query: dict[str, Any], device_id: UUID) -> NoReturn:
        """Query a device's logs, newest first."""
        _not_built()
