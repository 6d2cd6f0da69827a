"""What devices say, by frame type: each is one call, in a transaction of its own where it needs one."""

from collections.abc import Callable

import structlog

from app import db
from app.devices import shadows
from app.errors import AppError
from app.tunnel import protocol
from app.tunnel.connection import Connection
from app.tunnel.protocol import Answer, Frame

log = structlog.get_logger("tunnel")


def take(connection: Connection, raw: str) -> None:
    """Act on one frame. Raises ProtocolError for one that is none; unknown types are logged and ignored."""
    frame = protocol.parse(raw)
    act = _FRAMES.get(frame["type"])
    if act is None:
        log.info("unknown frame type", device_id=str(connection.device_id), type=frame["type"][:64])
        return
    act(connection, frame)


def _ping(connection: Connection, _frame: Frame) -> None:
    connection.socket.post(protocol.encode(protocol.pong()))


def _response(connection: Connection, frame: Frame) -> None:
    if not connection.answered(frame):
        log.info("response nobody waits for", device_id=str(connection.device_id), id=str(frame.get("id"))[:64])


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


def _get_shadow(connection: Connection) -> object:
    return shadows.document(connection.org_id, connection.device_id)


_ACTIONS: dict[str, Callable[[Connection], object]] = {
    "get_shadow": _get_shadow,
    "health_check": lambda _connection: {"status": "ok"},
}
_FRAMES: dict[str, Callable[[Connection, Frame], None]] = {"ping": _ping, "response": _response, "command": _command}
