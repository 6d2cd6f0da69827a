"""The adapter for the released agent (v1.0.0): the one place that reads meaning out of its error texts.

It has no ``deploy_flow``, no codes and no dedup, and two concurrent starts run a flow twice. So a deployment becomes
list, create or update, start; and after anything uncertain it is asked what runs before it is told to start.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from uuid import uuid4

import structlog

from app.tunnel import protocol
from app.tunnel.connection import Connection, Deliver
from app.tunnel.protocol import Answer

log = structlog.get_logger("tunnel")

RUNNING = ("running", "started")

Ask = Callable[[str, dict[str, Any]], Answer]


def adapted(connection: Connection, action: str) -> bool:
    """Whether this command to this device must go through the adapter."""
    return connection.protocol == 1 and (action in _SEQUENCES or action in _ONLY_V2)


def carry_out(
    connection: Connection, command_id: str, action: str, payload: dict[str, Any], timeout: float, deliver: Deliver
) -> None:
    """Do what ``action`` means by the commands that a v1 agent has, in a thread of its own; ``timeout`` is for all."""
    if action in _ONLY_V2:
        deliver(protocol.unsupported(f"the device's agent does not know {action}"))
        return
    if command_id in connection.adapting:
        return
    connection.adapting.add(command_id)
    deadline = time.monotonic() + timeout

    def run() -> None:
        try:
            answer = _in_turn(connection, action, payload, deadline)
        except Exception:
            log.exception("v1 sequence failed", action=action, device_id=str(connection.device_id))
            answer = Answer("error", error="the command failed in the cloud", code="INTERNAL_ERROR", outcome="unknown")
        finally:
            connection.adapting.discard(command_id)
        deliver(answer)

    threading.Thread(target=run, name="tunnel-v1", daemon=True).start()


def _in_turn(connection: Connection, action: str, payload: dict[str, Any], deadline: float) -> Answer:
    """One sequence after the other; one whose caller has gone by the time it may begin is not begun."""
    if not payload.get("flow_id") or (action == "deploy_flow" and not isinstance(payload.get("flow"), dict)):
        return Answer("error", error=f"{action} lacks its flow", code="INVALID_FLOW", outcome="not_sent")
    if not connection.sequence.acquire(timeout=max(0.0, deadline - time.monotonic())):
        return protocol.timed_out(sent=False)
    ask = _Asker(connection, deadline)
    try:
        answer = _SEQUENCES[action](connection, payload, ask)
    finally:
        connection.sequence.release()
    # Its last command was not sent, but one before it was.
    return replace(answer, outcome="unknown") if ask.changed and answer.outcome == "not_sent" else answer


def understood(answer: Answer) -> Answer:
    """A v1 agent's answer with the code that its text means."""
    text = (answer.error or "").lower()
    if answer.ok or answer.code != "DEVICE_ERROR":
        return answer
    if "not yet implemented" in text or "unknown command action" in text:
        return replace(answer, code="NOT_SUPPORTED_BY_DEVICE")
    if "already running" in text:
        return Answer("success", data={"status": "already_running"})
    if "not found" in text:
        return replace(answer, code="FLOW_NOT_FOUND")
    return answer


class _Asker:
    """Asks the device within what is left of the time, and knows whether that has changed anything."""

    def __init__(self, connection: Connection, deadline: float) -> None:
        self._connection, self._deadline = connection, deadline
        self.changed = False

    def __call__(self, action: str, payload: dict[str, Any]) -> Answer:
        timeout = self._deadline - time.monotonic()
        if timeout <= 0:
            return protocol.timed_out(sent=False)
        done, answers = threading.Event(), list[Answer]()

        def deliver(answer: Answer) -> None:
            answers.append(answer)
            done.set()

        self._connection.ask(str(uuid4()), action, payload, timeout, deliver)
        done.wait()
        answer = understood(answers[0])
        self.changed = self.changed or (action in protocol.CHANGING and answer.outcome != "not_sent")
        return answer


def _start(connection: Connection, payload: dict[str, Any], ask: Ask) -> Answer:
    if connection.unsettled:
        running = _known(ask)
        if isinstance(running, Answer):
            return running
        connection.unsettled = False
        if running.get(str(payload.get("flow_id"))) in RUNNING:
            return Answer("success", data={"flow_id": payload.get("flow_id"), "status": "already_running"})
    return ask("start_flow", payload)


def _deploy(connection: Connection, payload: dict[str, Any], ask: Ask) -> Answer:
    flow_id = str(payload["flow_id"])
    known = _known(ask)
    if isinstance(known, Answer):
        return known
    connection.unsettled = False
    flow = {**payload["flow"], "id": flow_id}
    if flow_id in known:
        stored = ask("update_flow", {"flow_id": flow_id, "flow": flow})
    else:
        stored = ask("create_flow", {"flow": flow})
    if not stored.ok or not payload.get("start", True):
        return stored
    if known.get(flow_id) in RUNNING:
        stopped = ask("stop_flow", {"flow_id": flow_id})
        if not stopped.ok:
            return stopped
    started = ask("start_flow", {"flow_id": flow_id})
    return Answer("success", data={"flow_id": flow_id, "status": "installed"}) if started.ok else started


def _remove(_connection: Connection, payload: dict[str, Any], ask: Ask) -> Answer:
    flow_id = str(payload["flow_id"])
    known = _known(ask)
    if isinstance(known, Answer):
        return known
    if flow_id not in known:
        return Answer("success", data={"flow_id": flow_id, "status": "removed"})
    if known[flow_id] in RUNNING:
        stopped = ask("stop_flow", {"flow_id": flow_id})
        if not stopped.ok:
            return stopped
    return ask("delete_flow", {"flow_id": flow_id})


def _known(ask: Ask) -> dict[str, str] | Answer:
    """The device's flows as ``{id: status}``, or the answer that says why they are not known."""
    listed = ask("list_flows", {})
    if not listed.ok:
        return listed
    flows = listed.data.get("flows") if isinstance(listed.data, dict) else None
    if not isinstance(flows, list):
        return Answer("error", error="the device's list of flows has another shape", code="BAD_DEVICE_RESPONSE")
    return {str(flow["id"]): str(flow.get("status", "")) for flow in flows if isinstance(flow, dict) and "id" in flow}


_SEQUENCES: dict[str, Callable[[Connection, dict[str, Any], Ask], Answer]] = {
    "deploy_flow": _deploy,
    "remove_flow": _remove,
    "start_flow": _start,
}
_ONLY_V2 = frozenset({"configure", "get_node_types"})
