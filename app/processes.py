"""Which processes of the platform live, and which scheduled occurrences were handed out."""

import os
import socket
import threading
from datetime import datetime
from uuid import UUID, uuid4

import structlog
from sqlalchemy import func, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Mapped, mapped_column

from app import db
from app.db import Base

log = structlog.get_logger(__name__)

HEARTBEAT_SECONDS = 3
DEAD_AFTER_SECONDS = 15


class Process(Base):
    """A running web, worker or scheduler process; its heartbeat is written every 3 s."""

    __tablename__ = "processes"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    kind: Mapped[str]
    host: Mapped[str]
    pid: Mapped[int]
    started_at: Mapped[datetime] = mapped_column(server_default=func.now())
    heartbeat_at: Mapped[datetime] = mapped_column(server_default=func.now(), index=True)


class ScheduledRun(Base):
    """One occurrence of a scheduled job: inserted once, whatever the number of schedulers, and claimed once."""

    __tablename__ = "scheduled_runs"

    job: Mapped[str] = mapped_column(primary_key=True)
    due_at: Mapped[datetime] = mapped_column(primary_key=True)
    enqueued_at: Mapped[datetime | None]
    started_at: Mapped[datetime | None]


def beat(process_id: UUID, kind: str) -> None:
    """Write this process's heartbeat (an upsert: a row swept while it was stopped comes back)."""
    with db.transaction() as session:
        session.execute(
            text(
                "INSERT INTO processes (id, kind, host, pid) VALUES (:id, :kind, :host, :pid) "
                "ON CONFLICT (id) DO UPDATE SET heartbeat_at = now()"
            ),
            {"id": process_id, "kind": kind, "host": socket.gethostname(), "pid": os.getpid()},
        )


def leave(process_id: UUID) -> None:
    """Forget this process at its orderly end."""
    with db.transaction() as session:
        session.execute(text("DELETE FROM processes WHERE id = :id"), {"id": process_id})


def alive(kind: str) -> bool:
    """Whether any process of that kind has a fresh heartbeat."""
    with db.transaction() as session:
        return bool(
            session.scalar(
                text(
                    "SELECT EXISTS (SELECT FROM processes WHERE kind = :kind "
                    "AND heartbeat_at > now() - make_interval(secs => :seconds))"
                ),
                {"kind": kind, "seconds": DEAD_AFTER_SECONDS},
            )
        )


class Heartbeat:
    """Beats for one process in a thread of its own until it is stopped."""

    def __init__(self, kind: str, process_id: UUID | None = None) -> None:
        self.kind = kind
        self.process_id = process_id or uuid4()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"{kind}-heartbeat", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join(timeout=2)
        try:
            leave(self.process_id)
        except SQLAlchemyError as error:
            log.info("heartbeat row left to expire", error=str(error))

    def _run(self) -> None:
        while not self._stopped.is_set():
            try:
                beat(self.process_id, self.kind)
            except SQLAlchemyError as error:
                log.warning("heartbeat failed", kind=self.kind, error=str(error).splitlines()[0])
            self._stopped.wait(HEARTBEAT_SECONDS)
