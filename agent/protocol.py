"""The tunnel's frames as plain data: nothing here reads, writes or waits.

One JSON object per text frame (design/tunnel-protocol.md). `decode` raises FrameError for what is no frame at all;
a command that is a frame but wrong raises CommandError, which becomes an answer.
"""

import json
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from agent import __version__

PROTOCOL = 2
CAPABILITIES = ("deploy_flow", "configure", "get_node_types", "dedup", "telemetry")
HTTP_PROXY = "http_proxy"
"""The capability of devices that have an editor to show."""
MAX_FRAME_IN = 8 * 1024 * 1024
MAX_FRAME_OUT = 1024 * 1024

NORMAL, BAD_CREDENTIALS, DEVICE_DISABLED, REPLACED = 1000, 1008, 4003, 4009

FLOW_NOT_FOUND = "FLOW_NOT_FOUND"
INVALID_FLOW = "INVALID_FLOW"
START_FAILED = "START_FAILED"
UNSUPPORTED_NODE_TYPE = "UNSUPPORTED_NODE_TYPE"
INVALID_PAYLOAD = "INVALID_PAYLOAD"
UNKNOWN_ACTION = "UNKNOWN_ACTION"
RUNTIME_UNAVAILABLE = "RUNTIME_UNAVAILABLE"
INTERNAL_ERROR = "INTERNAL_ERROR"

Frame = dict[str, Any]


class FrameError(ValueError):
    """The text is no frame: not JSON, not an object, or without a type."""


class CommandError(Exception):
    """A command that fails, with the code that the cloud branches on."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code


@dataclass(frozen=True, slots=True)
class Command:
    """One thing that the cloud asks for; `id` is unique per device."""

    id: str
    action: str
    payload: dict[str, Any]


def now() -> str:
    """The time as RFC 3339 with a zone, to the millisecond."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def encode(frame: Frame) -> str:
    """One frame as text; raises ValueError or TypeError for what JSON cannot say (NaN included)."""
    return json.dumps(frame, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def decode(text: str | bytes) -> Frame:
    """The frame in `text`; raises FrameError."""
    try:
        frame = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise FrameError(f"not JSON: {error}") from error
    if not isinstance(frame, dict) or not isinstance(frame.get("type"), str):
        raise FrameError("not an object with a type")
    return frame


def command_of(frame: Frame) -> Command:
    """The command in a `command` frame.

    Raises FrameError without an id (nothing could be answered), CommandError for the rest.
    """
    command_id, action, payload = frame.get("id"), frame.get("action"), frame.get("payload")
    if not isinstance(command_id, str) or not command_id:
        raise FrameError("a command without an id")
    if not isinstance(action, str) or not action:
        raise CommandError(INVALID_PAYLOAD, "a command without an action")
    if payload is not None and not isinstance(payload, dict):
        raise CommandError(INVALID_PAYLOAD, "payload must be an object")
    return Command(command_id, action, payload or {})


def connect(device_id: str, api_key: str, capabilities: Sequence[str] = CAPABILITIES) -> str:
    """The first frame of a connection."""
    return encode(
        {
            "type": "connect",
            "device_id": device_id,
            "api_key": api_key,
            "version": __version__,
            "protocol": PROTOCOL,
            "capabilities": list(capabilities),
            "timestamp": now(),
        }
    )


def ping() -> str:
    """The heartbeat."""
    return encode({"type": "ping", "timestamp": now()})


def success(command_id: str, data: Any) -> str:
    """The answer of a command that worked; one above 1 MiB or that JSON cannot say becomes an INTERNAL_ERROR."""
    frame = {"type": "response", "id": command_id, "status": "success", "data": data, "timestamp": now()}
    try:
        text = encode(frame)
    except (TypeError, ValueError) as error:
        return failure(command_id, INTERNAL_ERROR, f"the answer is not JSON: {error}")
    if len(text.encode()) > MAX_FRAME_OUT:
        return failure(command_id, INTERNAL_ERROR, "answer too large")
    return text


def failure(command_id: str, code: str, text: str) -> str:
    """The answer of a command that failed."""
    frame = {"type": "response", "id": command_id, "status": "error", "error": text[:2000], "code": code}
    return encode({**frame, "timestamp": now()})


def http_response(stream_id: str, status: int, headers: Sequence[tuple[str, str]], window: int) -> str:
    """The head of what the local server answered; its body follows in chunks."""
    pairs = [list(header) for header in headers]
    return encode({"type": "http_response", "id": stream_id, "status": status, "headers": pairs, "window": window})


def chunk(stream_id: str, data: bytes, end: bool) -> str:
    """A part of a stream's bytes; `end` on the last."""
    frame: Frame = {"type": "chunk", "id": stream_id, "data": b64encode(data).decode("ascii")}
    return encode({**frame, "end": True} if end else frame)


def credit(stream_id: str, count: int) -> str:
    """So many more bytes may be sent."""
    return encode({"type": "credit", "id": stream_id, "bytes": count})


def cancel(stream_id: str, code: str, text: str) -> str:
    """The stream is over, and why."""
    return encode({"type": "cancel", "id": stream_id, "code": code, "error": text[:500]})
