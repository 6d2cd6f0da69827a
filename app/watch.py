"""One connection of a process that hears what was written, and wakes whoever waits for it.

PostgreSQL tells it at each commit (``LISTEN``): on the channel of a table, the id that the new rows are about. While
that connection is lost, everybody is woken every second and looks for himself.
"""

import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID

import psycopg
import structlog

from config.settings import settings

log = structlog.get_logger(__name__)

CHANNELS = {
    "deployment_events": "a deployment",
    "log_entries": "an organization",
    "billing_operations": "an operation at Stripe",
}
"""What triggers notify, and whose ids they tell."""

LOST_SECONDS = 1.0
QUIET_SECONDS = 30.0
_KEEPALIVE = {"keepalives": 1, "keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3}


class Watcher:
    """Begins to listen with the first that waits, and goes on until the process ends."""

    def __init__(self) -> None:
        self.closing = False
        self._waiting: dict[tuple[str, UUID], set[threading.Event]] = defaultdict(set)
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    @contextmanager
    def waiting(self, channel: str, about: UUID) -> Iterator[threading.Event]:
        """Within, the event is set whenever there may be new rows about an id of ``channel`` (and once at first)."""
        place, wake = (channel, about), threading.Event()
        wake.set()
        with self._lock:
            self._waiting[place].add(wake)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="watcher", daemon=True)
                self._thread.start()
        try:
            yield wake
        finally:
            with self._lock:
                self._waiting[place].discard(wake)
                if not self._waiting[place]:
                    del self._waiting[place]

    def close(self) -> None:
        """Let everybody go: this process ends."""
        self.closing = True
        self._wake_all()

    def _run(self) -> None:
        while not self.closing:
            try:
                self._listen()
            except (psycopg.Error, OSError) as error:
                log.warning("not told of events; looking every second", error=str(error).splitlines()[:1])
            self._wake_all()
            threading.Event().wait(LOST_SECONDS)

    def _listen(self) -> None:
        options = {"autocommit": True, "connect_timeout": 5, "application_name": "edgeflow-events", **_KEEPALIVE}
        with psycopg.connect(settings().database_url, **options) as connection:  # type: ignore[arg-type]
            connection.execute("SET ROLE edgeflow_app")
            for channel in CHANNELS:
                connection.execute(f"LISTEN {channel}".encode())
            self._wake_all()  # for what happened before
            while not self.closing:
                for told in connection.notifies(timeout=QUIET_SECONDS):
                    self._wake((told.channel, UUID(told.payload)))
                    if self.closing:
                        return

    def _wake(self, place: tuple[str, UUID]) -> None:
        with self._lock:
            for wake in self._waiting.get(place, ()):
                wake.set()

    def _wake_all(self) -> None:
        with self._lock:
            for some in self._waiting.values():
                for wake in some:
                    wake.set()


watcher = Watcher()
