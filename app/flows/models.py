"""Flows: a draft that changes, and the versions that never do."""

from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import ForeignKeyConstraint, Index, UniqueConstraint, func, text
from sqlalchemy.orm import Mapped, mapped_column

from app.db import Base, Tenant


class Flow(Tenant, Base):
    __tablename__ = "flows"
    __table_args__ = (
        UniqueConstraint("org_id", "id"),
        Index("ix_flows_org_id_created_at", "org_id", "created_at", "id"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    name: Mapped[str]
    description: Mapped[str] = mapped_column(server_default="", default="")
    definition: Mapped[dict[str, Any]]
    content_hash: Mapped[str]
    latest_version: Mapped[int | None]
    published_hash: Mapped[str | None]
    created_by: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now(), onupdate=func.now())

    @property
    def status(self) -> str:
        return "published" if self.latest_version else "draft"

    @property
    def has_unpublished_changes(self) -> bool:
        return self.content_hash != self.published_hash


class FlowVersion(Tenant, Base):
    __tablename__ = "flow_versions"
    __table_args__ = (
        ForeignKeyConstraint(["org_id", "flow_id"], ["flows.org_id", "flows.id"], ondelete="CASCADE"),
        UniqueConstraint("org_id", "flow_id", "number"),
    )

    flow_id: Mapped[UUID] = mapped_column(primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    definition: Mapped[dict[str, Any]]
    content_hash: Mapped[str]
    # Which a device's runtime must have; sorted.
    node_types: Mapped[list[str]] = mapped_column(server_default=text("'{}'"), default=list)
    published_by: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
