"""Reach any device from any process: one command and its answer, many commands without waiting, and notices."""

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import orjson

from app import log_context
from app.redis import pipe
from app.tunnel.hub import hub
from app.tunnel.link import channel
from app.tunnel.protocol import Answer, Frame
from app.tunnel.streams import Stream


@dataclass(frozen=True)
class Command:
    """One device's part of a ``send_many``; ``payload`` is what is special for it.

    ``turn`` rises from each of a device's commands to the next: a gateway drops one that a later one has overtaken.
    """

    id: UUID
    device_id: UUID
    gateway: str
    turn: int
    payload: dict[str, Any] = field(default_factory=dict)


def call(device_id: UUID, gateway: str, action: str, payload: dict[str, Any], timeout: float) -> Answer:
    """Send a command and wait for the answer. Raises link.Unsent when Redis is away. No transaction may be open."""
    return hub().calls.call(device_id, gateway, action, payload, timeout)


def send_many(
    org_id: UUID, action: str, common: dict[str, Any], commands: list[Command], *, timeout: float, answer_to: str
) -> set[UUID]:
    """Send commands without waiting, one message a gateway; the ids of those that no gateway took.

    Answers come as jobs ``answer_to(org_id, [[command_id, status, code, error, data], …])``, gathered for 50 ms.
    Raises redis.RedisError when Redis is away; then nothing is known to be sent.
    """
    by_gateway: dict[str, list[Command]] = defaultdict(list)
    for command in commands:
        by_gateway[command.gateway].append(command)
    request_id = log_context.fields().get("request_id")
    head = {
        "t": "commands",
        "org": str(org_id),
        "job": answer_to,
        "action": action,
        "common": common,
        "timeout": timeout,
        "rid": request_id,
    }
    messages = [
        ("PUBLISH", channel(gateway), orjson.dumps({**head, "items": [_item(one) for one in part]}, default=str))
        for gateway, part in by_gateway.items()
    ]
    taken = dict(zip(by_gateway, pipe().call_many(messages), strict=True))
    return {command.id for command in commands if not taken[command.gateway]}


def open_stream(device_id: UUID, gateway: str, actor: str, request: Frame) -> Stream:
    """Ask a device's editor (``exchange.Exchange.open``). No transaction may be open."""
    return hub().streams.open(device_id, gateway, actor, request)


def notify(gateway: str, message: dict[str, Any]) -> None:
    """Tell a gateway something that needs no answer (a shadow to push, a tunnel to close)."""
    pipe().call("PUBLISH", channel(gateway), orjson.dumps(message, default=str))


def _item(one: Command) -> dict[str, Any]:
    return {"id": str(one.id), "device": str(one.device_id), "turn": one.turn, "payload": one.payload}
