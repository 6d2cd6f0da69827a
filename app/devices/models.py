"""Devices, their keys, shadows, and the row that says where each one's tunnel is."""

from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import BigInteger, ForeignKeyConstraint, Index, Sequence, UniqueConstraint, func, text
from sqlalchemy.orm import Mapped, mapped_column

from app.db import Base, Tenant


def device_reference(ondelete: str = "CASCADE") -> ForeignKeyConstraint:
    """A foreign key to a device of the same organization: the checks of plain ones bypass row-level security."""
    return ForeignKeyConstraint(["org_id", "device_id"], ["devices.org_id", "devices.id"], ondelete=ondelete)


class Device(Tenant, Base):
    __tablename__ = "devices"
    __table_args__ = (
        UniqueConstraint("org_id", "id"),
        Index("ix_devices_org_id_created_at", "org_id", "created_at", "id"),
        Index("ix_devices_org_id_name", "org_id", "name", "id"),
        Index("ix_devices_tags", "tags", postgresql_using="gin"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    name: Mapped[str]
    type: Mapped[str] = mapped_column(server_default="generic", default="generic")
    tags: Mapped[list[str]] = mapped_column(server_default=text("'{}'"), default=list)
    metadata_: Mapped[dict[str, Any]] = mapped_column("metadata", server_default=text("'{}'"), default=dict)
    settings: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'"), default=dict)
    hardware_info: Mapped[dict[str, Any] | None]
    network_info: Mapped[dict[str, Any] | None]
    agent_version: Mapped[str | None]
    protocol: Mapped[int | None]
    capabilities: Mapped[list[str]] = mapped_column(server_default=text("'{}'"), default=list)
    error: Mapped[str | None]
    disabled_at: Mapped[datetime | None]
    provisioning_hash: Mapped[bytes | None] = mapped_column(unique=True)
    provisioning_expires_at: Mapped[datetime | None]
    provisioned_at: Mapped[datetime | None]
    fingerprint: Mapped[bytes | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now(), onupdate=func.now())


class DeviceKey(Tenant, Base):
    """A key a device signs in with. Provisioning again issues a fresh one; the former ends a little later."""

    __tablename__ = "device_keys"
    __table_args__ = (device_reference(), Index("ix_device_keys_device_id", "device_id"))

    key_hash: Mapped[bytes] = mapped_column(primary_key=True)
    device_id: Mapped[UUID]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    expires_at: Mapped[datetime | None]


class Shadow(Tenant, Base):
    """``drift``: ``{flow_id: time}``, the flows that differ from what was deployed, and since when."""

    __tablename__ = "shadows"
    __table_args__ = (
        device_reference(),
        Index("ix_shadows_drift", "org_id", postgresql_where=text("drift <> '{}'")),
    )

    device_id: Mapped[UUID] = mapped_column(primary_key=True)
    version: Mapped[int] = mapped_column(BigInteger, server_default="0", default=0)
    desired: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'"), default=dict)
    reported: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'"), default=dict)
    desired_times: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'"), default=dict)
    reported_times: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'"), default=dict)
    drift: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'"), default=dict)
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now())


epochs = Sequence("tunnel_epochs", metadata=Base.metadata)


class Connection(Tenant, Base):
    """The newest tunnel of a device: which gateway holds it, under which epoch. Older epochs write nothing here.

    PostgreSQL and not Redis is the routing table, so that losing Redis loses no route.
    """

    __tablename__ = "connections"
    __table_args__ = (
        device_reference(),
        Index("ix_connections_gateway", "gateway", postgresql_where=text("disconnected_at IS NULL")),
        Index("ix_connections_org_id", "org_id"),
    )

    device_id: Mapped[UUID] = mapped_column(primary_key=True)
    epoch: Mapped[int] = mapped_column(BigInteger)
    gateway: Mapped[str]
    protocol: Mapped[int] = mapped_column(server_default="1", default=1)
    remote_addr: Mapped[str | None]
    connected_at: Mapped[datetime] = mapped_column(server_default=func.now())
    last_seen_at: Mapped[datetime] = mapped_column(server_default=func.now())
    disconnected_at: Mapped[datetime | None]
    disconnect_reason: Mapped[str | None]
    in_flight: Mapped[int] = mapped_column(server_default="0", default=0)
    bytes_in: Mapped[int] = mapped_column(BigInteger, server_default="0", default=0)
    bytes_out: Mapped[int] = mapped_column(BigInteger, server_default="0", default=0)
    rtt_ms: Mapped[float | None]
