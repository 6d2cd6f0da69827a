"""Keeping house: connections whose gateway died, and rows that have had their time."""

import structlog

from app import db, occurrences, retention
from app.tunnel import sweep
from workers.base import actor

log = structlog.get_logger("worker")


@actor("maintenance.sweep_gateways")
def sweep_gateways(due_at: str) -> None:
    """Close the connections that dead gateways left behind, and those of silent devices."""
    with db.transaction(system=True):
        if not occurrences.claim("maintenance.sweep_gateways", due_at):
            return
        closed = sweep.sweep()
        retention.forget_processes()
    if any(closed.values()):
        log.info("connections closed", **{reason.replace(" ", "_"): count for reason, count in closed.items()})


@actor("maintenance.clean")
def clean(due_at: str) -> None:
    """Delete what is past its time."""
    with db.transaction(system=True):
        if not occurrences.claim("maintenance.clean", due_at):
            return
        deleted = retention.clean()
    log.info("cleaned", deleted=deleted)
