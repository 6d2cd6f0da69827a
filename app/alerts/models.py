"""Alert rules, one alert for each rule and subject, their history, and the notifications about them."""

from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import BigInteger, ForeignKeyConstraint, Identity, Index, UniqueConstraint, func, text, true
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from app.db import Base, Tenant
from app.logs.models import LogEntry

UNTOLD = (
    "state = 'firing' AND notified_at IS NULL "
    "OR state = 'resolved' AND notified_at IS NOT NULL AND resolved_notified_at IS NULL"
)
"""Alerts of which nobody has been told that they fire, or, having been told, that they are over."""

WAITING = "state IN ('queued', 'sending')"
"""Notifications that are still to be delivered."""


def _of_rule() -> ForeignKeyConstraint:
    return ForeignKeyConstraint(["org_id", "rule_id"], ["alert_rules.org_id", "alert_rules.id"], ondelete="CASCADE")


Index("ix_log_entries_org_id_received_at", LogEntry.org_id, LogEntry.received_at)  # what ``log_match`` rules count by


class AlertRule(Tenant, Base):
    __tablename__ = "alert_rules"
    __table_args__ = (
        UniqueConstraint("org_id", "id"),
        Index("ix_alert_rules_org_id_created_at", "org_id", "created_at", "id"),
        Index("ix_alert_rules_next_evaluation_at", "next_evaluation_at", postgresql_where=text("enabled")),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    name: Mapped[str]
    type: Mapped[str]
    metric: Mapped[str | None]
    condition: Mapped[str | None]
    threshold: Mapped[float | None]
    clear_threshold: Mapped[float | None]
    for_seconds: Mapped[int] = mapped_column(server_default="0", default=0)
    no_data: Mapped[str] = mapped_column(server_default="keep", default="keep")
    log_q: Mapped[str | None]
    log_level: Mapped[str | None]
    severity: Mapped[str] = mapped_column(server_default="warning", default="warning")
    target: Mapped[dict[str, Any]]
    channels: Mapped[list[Any]] = mapped_column(JSONB, server_default=text("'[]'"), default=list)
    repeat_seconds: Mapped[int] = mapped_column(server_default="14400", default=14_400)
    enabled: Mapped[bool] = mapped_column(server_default=true(), default=True)
    silenced_until: Mapped[datetime | None]
    created_by: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now(), onupdate=func.now())
    next_evaluation_at: Mapped[datetime] = mapped_column(server_default=func.now())
    evaluated_at: Mapped[datetime | None]


class Alert(Tenant, Base):
    """One (rule, subject): ``subject`` is the id of the device or deployment that it is about.

    ``pending`` since the condition holds, ``firing`` once it has held for long enough, ``resolved`` for good: the next
    time is a new alert.
    """

    __tablename__ = "alerts"
    __table_args__ = (
        UniqueConstraint("org_id", "id"),
        _of_rule(),
        ForeignKeyConstraint(
            ["org_id", "device_id"], ["devices.org_id", "devices.id"], ondelete="SET NULL (device_id)"
        ),
        Index(
            "uq_alerts_open",
            "rule_id",
            "subject",
            unique=True,
            postgresql_where=text("state IN ('pending', 'firing')"),
        ),
        Index("ix_alerts_org_id_rule_id", "org_id", "rule_id"),
        Index("ix_alerts_untold", "rule_id", postgresql_where=text(UNTOLD)),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, server_default=text("gen_random_uuid()"))
    rule_id: Mapped[UUID]
    subject: Mapped[str]
    device_id: Mapped[UUID | None]
    device_name: Mapped[str | None]
    deployment_id: Mapped[UUID | None]
    state: Mapped[str]
    value: Mapped[float | None]
    since: Mapped[datetime]
    fired_at: Mapped[datetime | None]
    resolved_at: Mapped[datetime | None]
    acknowledged_at: Mapped[datetime | None]
    acknowledged_by: Mapped[str | None]
    comment: Mapped[str | None]
    notified_at: Mapped[datetime | None]
    resolved_notified_at: Mapped[datetime | None]


class AlertEvent(Tenant, Base):
    """Something that happened to a rule or to one of its alerts."""

    __tablename__ = "alert_events"
    __table_args__ = (_of_rule(), Index("ix_alert_events_rule_id", "rule_id", "id"))

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    rule_id: Mapped[UUID]
    alert_id: Mapped[UUID | None]
    device_id: Mapped[UUID | None]
    device_name: Mapped[str | None]
    kind: Mapped[str]
    actor: Mapped[str | None]
    data: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'"), default=dict)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Notification(Tenant, Base):
    """One message to one channel; ``dedup_key`` names what it tells, so that a repeated job sends it once.

    ``channel`` is its masked form: what a delivery needs is read from the rule. ``failures`` count since ``queued_at``.
    """

    __tablename__ = "notifications"
    __table_args__ = (
        UniqueConstraint("org_id", "id"),
        UniqueConstraint("org_id", "dedup_key"),
        _of_rule(),
        Index("ix_notifications_rule_id", "rule_id", "created_at", "id"),
        Index(
            "ix_notifications_next_attempt_at",
            "org_id",
            "next_attempt_at",
            postgresql_where=text(WAITING),
        ),
        Index("ix_notifications_waiting", "rule_id", "created_at", "id", postgresql_where=text(WAITING)),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, server_default=text("gen_random_uuid()"))
    rule_id: Mapped[UUID]
    dedup_key: Mapped[str]
    kind: Mapped[str]
    channel: Mapped[dict[str, Any]]
    payload: Mapped[dict[str, Any]]
    state: Mapped[str] = mapped_column(server_default="queued", default="queued")
    attempt: Mapped[int] = mapped_column(server_default="0", default=0)
    next_attempt_at: Mapped[datetime | None] = mapped_column(server_default=func.now())
    lease_until: Mapped[datetime | None]
    error: Mapped[str | None]
    queued_at: Mapped[datetime] = mapped_column(server_default=func.now())
    failures: Mapped[int] = mapped_column(server_default="0", default=0)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    finished_at: Mapped[datetime | None]


class NotificationAttempt(Tenant, Base):
    """One try to deliver a notification, and what came of it."""

    __tablename__ = "notification_attempts"
    __table_args__ = (
        ForeignKeyConstraint(
            ["org_id", "notification_id"], ["notifications.org_id", "notifications.id"], ondelete="CASCADE"
        ),
        Index("ix_notification_attempts_notification_id", "notification_id", "id"),
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    notification_id: Mapped[UUID]
    attempt: Mapped[int]
    status_code: Mapped[int | None]
    error: Mapped[str | None]
    ms: Mapped[int]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
