"""Routes of flows."""

from typing import Any
from uuid import UUID

from flask.views import MethodView

from app.api import Blueprint
from app.auth.roles import Role
from app.deployments import service as deployments
from app.flows import service
from app.flows.models import Flow, FlowVersion
from app.flows.schemas import (
    FlowCreate,
    FlowPublishedRead,
    FlowQuery,
    FlowRead,
    FlowSummaryRead,
    FlowUpdate,
    FlowVersionRead,
    FlowVersionSummaryRead,
)
from app.organizations.access import current, requires
from app.pagination import Page, PageQuery, page_of

blp = Blueprint("flows", __name__, description="Flows: a draft that changes, and published versions that never do.")


@blp.route("/flows")
class Flows(MethodView):
    @requires(Role.VIEWER)
    @blp.arguments(FlowQuery, location="query")
    @blp.response(200, page_of(FlowSummaryRead))
    def get(self, query: dict[str, Any]) -> Page:
        """List the flows, without their definitions."""
        return service.list_flows(current.org, **query)

    @requires(Role.OPERATOR)
    @blp.arguments(FlowCreate)
    @blp.response(201, FlowRead)
    @blp.errors(402)
    def post(self, data: dict[str, Any]) -> Flow:
        """Create a flow."""
        return service.create(current.org, current.actor, **data)


@blp.route("/flows/<uuid:flow_id>")
class FlowById(MethodView):
    @requires(Role.VIEWER)
    @blp.response(200, FlowRead)
    def get(self, flow_id: UUID) -> Flow:
        """Read a flow with its draft."""
        return service.get(current.org, flow_id)

    @requires(Role.OPERATOR)
    @blp.arguments(FlowUpdate)
    @blp.response(200, FlowRead)
    def put(self, data: dict[str, Any], flow_id: UUID) -> Flow:
        """Change a flow's draft: the fields that are given."""
        return service.update(current.org, flow_id, **data)

    @requires(Role.OPERATOR)
    @blp.response(204)
    @blp.errors(409)
    def delete(self, flow_id: UUID) -> None:
        """Delete a flow with its versions and finished deployments.

        409 while a deployment that is not over uses it.
        """
        service.lock(current.org, flow_id)
        deployments.refuse_if_in_use(current.org, flow_id)
        service.delete(current.org, flow_id)


@blp.route("/flows/<uuid:flow_id>/publish")
class FlowPublish(MethodView):
    @requires(Role.OPERATOR)
    @blp.response(200, FlowPublishedRead)
    def post(self, flow_id: UUID) -> Flow:
        """Publish a flow for deployment.

        Freezes the draft as the next version; an unchanged draft answers the version that is there.
        """
        return service.publish(current.org, current.actor, flow_id)


@blp.route("/flows/<uuid:flow_id>/versions")
class FlowVersions(MethodView):
    @requires(Role.VIEWER)
    @blp.arguments(PageQuery, location="query")
    @blp.response(200, page_of(FlowVersionSummaryRead))
    def get(self, query: dict[str, Any], flow_id: UUID) -> Page:
        """List a flow's published versions, newest first."""
        return service.versions(current.org, flow_id, **query)


@blp.route("/flows/<uuid:flow_id>/versions/<int(max=2147483647):number>")
class FlowVersionByNumber(MethodView):
    @requires(Role.VIEWER)
    @blp.response(200, FlowVersionRead)
    def get(self, flow_id: UUID, number: int) -> FlowVersion:
        """Read one published version of a flow."""
        return service.version(current.org, flow_id, number)
