"""Log entries, partitioned by time."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, Identity, Index, SmallInteger, func, text
from sqlalchemy.orm import Mapped, mapped_column

from app.db import Base
from app.journal import LEVELS as LEVELS

SOURCES = ("device", "platform")
_USAGE = """source = 'platform' AND kind IN (
    'device.connected', 'device.disconnected', 'device.deleted', 'command', 'deployment.status', 'execution.succeeded',
    'execution.failed', 'execution.timed_out', 'execution.rejected', 'execution.canceled', 'execution.removed',
    'execution.superseded', 'execution.already_installed')"""
"""What billing adds up (``app.billing.usage_queries``): few of all entries."""


class LogEntry(Base):
    """What a device sent, or what the platform saw (``kind`` names what).

    ``time`` is the device's own unless that is too far off; then it is the time of arrival, and ``claimed_at`` the
    device's. ``xact``: the transaction that wrote it, by which a stream knows what it has seen.
    """

    __tablename__ = "log_entries"
    __table_args__ = (
        Index("ix_log_entries_org_id_time", "org_id", "time", "id"),
        Index("ix_log_entries_org_id_xact", "org_id", "xact"),
        Index("ix_log_entries_device_id_time", "device_id", "time", "id"),
        Index("ix_log_entries_message", text("to_tsvector('simple', message)"), postgresql_using="gin"),
        Index("ix_log_entries_usage", "org_id", "time", postgresql_where=text(_USAGE)),
        {"postgresql_partition_by": "RANGE (time)"},
    )

    time: Mapped[datetime] = mapped_column(primary_key=True, server_default=func.now())
    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    org_id: Mapped[UUID]
    device_id: Mapped[UUID | None]
    claimed_at: Mapped[datetime | None]
    received_at: Mapped[datetime] = mapped_column(server_default=func.now())
    level: Mapped[int] = mapped_column(SmallInteger)
    source: Mapped[str]
    kind: Mapped[str | None]
    message: Mapped[str]
    fields: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'"), default=dict)
    xact: Mapped[int] = mapped_column(BigInteger, server_default=text("(pg_current_xact_id())::text::bigint"))
