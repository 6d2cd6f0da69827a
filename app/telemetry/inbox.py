"""How full the inbox is: a bound, so that what no worker stores does not fill the database's disk."""

from time import monotonic

import structlog
from prometheus_client import Gauge
from sqlalchemy import text

from app import db
from config.settings import settings

log = structlog.get_logger("telemetry")

LOOK_SECONDS = 5.0
BYTES = Gauge("edgeflow_telemetry_inbox_bytes", "Size of the inbox of telemetry", multiprocess_mode="mostrecent")

# With its indexes and what lies beside it, so as the disk sees it: what was deleted counts until it has been vacuumed.
_SIZE = text("SELECT pg_total_relation_size('telemetry_inbox')")


class Inbox:
    """As this process saw it a moment ago. Not thread-safe."""

    def __init__(self) -> None:
        self._full, self._look_at = False, 0.0

    def is_full(self) -> bool:
        """Whether nothing may be added. Raises what the database raises while away."""
        moment = monotonic()
        if moment >= self._look_at:
            self._look()
            self._look_at = moment + LOOK_SECONDS
        return self._full

    def _look(self) -> None:
        with db.transaction() as session:
            size: int = session.scalar(_SIZE)
        BYTES.set(size)
        was, self._full = self._full, size >= settings().telemetry_inbox_mb * 1024 * 1024
        if self._full and not was:
            log.error("the inbox of telemetry is full, devices keep theirs: do enough workers run?", bytes=size)
        elif was and not self._full:
            log.warning("the inbox of telemetry has room again", bytes=size)
