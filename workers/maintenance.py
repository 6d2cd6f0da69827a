"""Keeping house: connections whose gateway died, and rows that have had their time."""

from collections.abc import Callable

import structlog
from sqlalchemy.exc import DBAPIError

from app import db, occurrences, retention
from app.edge_nodes.editor import sessions
from app.metrics import partitions
from app.tunnel import sweep
from workers.base import actor

log = structlog.get_logger("worker")

PARTITIONS_MILLISECONDS = 1_800_000
THOROUGH_AT = "T03:"  # the hour (UTC) at which all that is too old is looked for, not only what has just become so


@actor("maintenance.sweep_gateways")
def sweep_gateways(due_at: str) -> None:
    """Close connections that dead gateways left behind, those of silent devices, and editors that have ended."""
    with db.transaction(system=True):
        if not occurrences.claim("maintenance.sweep_gateways", due_at):
            return
        closed = sweep.sweep()
        retention.forget_processes()
        sessions.end_all()
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


@actor("maintenance.partitions", time_limit=PARTITIONS_MILLISECONDS)
def tend_partitions(due_at: str) -> None:
    """Make partitions ahead, drop those that no plan keeps, and delete what an organization's own plan does not."""
    with db.transaction(system=True):
        if not occurrences.claim("maintenance.partitions", due_at):
            return
    done = {"made": _of_each(partitions.create), "dropped": _of_each(partitions.drop)}
    log.info("partitions tended", **done, deleted=_delete_excess(THOROUGH_AT in due_at))


def _of_each(step: Callable[[partitions.Partitioned], int]) -> int:
    """One transaction a table: whoever stores or asks meanwhile waits for one only."""
    total = 0
    for one in partitions.TABLES:
        try:
            with db.transaction(system=True):
                total += step(one)
        except DBAPIError as error:  # busy; the others need not wait for it, and the next hour tries again
            log.warning("partitions left as they are", table=one.table, error=str(error.orig))
    return total


def _delete_excess(thorough: bool) -> int:
    with db.transaction(system=True):
        pieces = list(partitions.excess(thorough=thorough))
    deleted = 0
    for piece in pieces:
        with db.transaction(system=True):
            deleted += partitions.delete(piece)
    return deleted
