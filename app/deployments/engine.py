"""What workers do with deployments: a tick that decides and claims, the sending, and the settling of answers.

No function here waits for a device, and none sends while a transaction is open.
"""

import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import redis
import structlog
from sqlalchemy import select

from app import db
from app.deployments import events, executions, health, ledger, members, queries, rollout, snapshot
from app.deployments.rollout import Decision, Strategy
from app.flows.models import FlowVersion
from app.jobs import enqueue
from app.tunnel import bus
from app.tunnel.bus import Command
from config.settings import settings

log = structlog.get_logger(__name__)

ANSWERS_TO = "rollouts.settle"
MAX_ERROR = 2000
MAX_STEPS = 50  # a start, and every stage twice, may follow each other at once

Answer = Sequence[Any]
"""``[command_id, status, code, error, data]``, as the tunnel hands it over."""
Understood = tuple[UUID, str, str | None, str | None]
"""``(command_id, outcome, error, code)``."""


@dataclass(frozen=True)
class Batch:
    """Commands of one kind to send after the commit; ``send_before`` is a moment of ``time.monotonic()``.

    Past it they are left to redelivery: a worker that was stopped since must not send what others have moved on from.
    """

    action: str
    common: dict[str, Any]
    commands: list[Command]
    timeout: float
    fresh: bool
    send_before: float


def advance(org_id: UUID, deployment_id: UUID) -> list[Batch]:
    """Carry a deployment one step further; what is to be sent once this has committed. Safe at any time."""
    deployment = queries.lock(deployment_id)
    if deployment is None:
        return []
    send_before = time.monotonic() + settings().redeliver_seconds
    decision = tick(deployment)
    strategy = Strategy.of(deployment.strategy)
    claimed: Sequence[Any] = ()
    if decision.dispatch:
        kind = "rollback" if decision.status == "rolling_back" else "install"
        taken = executions.claim(
            deployment_id, deployment.flow_id, kind, decision.dispatch, decision.stage, strategy.timeout_seconds
        )
        claimed = [row for row in taken if row.command_id]
        if len(claimed) < len(taken):  # what was rejected counts now, and has left its slots
            enqueue("rollouts.advance", org_id, deployment_id)
    again = executions.redeliver(deployment_id, deployment.flow_id) if decision.redeliver else ()
    return [
        Batch(action, common, commands, strategy.timeout_seconds, fresh, send_before)
        for fresh, rows in ((True, claimed), (False, again))
        for action, common, commands in _commands(org_id, deployment, rows)
    ]


def tick(deployment: Any) -> Decision:
    """Write down what has become of a locked deployment, all but sending: timeouts, retries, stages, its next status.

    A step that changes what the next one stands on (a start, a new stage, a rollback) is followed by that at once.
    """
    if deployment.started_at is not None:
        _refresh_members(deployment)
    before = deployment.status
    decision = _step(deployment, before)
    for _ in range(MAX_STEPS):
        if not _carry_out(deployment, before, decision):
            break
        before = decision.status
        decision = _step(deployment, before)
    return decision


def _refresh_members(deployment: Any) -> None:
    if deployment.target.get("dynamic") and deployment.status in ("in_progress", "scheduled"):
        members.join(deployment)
    executions.expire(deployment.id)
    members.give_up_taken(deployment.id)
    strategy = Strategy.of(deployment.strategy)
    if strategy.health and deployment.status in snapshot.WATCHED:
        health.judge(deployment.id, deployment.flow_id, strategy.health)


def _step(deployment: Any, before: str) -> Decision:
    if before == "rolling_back":
        ledger.skip_newer(deployment.id, deployment.flow_id)
    state = snapshot.take(deployment.id)
    decision = rollout.decide(state)
    events.note_progress(deployment.id, state, decision.reason)
    queries.save(deployment.id, before, decision)
    if decision.status != before:
        log.info("deployment", deployment_id=deployment.id, status=decision.status, reason=decision.reason)
    return decision


def _carry_out(deployment: Any, before: str, decision: Decision) -> bool:
    """Do what a decision asks for besides sending; whether there is another one to take now."""
    if decision.begin:
        begin(deployment)
    elif decision.next_stage:
        queries.next_stage(deployment.id)
    elif decision.stage_succeeded:
        queries.stage_succeeded(deployment.id)
    elif decision.status == before:
        return False
    elif decision.status == "rolling_back":
        ledger.add_rollbacks(deployment.id)
    elif decision.status == "failed":
        ledger.end_installs(deployment.id)
    else:
        return False
    return True


