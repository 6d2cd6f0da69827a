"""The tunnel's frames, pure: what the released agent (v1) and ours (v2) send and understand."""

import re
from base64 import b64encode
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import orjson

from app.clock import now, rfc3339

Frame = dict[str, Any]

CAPABILITIES = frozenset({"deploy_flow", "configure", "get_node_types", "dedup", "telemetry", "http_proxy"})
"""What this release can use of a v2 agent; the rest of what an agent offers is not accepted."""

CHANGING = frozenset(
    {"create_flow", "update_flow", "delete_flow", "start_flow", "stop_flow", "configure", "deploy_flow", "remove_flow"}
)
"""Actions that change something on a device: at most one of them is in flight per device."""

WINDOW_BYTES = 256 * 1024
"""Of a stream, in each direction: what may be under way that the receiver has not said to have taken."""
CHUNK_BYTES = 32 * 1024
MAX_STREAMS = 64
"""Of one connection."""
MAX_STREAMS_OF_ONE = 48
"""Of one connection, for the same person: others find room, too."""
STILL_WAITING = 102
"""RFC 2518: the request has been taken, the answer is not there yet. So devices ask for patience."""

BEFORE_AUTHENTICATION_BYTES = 4 * 1024
FRAME_BYTES = 1024 * 1024
OUTBOX_BYTES = 16 * 1024 * 1024
OUTBOX_FRAMES = 1_000
FIRST_FRAME_SECONDS = 5.0


class Close:
    """WebSocket close codes of the tunnel."""

    NORMAL = 1000
    UNSUPPORTED = 1003
    BAD_CREDENTIALS = 1008
    TOO_BIG = 1009
    RESTART = 1012
    TRY_LATER = 1013
    DISABLED = 4003
    PROTOCOL_ERROR = 4008
    REPLACED = 4009


class ProtocolError(Exception):
    """A frame that breaks the protocol; the connection is closed with 4008."""


@dataclass(frozen=True)
class Connect:
    """The first frame of a device. ``protocol`` is 1 for the released agent, which does not send it."""

    device_id: UUID
    api_key: str = field(repr=False)
    version: str
    protocol: int
    capabilities: tuple[str, ...]


@dataclass(frozen=True)
class Answer:
    """What became of a command.

    ``status``: ``success`` or ``error``. ``code``: of the device, or ours (``DEVICE_OFFLINE``, ``DEVICE_DISCONNECTED``,
    ``DEVICE_TIMEOUT``, ``NOT_SUPPORTED_BY_DEVICE``, ``BAD_DEVICE_RESPONSE``). ``outcome``: ``done`` when the device
    answered, ``unknown`` when it may have carried the command out, ``not_sent`` when it cannot have.
    """

    status: str
    data: Any = None
    error: str | None = None
    code: str | None = None
    outcome: str = "done"

    @property
    def ok(self) -> bool:
        return self.status == "success"


def offline() -> Answer:
    return Answer("error", error="the device is offline", code="DEVICE_OFFLINE", outcome="not_sent")


def disconnected(*, sent: bool) -> Answer:
    outcome = "unknown" if sent else "not_sent"
    return Answer("error", error="the device disconnected", code="DEVICE_DISCONNECTED", outcome=outcome)


def timed_out(*, sent: bool) -> Answer:
    outcome = "unknown" if sent else "not_sent"
    return Answer("error", error="the device did not answer in time", code="DEVICE_TIMEOUT", outcome=outcome)


def busy() -> Answer:
    return Answer("error", error="too many commands wait for the device", code="DEVICE_TIMEOUT", outcome="not_sent")


def unsupported(error: str) -> Answer:
    return Answer("error", error=error, code="NOT_SUPPORTED_BY_DEVICE")


def parse(raw: str | bytes) -> Frame:
    """One frame. Raises ProtocolError unless it is a JSON object with a ``type``."""
    try:
        frame = orjson.loads(raw)
    except orjson.JSONDecodeError:
        raise ProtocolError("not JSON") from None
    if not isinstance(frame, dict) or not isinstance(frame.get("type"), str):
        raise ProtocolError("not an object with a type")
    return frame


_TELEMETRY = re.compile(r'\s*\{\s*"type"\s*:\s*"telemetry"\s*,\s*"id"\s*:\s*"([A-Za-z0-9_.:-]{1,64})"\s*[,}]')


def telemetry_id(raw: str) -> str | None:
    """The batch id of a telemetry frame that begins with its type and id; None of any other frame.

    The rest is not looked at: such frames are large, and whoever stores them parses them.
    """
    found = _TELEMETRY.match(raw)
    return found[1] if found else None


