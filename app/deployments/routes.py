"""Routes of deployments."""

from typing import Any
from uuid import UUID

from flask.views import MethodView

from app.api import Blueprint
from app.api_schema import Query
from app.auth.roles import Role
from app.deployments import service
from app.deployments.schemas import (
    DeploymentCreate,
    DeploymentQuery,
    DeploymentRead,
    DeploymentStart,
    DeploymentSummaryRead,
    ExecutionQuery,
    ExecutionRead,
)
from app.organizations.access import current, requires
from app.pagination import Page, page_of

blp = Blueprint("deployments", __name__, description="Deployments: a published version of a flow, brought to a fleet.")


@blp.route("/deployments")
class Deployments(MethodView):
    @requires(Role.VIEWER)
    @blp.arguments(DeploymentQuery, location="query")
    @blp.response(200, page_of(DeploymentSummaryRead))
    def get(self, query: dict[str, Any]) -> Page:
        """List the deployments, newest first."""
        return service.list_deployments(current.org, **query)

    @requires(Role.OPERATOR)
    @blp.arguments(Query, location="query")  # it has none: who asks for a dry run must not get a deployment
    @blp.arguments(DeploymentCreate)
    @blp.response(201, DeploymentRead)
    @blp.errors(404, 409)
    def post(self, _query: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
        """Create a deployment, and start it if asked to.

        409 for a flow that has never been published.
        """
        return service.create(current.org, current.actor, **data)


@blp.route("/deployments/<uuid:deployment_id>")
class DeploymentById(MethodView):
    @requires(Role.VIEWER)
    @blp.response(200, DeploymentRead)
    def get(self, deployment_id: UUID) -> dict[str, Any]:
        """Read a deployment: its status, why, and how far it is."""
        return service.get(current.org, deployment_id)


@blp.route("/deployments/<uuid:deployment_id>/start")
class DeploymentStarted(MethodView):
    @requires(Role.OPERATOR)
    @blp.arguments(DeploymentStart, required=False)
    @blp.response(202, DeploymentRead)
    @blp.errors(409)
    def post(self, data: dict[str, Any], deployment_id: UUID) -> dict[str, Any]:
        """Start or resume a deployment.

        Resuming after too many failures wants `acknowledge_failures`.
        """
        return service.start(current.org, deployment_id, **data)


@blp.route("/deployments/<uuid:deployment_id>/pause")
class DeploymentPaused(MethodView):
    @requires(Role.OPERATOR)
    @blp.response(200, DeploymentRead)
    @blp.errors(409)
    def post(self, deployment_id: UUID) -> dict[str, Any]:
        """Pause a deployment: nothing new is sent, what is under way finishes and counts."""
        return service.pause(current.org, deployment_id)


@blp.route("/deployments/<uuid:deployment_id>/cancel")
class DeploymentCanceled(MethodView):
    @requires(Role.OPERATOR)
    @blp.response(200, DeploymentRead)
    @blp.errors(409)
    def post(self, deployment_id: UUID) -> dict[str, Any]:
        """Cancel a deployment: queued devices are left alone, those under way finish."""
        return service.cancel(current.org, deployment_id)


@blp.route("/deployments/<uuid:deployment_id>/rollback")
class DeploymentRolledBack(MethodView):
    @requires(Role.OPERATOR)
    @blp.response(202, DeploymentRead)
    @blp.errors(409)
    def post(self, deployment_id: UUID) -> dict[str, Any]:
        """Roll a deployment back: each device that was started returns to its own previous version.

        A device that had none loses the flow; one that a newer deployment has changed since is left alone.
        """
        return service.rollback(current.org, deployment_id)


@blp.route("/deployments/<uuid:deployment_id>/executions")
class Executions(MethodView):
    @requires(Role.VIEWER)
    @blp.arguments(ExecutionQuery, location="query")
    @blp.response(200, page_of(ExecutionRead))
    def get(self, query: dict[str, Any], deployment_id: UUID) -> Page:
        """List each device's part in a deployment."""
        return service.executions(current.org, deployment_id, **query)
