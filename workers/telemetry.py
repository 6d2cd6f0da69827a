"""Jobs of telemetry."""

from app import db, occurrences
from app.telemetry import service
from workers.base import actor


@actor("telemetry.store")
def store(due_at: str | None = None) -> None:
    """Store what gateways have put into the inbox; the scheduler asks too, whatever became of a gateway's job."""
    if due_at is not None:
        with db.transaction(system=True):
            if not occurrences.claim("telemetry.store", due_at):
                return
    service.store()
