"""Series, their points and roll-ups (partitioned by time), up to where those are complete, and what was stored."""

from datetime import date, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import (
    TIMESTAMP,
    BigInteger,
    Column,
    Date,
    Double,
    ForeignKey,
    Identity,
    Index,
    Table,
    UniqueConstraint,
    Uuid,
    func,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from app.db import Base, Tenant
from app.devices.models import device_reference


class Series(Tenant, Base):
    """One metric of one device with one set of tags; ``tags_key`` is their canonical JSON, empty without tags."""

    __tablename__ = "metric_series"
    __table_args__ = (
        UniqueConstraint("device_id", "name", "tags_key"),
        Index("ix_metric_series_org_id_name", "org_id", "name"),
        device_reference(),
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    device_id: Mapped[UUID]
    name: Mapped[str]
    tags: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'"), default=dict)
    tags_key: Mapped[str] = mapped_column(server_default="", default="")
    last_at: Mapped[datetime | None]
    last_value: Mapped[float | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class MetricUsage(Base):
    """What an organization had stored and refused on a day (UTC)."""

    __tablename__ = "metric_usage"

    org_id: Mapped[UUID] = mapped_column(ForeignKey("organizations.id", ondelete="CASCADE"), primary_key=True)
    day: Mapped[date] = mapped_column(Date, primary_key=True)
    points: Mapped[int] = mapped_column(BigInteger, server_default="0", default=0)
    refused: Mapped[int] = mapped_column(BigInteger, server_default="0", default=0)
    logs: Mapped[int] = mapped_column(BigInteger, server_default="0", default=0)
    commands: Mapped[int] = mapped_column(BigInteger, server_default="0", default=0)


class Watermark(Base):
    """Buckets of a level that begin before ``rolled_until`` are complete; what comes later for them is merged."""

    __tablename__ = "metric_watermarks"

    level: Mapped[str] = mapped_column(primary_key=True)
    rolled_until: Mapped[datetime]


points = Table(
    "metric_points",
    Base.metadata,
    Column("org_id", Uuid, nullable=False),
    Column("series_id", BigInteger, nullable=False),
    Column("time", TIMESTAMP(timezone=True), nullable=False),
    Column("value", Double, nullable=False),
    Column("claimed_at", TIMESTAMP(timezone=True)),
    Index("ix_metric_points_series_id_time", "series_id", "time"),
    Index("ix_metric_points_time", "time", postgresql_using="brin"),
    postgresql_partition_by="RANGE (time)",
)


def _rollup(name: str) -> Table:
    return Table(
        name,
        Base.metadata,
        Column("org_id", Uuid, nullable=False),
        Column("series_id", BigInteger, primary_key=True, autoincrement=False),
        Column("time", TIMESTAMP(timezone=True), primary_key=True),
        Column("count", BigInteger, nullable=False),
        *(Column(one, Double, nullable=False) for one in ("sum", "min", "max", "last")),
        Column("last_at", TIMESTAMP(timezone=True), nullable=False),
        postgresql_partition_by="RANGE (time)",
    )


minutes, fives, hours = (_rollup(f"metric_points_{level}") for level in ("1m", "5m", "1h"))