def parse_connect(raw: str | bytes) -> Connect:
    """The first frame. Raises ProtocolError when it is another one or malformed."""
    frame = parse(raw)
    key, protocol, capabilities = frame.get("api_key"), frame.get("protocol", 1), frame.get("capabilities") or []
    if frame["type"] != "connect" or not isinstance(key, str) or not key:
        raise ProtocolError("the first frame must be connect, with device_id and api_key")
    if type(protocol) is not int or protocol < 1 or not isinstance(capabilities, list):
        raise ProtocolError("protocol must be a positive integer and capabilities a list")
    try:
        device_id = UUID(str(frame.get("device_id")))
    except ValueError:
        raise ProtocolError("device_id must be a UUID") from None
    offered = tuple(sorted({str(name) for name in capabilities} & CAPABILITIES))
    version = _text(frame.get("version") or "", 64)
    return Connect(device_id, key, version, min(protocol, 2), offered if protocol >= 2 else ())


def parse_response(frame: Frame) -> Answer:
    """A device's answer to a command; a malformed one becomes ``BAD_DEVICE_RESPONSE``."""
    status, data = frame.get("status"), frame.get("data")
    if status not in ("success", "error"):
        return _malformed("the device's answer has no valid status")
    try:
        orjson.dumps([[[[data]]]])  # as deep as it stands in our own messages
    except orjson.JSONEncodeError:  # more than 254 levels deep: it can be read, but not passed on
        return _malformed("the device's answer is nested too deeply")
    if status == "success":
        return Answer("success", data=data)
    error = _text(frame.get("error") or "no reason given", 2000)
    return Answer("error", data=data, error=error, code=_code(frame.get("code")))


def _malformed(error: str) -> Answer:
    return Answer("error", error=error, code="BAD_DEVICE_RESPONSE")


def _text(value: Any, length: int) -> str:
    """A device's words, as PostgreSQL can keep them: one NUL would refuse the rows of all devices beside it."""
    return str(value)[:length].replace("\0", "")


def _code(code: Any) -> str:
    return (_text(code, 64) if isinstance(code, str) else "") or "DEVICE_ERROR"


def encode(frame: Frame) -> str:
    return orjson.dumps(frame).decode()


def _stamped(kind: str, **fields: Any) -> Frame:
    return {"type": kind, **fields, "timestamp": rfc3339(now())}


def connected(connect: Connect, *, session: int, heartbeat_interval: int, shadow_version: int) -> Frame:
    """The cloud's first frame; a v1 agent gets only what it knows."""
    if connect.protocol == 1:
        return _stamped("connected", device_id=str(connect.device_id))
    return _stamped(
        "connected",
        device_id=str(connect.device_id),
        protocol=2,
        capabilities=list(connect.capabilities),
        heartbeat_interval=heartbeat_interval,
        session=session,
        shadow_version=shadow_version,
    )


def error(text: str, code: str) -> Frame:
    return _stamped("error", error=text, code=code)


def pong() -> Frame:
    return _stamped("pong")


def command(command_id: str, action: str, payload: dict[str, Any], request_id: str | None = None) -> Frame:
    """Do this. ``request_id`` (v2 only) names the request that it comes from, for the device's log."""
    traced = {"request_id": request_id} if request_id else {}
    return _stamped("command", id=command_id, action=action, payload=payload, **traced)


def response(command_id: str, answer: Answer) -> Frame:
    """The cloud's answer to a command of a device."""
    fields: Frame = {"id": command_id, "status": answer.status}
    if answer.ok:
        return _stamped("response", **fields, data=answer.data)
    return _stamped("response", **fields, error=answer.error, code=answer.code)


def shadow(version: int, desired: dict[str, Any], delta: dict[str, Any]) -> Frame:
    return _stamped("shadow", version=version, desired=desired, delta=delta)


def http_request(stream_id: str, request: Frame) -> Frame:
    """Ask the device's editor. ``request``: ``method``, ``target``, ``headers``, ``body``, ``upgrade``."""
    return {"type": "http_request", "id": stream_id, **request, "window": WINDOW_BYTES}


def chunk(stream_id: str, data: bytes, *, end: bool) -> Frame:
    """Bytes of a stream, at most ``CHUNK_BYTES``; ``end``: there are no more."""
    return {"type": "chunk", "id": stream_id, "data": b64encode(data).decode(), "end": end}


def credit(stream_id: str, size: int) -> Frame:
    """So many bytes have been taken, and as many more may come."""
    return {"type": "credit", "id": stream_id, "bytes": size}


def cancel(stream_id: str, code: str, error: str) -> Frame:
    """The stream is over; both sides forget it."""
    return {"type": "cancel", "id": stream_id, "code": code, "error": error}


def ack(batch_id: str) -> Frame:
    """The telemetry frame with that id is stored safely."""
    return _stamped("ack", id=batch_id)


def bye(reconnect_after_ms: int) -> Frame:
    return _stamped("bye", reconnect_after_ms=reconnect_after_ms)
