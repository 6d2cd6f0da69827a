"""The tunnel's endpoint, and its status."""

from contextlib import suppress
from functools import partial
from typing import Any

import flask_sock
import structlog
from flask import Flask, request
from flask.views import MethodView

from app import log_context
from app.api import PREFIX, Blueprint
from app.auth.roles import Role
from app.organizations.access import current, requires
from app.pagination import PageQuery
from app.tunnel import inbound, protocol, service
from app.tunnel.admission import Refused
from app.tunnel.connection import Connection
from app.tunnel.hub import Hub, hub
from app.tunnel.protocol import FIRST_FRAME_SECONDS, FRAME_BYTES, Close, ProtocolError
from app.tunnel.schemas import ConnectionPage
from app.tunnel.socket import Closed, TunnelSocket
from config.settings import settings

log = structlog.get_logger("tunnel")

blp = Blueprint("tunnel", __name__, description="The devices' WebSocket tunnel")

# The extension makes the WebSocket itself; ours is bounded and writes whole frames.
flask_sock.Server = TunnelSocket


@blp.route("/tunnel/status")
class TunnelStatus(MethodView):
    @requires(Role.VIEWER)
    @blp.arguments(PageQuery, location="query")
    @blp.response(200, ConnectionPage)
    def get(self, query: dict[str, Any]) -> Any:
        """List the organization's connected devices."""
        return service.connections(current.org, **query)


def serve(socket: TunnelSocket) -> None:
    """One device's connection, to its end. Lets no exception out: Flask would answer HTTP into the WebSocket."""
    log_context.begin()
    try:
        _serve(socket, hub(), request.remote_addr)
    except Closed as closed:
        log.debug("tunnel closed", reason=str(closed))
    except Exception:
        log.exception("tunnel failed")
        socket.abort("internal error")


def _serve(socket: TunnelSocket, gateway: Hub, address: str | None) -> None:
    try:
        connect = protocol.parse_connect(socket.first(FIRST_FRAME_SECONDS))
        admitted = gateway.admission.ask(connect, address, partial(gateway.outdated, socket))
    except ProtocolError as error:
        return _refuse(socket, Close.PROTOCOL_ERROR, "PROTOCOL_ERROR", str(error))
    except Refused as refused:
        return _refuse(socket, refused.code, refused.error_code, str(refused))
    connection = Connection(socket, connect, admitted.org_id, admitted.epoch)
    inbound.prepare(connection)
    socket.max_message_bytes = FRAME_BYTES
    socket.post(
        protocol.encode(
            protocol.connected(
                connect,
                session=admitted.epoch,
                heartbeat_interval=settings().heartbeat_interval,
                shadow_version=admitted.shadow_version,
            )
        )
    )
    socket.start_writer(str(connect.device_id))
    try:
        gateway.join(connection, admitted)
        _read(socket, connection)
    finally:
        gateway.leave(connection, str(socket.close_message or "closed by the device"))
    return None


def _read(socket: TunnelSocket, connection: Connection) -> None:
    try:
        for raw in socket.messages():
            with suppress(Closed):  # it said more before it went: an answer among that still counts
                inbound.take(connection, raw)
    except ProtocolError as error:
        socket.hang_up(Close.PROTOCOL_ERROR, str(error))


def _refuse(socket: TunnelSocket, code: int, error_code: str, text: str) -> None:
    log.info("tunnel refused", reason=text)
    socket.post(protocol.encode(protocol.error(text, error_code)))
    socket.hang_up(code, text)


def mount(app: Flask) -> None:
    """Serve the tunnel under the path of the released agent and under the API's own."""
    sock = flask_sock.Sock(app)
    for path in ("/tunnel", f"{PREFIX}/tunnel"):
        sock.route(path, endpoint=f"tunnel-{path}")(serve)
    app.extensions["tunnel"] = hub  # for the server's configuration: it starts the hub after the fork, and drains it
