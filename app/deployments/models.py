"""Deployments, their stages, one execution a device, and the ledger of what each device has run."""

from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import ForeignKeyConstraint, Index, Sequence, UniqueConstraint, false, func, text
from sqlalchemy.orm import Mapped, mapped_column

from app.db import Base, Tenant


def _deployment_reference() -> ForeignKeyConstraint:
    return ForeignKeyConstraint(
        ["org_id", "deployment_id"], ["deployments.org_id", "deployments.id"], ondelete="CASCADE"
    )


class Deployment(Tenant, Base):
    __tablename__ = "deployments"
    __table_args__ = (
        UniqueConstraint("org_id", "id"),
        ForeignKeyConstraint(["org_id", "flow_id"], ["flows.org_id", "flows.id"], ondelete="CASCADE"),
        Index("ix_deployments_org_id_created_at", "org_id", "created_at", "id"),
        Index("ix_deployments_flow_id", "flow_id"),
        Index("ix_deployments_next_check_at", "next_check_at", postgresql_where=text("next_check_at IS NOT NULL")),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    flow_id: Mapped[UUID]
    version: Mapped[int]
    name: Mapped[str]
    status: Mapped[str] = mapped_column(server_default="created", default="created")
    target: Mapped[dict[str, Any]]
    strategy: Mapped[dict[str, Any]]
    reason: Mapped[str] = mapped_column(server_default="", default="")
    current_stage: Mapped[int] = mapped_column(server_default="0", default=0)
    acknowledged_failures: Mapped[int] = mapped_column(server_default="0", default=0)
    created_by: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now(), onupdate=func.now())
    schedule_at: Mapped[datetime | None]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    # Why it was aborted, rolled back or canceled by itself, in words.
    cause: Mapped[str | None]
    # The role that approves it; null: it needs no approval.
    approval_role: Mapped[str | None]
    approved_by: Mapped[str | None]
    approved_at: Mapped[datetime | None]
    start_when_approved: Mapped[bool] = mapped_column(server_default=false(), default=False)
    # Devices install it again although they have it: what runs there may be something else.
    force: Mapped[bool] = mapped_column(server_default=false(), default=False)
    # When the reconciler looks at it next, whether or not a job was delivered; null: nothing can become due.
    next_check_at: Mapped[datetime | None]


class Stage(Tenant, Base):
    __tablename__ = "deployment_stages"
    __table_args__ = (_deployment_reference(),)

    deployment_id: Mapped[UUID] = mapped_column(primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    percent: Mapped[int]
    size: Mapped[int]
    status: Mapped[str] = mapped_column(server_default="pending", default="pending")
    acknowledged_failures: Mapped[int] = mapped_column(server_default="0", default=0)
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]


class Execution(Tenant, Base):
    """One device's part in a deployment. ``kind``: ``install``, or ``rollback`` to ``version`` (null: remove the flow).

    ``attempt`` fences every write; ``command_id`` is new with each attempt; a command that stays unanswered is sent
    again under its id at ``redeliver_at``, and the attempt ends at ``lease_until``. A superseded one keeps its command
    until the device has answered it (or ``redeliver_at``), because until then nothing else may be sent to the device.
    """

    __tablename__ = "executions"
    __table_args__ = (
        UniqueConstraint("org_id", "id"),
        _deployment_reference(),
        ForeignKeyConstraint(
            ["org_id", "device_id"], ["devices.org_id", "devices.id"], ondelete="SET NULL (device_id)"
        ),
        UniqueConstraint("deployment_id", "device_id", "kind"),
        Index("ix_executions_deployment_id_state", "deployment_id", "kind", "state", "stage", "id"),
        Index("ix_executions_deployment_id_device_name", "deployment_id", "device_name", "id"),
        Index("ix_executions_command_id", "command_id", unique=True, postgresql_where=text("command_id IS NOT NULL")),
        Index(
            "ix_executions_device_id_open",
            "device_id",
            postgresql_where=text("state IN ('queued', 'in_progress', 'superseded')"),
        ),
        # At most one changing command is in flight per device, whatever deployments want it.
        Index(
            "uq_executions_in_progress",
            "org_id",
            "device_id",
            unique=True,
            postgresql_where=text("state = 'in_progress'"),
        ),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, server_default=text("gen_random_uuid()"), default=uuid4)
    deployment_id: Mapped[UUID]
    device_id: Mapped[UUID | None]
    device_name: Mapped[str]
    kind: Mapped[str] = mapped_column(server_default="install", default="install")
    stage: Mapped[int] = mapped_column(server_default="0", default=0)
    state: Mapped[str] = mapped_column(server_default="queued", default="queued")
    attempt: Mapped[int] = mapped_column(server_default="0", default=0)
    command_id: Mapped[UUID | None]
    lease_until: Mapped[datetime | None]
    redeliver_at: Mapped[datetime | None]
    next_attempt_at: Mapped[datetime | None]
    # Of the last command, which rates count; null again if no gateway took it.
    sent_at: Mapped[datetime | None]
    version: Mapped[int | None]
    previous_version: Mapped[int | None]
    error: Mapped[str | None]
    error_code: Mapped[str | None]
    # healthy, unhealthy, unknown (it reports none); null: not judged (yet).
    health: Mapped[str | None]
    queued_at: Mapped[datetime] = mapped_column(server_default=func.now())
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]


class Installation(Tenant, Base):
    """The ledger: a device confirmed that it runs ``version`` of a flow (null: removed), put there by a deployment.

    The row without ``replaced_at`` is what runs now.
    """

    __tablename__ = "installations"
    __table_args__ = (
        ForeignKeyConstraint(["org_id", "device_id"], ["devices.org_id", "devices.id"], ondelete="CASCADE"),
        ForeignKeyConstraint(["org_id", "flow_id"], ["flows.org_id", "flows.id"], ondelete="CASCADE"),
        Index(
            "uq_installations_current",
            "device_id",
            "flow_id",
            unique=True,
            postgresql_where=text("replaced_at IS NULL"),
        ),
        Index("ix_installations_device_id", "device_id", "installed_at"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, server_default=text("gen_random_uuid()"), default=uuid4)
    device_id: Mapped[UUID]
    flow_id: Mapped[UUID]
    version: Mapped[int | None]
    content_hash: Mapped[str | None]
    deployment_id: Mapped[UUID | None]
    installed_at: Mapped[datetime] = mapped_column(server_default=func.now())
    replaced_at: Mapped[datetime | None]


turns = Sequence("rollout_turns", metadata=Base.metadata)
"""Numbers the commands of rollouts: of two for one device, the later one has the higher number."""
