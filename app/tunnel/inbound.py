"""What devices say, by frame type: each is one call, in a transaction of its own where it needs one."""

from collections.abc import Callable

import structlog
from sqlalchemy.exc import SQLAlchemyError

from app import db
from app.devices import shadows
from app.errors import AppError
from app.tunnel import protocol
from app.tunnel.connection import Connection
from app.tunnel.protocol import Answer, Frame

log = structlog.get_logger("tunnel")

STRANGE_FRAMES_LOGGED = 20


def take(connection: Connection, raw: str) -> None:
    """Act on one frame. Raises ProtocolError for one that is none; unknown types are logged and ignored."""
    frame = protocol.parse(raw)
    act = _FRAMES.get(frame["type"])
    if act is None:
        _strange(connection, "unknown frame type", type=frame["type"][:64])
        return
    act(connection, frame)


def _ping(connection: Connection, _frame: Frame) -> None:
    connection.socket.post(protocol.encode(protocol.pong()))


def _response(connection: Connection, frame: Frame) -> None:
    if not connection.answered(frame):
        _strange(connection, "response nobody waits for", id=str(frame.get("id"))[:64])


def _strange(connection: Connection, what: str, **details: str) -> None:
    """Log a frame that is ignored; the first few of a connection, since a device can send any number of them."""
    connection.strange += 1
    if connection.strange <= STRANGE_FRAMES_LOGGED:
        log.info(what, device_id=str(connection.device_id), **details)


def _command(connection: Connection, frame: Frame) -> None:
    """A v1 agent may ask the cloud too, and waits 30 s for the response."""
    action = _ACTIONS.get(str(frame.get("action")))
    if action is None:
        answer = Answer(
            "error", error=f"unknown command action: {str(frame.get('action'))[:64]}", code="UNKNOWN_ACTION"
        )
    else:
        answer = _carry_out(action, connection)
    connection.socket.post(protocol.encode(protocol.response(str(frame.get("id"))[:64], answer)))


def _carry_out(action: Callable[[Connection], object], connection: Connection) -> Answer:
    try:
        with db.transaction(connection.org_id):
            return Answer("success", data=action(connection))
    except AppError as error:
        return Answer("error", error=error.message, code=error.code)
    except SQLAlchemyError as error:
        log.warning("a device's command failed", error=str(error).splitlines()[0])
        return Answer("error", error="the service is briefly unavailable", code="SERVICE_UNAVAILABLE")


def _get_shadow(connection: Connection) -> object:
    return shadows.document(connection.org_id, connection.device_id)


_ACTIONS: dict[str, Callable[[Connection], object]] = {
    "get_shadow": _get_shadow,
    "health_check": lambda _connection: {"status": "ok"},
}
_FRAMES: dict[str, Callable[[Connection, Frame], None]] = {"ping": _ping, "response": _response, "command": _command}
