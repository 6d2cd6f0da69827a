"""Jobs of deployments. None waits for a device; each may run twice, late, or at the same time as another."""

from typing import Any
from uuid import UUID

from app import db, occurrences
from app.deployments import engine, events
from app.jobs import enqueue
from workers.base import actor


@actor("rollouts.advance")
def advance(org_id: str, deployment_id: str) -> None:
    """Carry a deployment one step further, then send what that step has claimed."""
    org = UUID(org_id)
    with db.transaction(org):
        batches = engine.advance(org, UUID(deployment_id))
    engine.send(org, batches)


@actor("rollouts.settle")
def settle(org_id: str, answers: list[list[Any]]) -> None:
    """Record answers ``[[command_id, status, code, error, data], …]``; late and repeated ones change nothing."""
    org = UUID(org_id)
    with db.transaction(org):
        _advance_each(org, engine.settle(org, answers))


@actor("rollouts.note_late")
def note_late(org_id: str, answers: list[list[Any]]) -> None:
    """Tell of answers ``[[command_id, outcome, error, code], …]`` that came too late to change anything."""
    with db.transaction(UUID(org_id)):
        events.note_late(answers)


@actor("rollouts.device_connected")
def device_connected(org_id: str, device_id: str) -> None:
    """A device with open executions has connected: they go now."""
    org = UUID(org_id)
    with db.transaction(org):
        _advance_each(org, engine.device_connected(org, UUID(device_id)))


@actor("rollouts.device_removed")
def device_removed(org_id: str, device_id: str) -> None:
    """A device was deleted: its executions end. They do not name it any more, so ``device_id`` finds none of them."""
    org = UUID(org_id)
    with db.transaction(org):
        _advance_each(org, engine.device_removed(org))


@actor("rollouts.reconcile")
def reconcile(due_at: str | None = None) -> None:
    """Ask for every deployment that is due, whatever became of the job that should have driven it."""
    with db.transaction(system=True):
        if due_at is None or occurrences.claim("rollouts.reconcile", due_at):
            for org_id, deployment_id in engine.take_due():
                enqueue("rollouts.advance", org_id, deployment_id)


def _advance_each(org_id: UUID, deployment_ids: set[UUID]) -> None:
    for deployment_id in deployment_ids:
        enqueue("rollouts.advance", org_id, deployment_id)
