"""Routes of deployments."""

from typing import Any
from uuid import UUID

from flask import Response, jsonify, request
from flask.views import MethodView

from app import api_streams
from app.api import Blueprint, example_of
from app.auth.roles import Role
from app.deployments import events, listing, service
from app.deployments.event_schemas import EVENT_STREAM, EventHeaders, EventPage, EventQuery, EventRead
from app.deployments.listing_schemas import DryRunQuery, DryRunRead, ExecutionCursorPage, ExecutionListQuery
from app.deployments.schemas import (
    DeploymentCreate,
    DeploymentQuery,
    DeploymentRead,
    DeploymentStart,
    DeploymentSummaryRead,
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
    @blp.arguments(DeploymentCreate)
    @blp.arguments(DryRunQuery, location="query")
    @blp.response(201, DeploymentRead)
    @blp.alt_response(200, schema=DryRunRead, example=example_of(DryRunRead), description="a dry run")
    @blp.errors(402, 404, 409)
    def post(self, data: dict[str, Any], query: dict[str, Any]) -> Any:
        """Create a deployment, and start it if asked to: at once, at its time, or as soon as it is approved.

        With `dry_run=true` nothing is stored; the answer is what a start at once would do.
        409 for a flow that has never been published, 402 when the month's deployments are used up.
        """
        if query.pop("dry_run"):
            asked = {name: data[name] for name in ("flow_id", "target", "version") if name in data}
            return jsonify(DryRunRead().dump(service.dry_run(current.org, **asked, **query)))
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


@blp.route("/deployments/<uuid:deployment_id>/approve")
class DeploymentApproved(MethodView):
    @requires(Role.OPERATOR)
    @blp.response(200, DeploymentRead)
    @blp.errors(409)
    def post(self, deployment_id: UUID) -> dict[str, Any]:
        """Approve a deployment, which then goes on as it was asked to: waits, is scheduled, or starts.

        403 for a lesser role than it wants, and for its creator unless an owner. Not approving it is canceling it.
        """
        return service.approve(current.org, current.actor, current.role, deployment_id)


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
    @blp.arguments(ExecutionListQuery, location="query")
    @blp.response(200, ExecutionCursorPage)
    def get(self, query: dict[str, Any], deployment_id: UUID) -> Any:
        """List each device's part in a deployment."""
        return listing.executions(current.org, deployment_id, **query)


@blp.route("/deployments/<uuid:deployment_id>/events")
class Events(MethodView):
    @requires(Role.VIEWER)
    @blp.arguments(EventQuery, location="query")
    @blp.arguments(EventHeaders, location="headers")
    @blp.response(200, EventPage)
    @blp.doc(responses=EVENT_STREAM)
    def get(self, query: dict[str, Any], headers: dict[str, Any], deployment_id: UUID) -> Any:
        """List what has happened in a deployment, or follow it as it happens.

        With `Accept: text/event-stream` the answer is a stream of server-sent events that ends when the deployment is
        over, or with an event `refused` when the caller may not read it any more. It goes on after `Last-Event-ID` (or
        `after`); 204 says that nothing more will come.
        """
        if request.method == "HEAD" or not api_streams.wanted():
            return events.page(current.org, deployment_id, **query)
        return _stream(deployment_id, headers.get("last_event_id", query["after"]))


def _stream(deployment_id: UUID, after: int) -> Response:
    over = events.finished(current.org, deployment_id)
    if over and after and not events.since(current.org, deployment_id, after, 1):
        return Response(status=204)  # browsers would come back for ever
    return api_streams.answer(
        events.CHANNEL, deployment_id, events.Tail(current.org, deployment_id, after, EventRead())
    )
