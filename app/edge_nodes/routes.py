"""The 11 endpoints that reach one device: each is one command over its tunnel."""

from collections.abc import Callable
from typing import Any, TypeVar
from uuid import UUID

from flask import Response, jsonify
from flask.views import MethodView

from app.api import Blueprint
from app.auth.roles import Role
from app.edge_nodes import schemas, service
from app.organizations.access import current, requires
from app.replay import commit_before_waiting
from app.tunnel import queries

F = TypeVar("F", bound=Callable[..., Any])

blp = Blueprint("edge-nodes", __name__, description="One device, remotely: its health, its flows, its settings")

DEVICE_ERRORS = (404, 409, 501, 502, 503, 504)
CommandQuery = schemas.CommandQuery


def _ask(device_id: UUID, action: str, query: dict[str, Any], **payload: Any) -> Response:
    route = queries.route(current.beside)
    data = service.ask(
        current.org, device_id, route, action, payload, timeout=query["timeout"], release=commit_before_waiting
    )
    return jsonify(data)


def _requires(role: Role) -> Callable[[F], F]:
    """As ``requires``; the caller and where the device is are one look-up."""
    return requires(role, beside=queries.route_beside)


@blp.route("/edge-nodes/<uuid:device_id>/health")
class Health(MethodView):
    @_requires(Role.VIEWER)
    @blp.arguments(CommandQuery, location="query")
    @blp.response(200, schemas.Health)
    @blp.errors(*DEVICE_ERRORS)
    def get(self, query: dict[str, Any], device_id: UUID) -> Response:
        """Check a device's health."""
        return _ask(device_id, "health_check", query)


@blp.route("/edge-nodes/<uuid:device_id>/node-types")
class NodeTypes(MethodView):
    @_requires(Role.VIEWER)
    @blp.arguments(CommandQuery, location="query")
    @blp.response(200, schemas.NodeTypes)
    @blp.errors(*DEVICE_ERRORS)
    def get(self, query: dict[str, Any], device_id: UUID) -> Response:
        """List the node types that a device's runtime has."""
        return _ask(device_id, "get_node_types", query)


@blp.route("/edge-nodes/<uuid:device_id>/editor-url")
class EditorUrl(MethodView):
    @_requires(Role.VIEWER)
    @blp.response(200, schemas.EditorUrl)
    @blp.errors(*DEVICE_ERRORS)
    def get(self, device_id: UUID) -> Response:
        """Get a URL that opens a device's editor in a browser, once and within a minute."""
        return jsonify(service.editor_url(current.identity, device_id, queries.route(current.beside)))


@blp.route("/edge-nodes/<uuid:device_id>/flows")
class EdgeFlows(MethodView):
    @_requires(Role.VIEWER)
    @blp.arguments(CommandQuery, location="query")
    @blp.response(200, schemas.EdgeFlowList)
    @blp.errors(*DEVICE_ERRORS)
    def get(self, query: dict[str, Any], device_id: UUID) -> Response:
        """List the flows on a device."""
        return _ask(device_id, "list_flows", query)

    @_requires(Role.OPERATOR)
    @blp.arguments(CommandQuery, location="query")
    @blp.arguments(schemas.EdgeFlowWrite)
    @blp.response(200, schemas.EdgeFlowState)
    @blp.errors(*DEVICE_ERRORS)
    def post(self, query: dict[str, Any], data: dict[str, Any], device_id: UUID) -> Response:
        """Create a flow on a device."""
        return _ask(device_id, "create_flow", query, flow=data["flow"])


@blp.route("/edge-nodes/<uuid:device_id>/flows/<string(maxlength=255):flow_id>")
class EdgeFlow(MethodView):
    @_requires(Role.VIEWER)
    @blp.arguments(CommandQuery, location="query")
    @blp.response(200, schemas.EdgeFlowRead)
    @blp.errors(*DEVICE_ERRORS)
    def get(self, query: dict[str, Any], device_id: UUID, flow_id: str) -> Response:
        """Get a flow from a device."""
        return _ask(device_id, "get_flow", query, flow_id=flow_id)

    @_requires(Role.OPERATOR)
    @blp.arguments(CommandQuery, location="query")
    @blp.arguments(schemas.EdgeFlowWrite)
    @blp.response(200, schemas.EdgeFlowState)
    @blp.errors(*DEVICE_ERRORS)
    def put(self, query: dict[str, Any], data: dict[str, Any], device_id: UUID, flow_id: str) -> Response:
        """Update a flow on a device."""
        return _ask(device_id, "update_flow", query, flow_id=flow_id, flow=data["flow"])

    @_requires(Role.OPERATOR)
    @blp.arguments(CommandQuery, location="query")
    @blp.response(200, schemas.EdgeFlowState)
    @blp.errors(*DEVICE_ERRORS)
    def delete(self, query: dict[str, Any], device_id: UUID, flow_id: str) -> Response:
        """Delete a flow from a device."""
        return _ask(device_id, "delete_flow", query, flow_id=flow_id)


@blp.route("/edge-nodes/<uuid:device_id>/flows/<string(maxlength=255):flow_id>/start")
class EdgeFlowStart(MethodView):
    @_requires(Role.OPERATOR)
    @blp.arguments(CommandQuery, location="query")
    @blp.response(200, schemas.EdgeFlowState)
    @blp.errors(*DEVICE_ERRORS)
    def post(self, query: dict[str, Any], device_id: UUID, flow_id: str) -> Response:
        """Start a flow on a device."""
        return _ask(device_id, "start_flow", query, flow_id=flow_id)


@blp.route("/edge-nodes/<uuid:device_id>/flows/<string(maxlength=255):flow_id>/stop")
class EdgeFlowStop(MethodView):
    @_requires(Role.OPERATOR)
    @blp.arguments(CommandQuery, location="query")
    @blp.response(200, schemas.EdgeFlowState)
    @blp.errors(*DEVICE_ERRORS)
    def post(self, query: dict[str, Any], device_id: UUID, flow_id: str) -> Response:
        """Stop a flow on a device."""
        return _ask(device_id, "stop_flow", query, flow_id=flow_id)


@blp.route("/edge-nodes/<uuid:device_id>/configure")
class Configure(MethodView):
    @_requires(Role.OPERATOR)
    @blp.arguments(CommandQuery, location="query")
    @blp.arguments(schemas.NodeConfigure)
    @blp.response(200, schemas.Configured)
    @blp.errors(*DEVICE_ERRORS)
    def put(self, query: dict[str, Any], data: dict[str, Any], device_id: UUID) -> Response:
        """Update a device's connection settings."""
        answered = service.configure(
            current.org,
            device_id,
            queries.route(current.beside),
            data["settings"],
            timeout=query["timeout"],
            release=commit_before_waiting,
        )
        return jsonify(answered)
