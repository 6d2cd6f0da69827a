"""The ledger of occurrences: each is recorded once, whoever leads, and sent until a send has been noted.

A crash between sending and noting sends a message twice; its actor claims the occurrence, so it still runs once.
"""

from datetime import datetime

import psycopg
import structlog

from app import jobs
from app.clock import rfc3339

log = structlog.get_logger("scheduler")

SEND_AT_ONCE = 200  # after a long absence of Redis the backlog goes out over several ticks


class Ledger:
    """Reads and writes ``scheduled_runs`` through the leader's session."""

    def __init__(self, session: psycopg.Connection) -> None:
        self._session = session

    def record(self, job: str, due_at: datetime) -> None:
        """Note that ``job`` is due; a second note of the same occurrence changes nothing."""
        self._session.execute(
            "INSERT INTO scheduled_runs (job, due_at) VALUES (%s, %s) ON CONFLICT DO NOTHING", [job, due_at]
        )

    def send(self) -> None:
        """Send every occurrence that nobody has noted as sent, oldest first; stops while Redis is away."""
        for job, due_at in self._unsent():
            if not jobs.send(job, rfc3339(due_at)):
                return
            self._session.execute(
                "UPDATE scheduled_runs SET enqueued_at = now() WHERE job = %s AND due_at = %s", [job, due_at]
            )

    def _unsent(self) -> list[tuple[str, datetime]]:
        # Older than an hour: newer occurrences do its work, but for a job that comes so seldom that there is none.
        return self._session.execute(
            "SELECT job, due_at FROM scheduled_runs r WHERE enqueued_at IS NULL AND started_at IS NULL "
            "AND (due_at > now() - interval '1 hour' OR NOT EXISTS ("
            "SELECT FROM scheduled_runs n WHERE n.job = r.job AND n.due_at > r.due_at)) ORDER BY due_at, job LIMIT %s",
            [SEND_AT_ONCE],
        ).fetchall()
