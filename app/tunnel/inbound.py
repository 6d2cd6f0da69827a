"""What devices say, by frame type: each is one call, in a transaction of its own where it needs one."""

from collections.abc import Callable
from time import time
from uuid import uuid4

import orjson
import structlog
from sqlalchemy.exc import SQLAlchemyError

from app import db
from app.devices import shadows
from app.errors import AppError
from app.telemetry import frames
from app.telemetry.handover import Frame as Telemetry
from app.telemetry.handover import handover
from app.tunnel import protocol
from app.tunnel.connection import Connection
from app.tunnel.polling import Poll
from app.tunnel.protocol import Answer, Frame

log = structlog.get_logger("tunnel")

STRANGE_FRAMES_LOGGED = 20


def prepare(connection: Connection) -> None:
    """Before the first frame: a device that sends no telemetry of its own is asked for its figures."""
    if "telemetry" not in connection.capabilities:
        connection.poll = Poll(connection.ask, connection.device_id, lambda reading: _polled(connection, reading))


def take(connection: Connection, raw: str) -> None:
    """Act on one frame. Raises ProtocolError for one that is none; unknown types are logged and ignored."""
    batch_id = protocol.telemetry_id(raw)
    if batch_id:
        _hand_over(connection, batch_id, raw)
        return
    frame = protocol.parse(raw)
    if frame["type"] == "telemetry":
        _hand_over(connection, frame.get("id"), raw)
        return
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


def _stream(connection: Connection, frame: Frame) -> None:
    """Late frames of streams that are over are usual: nobody logs them."""
    connection.relay.from_device(frame)


def _hand_over(connection: Connection, batch_id: object, raw: str) -> None:
    """Have a telemetry frame stored. One that is not taken gets no ``ack``, and so comes again."""
    if "telemetry" not in connection.capabilities:
        _strange(connection, "telemetry that was not offered")
    elif not isinstance(batch_id, str) or not 0 < len(batch_id) <= 64 or not batch_id.isprintable():
        _strange(connection, "telemetry without an id")
    elif not handover().take(Telemetry(connection, batch_id, raw.encode())):
        _strange(connection, "telemetry not taken: too much of it waits to be stored")


def _polled(connection: Connection, reading: object) -> None:
    """Have the figures stored that a device was asked for, as if it had sent them."""
    moment = int(time() * 1000)
    batch = {"metrics": [[name, moment, value] for name, value in frames.flatten(reading)]}
    if batch["metrics"]:
        handover().take(Telemetry(connection, str(uuid4()), orjson.dumps(batch), acknowledge=False))


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
_FRAMES: dict[str, Callable[[Connection, Frame], None]] = {
    "ping": _ping,
    "response": _response,
    "command": _command,
    "http_response": _stream,
    "chunk": _stream,
    "credit": _stream,
    "cancel": _stream,
}