def begin(deployment: Any) -> bool:
    """Start a locked deployment: its members freeze. False, and it is canceled, when there is none."""
    found = members.freeze(deployment)
    queries.begin(deployment.id, found)
    return found


def _commands(
    org_id: UUID, deployment: Any, rows: Sequence[Any]
) -> Iterable[tuple[str, dict[str, Any], list[Command]]]:
    flow_id, forced = deployment.flow_id, {"force": True} if deployment.force else {}
    by_version: dict[int | None, list[Command]] = defaultdict(list)
    for row in rows:
        before = {"version": row.installed, "content_hash": row.content_hash} if row.installed else None
        payload = {} if row.version is None else {"previous": before}
        by_version[row.version].append(Command(row.command_id, row.device_id, row.gateway, row.turn, payload))
    versions = _versions(org_id, flow_id, [number for number in by_version if number is not None])
    for number, commands in by_version.items():
        if number is None:
            yield "remove_flow", {"flow_id": str(flow_id)}, commands
        else:
            yield "deploy_flow", {**versions[number], **forced}, commands


def _versions(org_id: UUID, flow_id: UUID, numbers: list[int]) -> dict[int, dict[str, Any]]:
    if not numbers:
        return {}
    query = select(FlowVersion).where(
        FlowVersion.org_id == org_id, FlowVersion.flow_id == flow_id, FlowVersion.number.in_(numbers)
    )
    return {
        found.number: {
            "flow_id": str(flow_id),
            "version": found.number,
            "content_hash": found.content_hash,
            "flow": {**found.definition, "id": str(flow_id), "name": found.name},
            "start": True,
        }
        for found in db.session.scalars(query)
    }


def send(org_id: UUID, batches: list[Batch]) -> None:
    """Send what a tick has claimed. No transaction may be open.

    What no gateway took goes back to the queue. With Redis away nothing is known, so the lease goes on and redelivery
    sends it under the same id.
    """
    for batch in batches:
        if time.monotonic() > batch.send_before:
            log.warning("too late to send; left to redelivery", commands=len(batch.commands))
            continue
        try:
            lost = bus.send_many(
                org_id, batch.action, batch.common, batch.commands, timeout=batch.timeout, answer_to=ANSWERS_TO
            )
        except redis.RedisError as error:
            log.warning("not sent; left to redelivery", commands=len(batch.commands), error=str(error))
            continue
        if lost and batch.fresh:
            with db.transaction(org_id):
                settle(org_id, [(str(command_id), "error", "DEVICE_OFFLINE", None, None) for command_id in lost])


def settle(org_id: UUID, answers: Iterable[Answer]) -> set[UUID]:
    """Record devices' answers, each once; late and repeated ones change nothing. The deployments to advance."""
    understood = {answer[0]: _understood(*answer) for answer in answers}
    if not understood:
        return set()
    changed = executions.settle(understood.values())
    installed = [row.id for row in changed if row.state in rollout.SUCCEEDED]
    if installed:
        ledger.record(installed)
    touched = {row.deployment_id for row in changed}
    settled = {row.command_id for row in changed}
    late = [answer for answer in understood.values() if answer[0] not in settled]
    return touched | _late(org_id, late) if late else touched


def _late(org_id: UUID, answers: list[Understood]) -> set[UUID]:
    """Nobody waits for these any more: they change nothing, and a job of its own tells of them."""
    log.info("late or unknown answers", org_id=org_id, number=len(answers))
    told = [[str(command_id), *rest] for command_id, *rest in answers if rest[0] not in ("unknown", "not_sent")]
    if told:
        enqueue("rollouts.note_late", org_id, told)
    return executions.release([answer[0] for answer in answers])


def _understood(command_id: str, status: str, code: str | None, error: str | None, data: Any) -> Understood:
    meaning = rollout.outcome(status, code, data)
    words = (error or code or "the device answered with an error").replace("\0", "")[:MAX_ERROR]
    return UUID(command_id), meaning, words, code


def device_connected(org_id: UUID, device_id: UUID) -> set[UUID]:
    """What the device has not answered is sent again, what waited for it goes. The deployments to advance."""
    return executions.connected(device_id)


def device_removed(org_id: UUID) -> set[UUID]:
    """The deployments to advance after a device was deleted."""
    return executions.with_removed_devices()


def take_due() -> list[tuple[UUID, UUID]]:
    """``(org_id, deployment_id)`` of all that is due, in a system transaction."""
    return queries.take_due()
