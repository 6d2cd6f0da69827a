"""One connection of a process that hears of new events, and wakes whoever waits for those of a deployment.

PostgreSQL tells it at each commit (``LISTEN``). While that connection is lost, everybody is woken every second and
looks for himself.
"""

import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID

import psycopg
import structlog

from app.deployments.events import CHANNEL
from config.settings import settings

log = structlog.get_logger(__name__)

LOST_SECONDS = 1.0
QUIET_SECONDS = 30.0
_KEEPALIVE = {"keepalives": 1, "keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3}


class Watcher:
    """Begins to listen with the first that waits, and goes on until the process ends."""

    def __init__(self) -> None:
        self.closing = False
        self._waiting: dict[UUID, set[threading.Event]] = defaultdict(set)
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    @contextmanager
    def waiting(self, deployment_id: UUID) -> Iterator[threading.Event]:
        """Within, the event is set whenever the deployment may have new events (and once at first)."""
        wake = threading.Event()
        wake.set()
        with self._lock:
            self._waiting[deployment_id].add(wake)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="deployment-events", daemon=True)
                self._thread.start()
        try:
            yield wake
        finally:
            with self._lock:
                self._waiting[deployment_id].discard(wake)
                if not self._waiting[deployment_id]:
                    del self._waiting[deployment_id]

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
            connection.execute(f"LISTEN {CHANNEL}".encode())
            self._wake_all()  # for what happened before
            while not self.closing:
                for told in connection.notifies(timeout=QUIET_SECONDS):
                    self._wake(UUID(told.payload))
                    if self.closing:
                        return

    def _wake(self, deployment_id: UUID) -> None:
        with self._lock:
            for wake in self._waiting.get(deployment_id, ()):
                wake.set()

    def _wake_all(self) -> None:
        with self._lock:
            for some in self._waiting.values():
                for wake in some:
                    wake.set()


watcher = Watcher()
