"""What devices have sent and nobody has stored yet, and which batches of each device were taken."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import BigInteger, Identity, func, text
from sqlalchemy.orm import Mapped, mapped_column

from app.db import Base, Tenant
from app.devices.models import device_reference


class TelemetryInbox(Base):
    """One telemetry frame as it came. Rows go once what is in them is stored, in that same transaction."""

    __tablename__ = "telemetry_inbox"

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    org_id: Mapped[UUID]
    device_id: Mapped[UUID]
    received_at: Mapped[datetime] = mapped_column(server_default=func.now())
    body: Mapped[bytes]


class TelemetryCursor(Tenant, Base):
    """The ids of a device's newest batches, newest first: one that comes again is acknowledged and not stored."""

    __tablename__ = "telemetry_cursors"
    __table_args__ = (device_reference(),)

    device_id: Mapped[UUID] = mapped_column(primary_key=True)
    recent: Mapped[list[str]] = mapped_column(server_default=text("'{}'"), default=list)
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now())
