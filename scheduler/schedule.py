"""What is due when."""

from dataclasses import dataclass
from datetime import UTC, datetime

SECOND, MINUTE, HOUR, DAY = 1, 60, 3600, 86_400


@dataclass(frozen=True)
class Entry:
    """A job that is due at every whole multiple of ``every`` seconds since 1970, which is part of its identity."""

    job: str
    every: int

    def due_at(self, now: datetime) -> datetime:
        """The newest moment, not after ``now``, at which the job was due."""
        return datetime.fromtimestamp(now.timestamp() // self.every * self.every, UTC)


SCHEDULE = (
    Entry("rollouts.reconcile", 2 * SECOND),
    Entry("telemetry.store", 2 * SECOND),
    Entry("alerts.redrive", 3 * SECOND),
    Entry("alerts.remind", 30 * SECOND),
    Entry("billing.redrive", 5 * SECOND),
    Entry("maintenance.sweep_gateways", 5 * SECOND),
    Entry("alerts.evaluate", 15 * SECOND),
    Entry("maintenance.clean", HOUR),
    Entry("maintenance.partitions", HOUR),
    Entry("metrics.rollup", MINUTE),
    Entry("billing.aggregate", HOUR),
    Entry("billing.sweep", DAY),
)
