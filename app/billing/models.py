"""An organization's account at Stripe, the calls to it that are due, what Stripe said last, and what was used.

Stripe has the last word on subscriptions, payment methods and invoices: these rows are its answers, written whole by
``sync``. Amounts are in the currency's least unit.
"""

from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import BigInteger, ForeignKey, Identity, Index, func, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from app.db import Base, Tenant

USABLE = ("trialing", "active", "past_due")
"""States of a subscription in which its plan is in force; in any other the free one is."""
OVER = ("canceled", "incomplete_expired")
"""States that a subscription never leaves."""


class BillingAccount(Base):
    """The unit of work: whoever holds ``lease_until`` may call Stripe for it, and ``attempt`` fences what he writes.

    ``wanted`` counts reasons to look at Stripe anew; those up to ``synced`` are done with.
    """

    __tablename__ = "billing_accounts"
    __table_args__ = (
        Index("ix_billing_accounts_next_attempt_at", "next_attempt_at", postgresql_where=text("wanted > synced")),
    )

    org_id: Mapped[UUID] = mapped_column(ForeignKey("organizations.id", ondelete="CASCADE"), primary_key=True)
    customer_id: Mapped[str | None] = mapped_column(unique=True)
    generation: Mapped[int] = mapped_column(server_default="0", default=0)
    """Counts customers: one that was deleted at Stripe is followed by another."""
    customer_deleted_at: Mapped[datetime | None]
    trial_used_at: Mapped[datetime | None]
    wanted: Mapped[int] = mapped_column(BigInteger, server_default="0", default=0)
    synced: Mapped[int] = mapped_column(BigInteger, server_default="0", default=0)
    synced_at: Mapped[datetime | None]
    attempt: Mapped[int] = mapped_column(server_default="0", default=0)
    lease_until: Mapped[datetime | None]
    next_attempt_at: Mapped[datetime] = mapped_column(server_default=func.now())
    failures: Mapped[int] = mapped_column(server_default="0", default=0)
    error: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class BillingOperation(Tenant, Base):
    """The outbox: something to do at Stripe, stored before it is tried. ``state``: queued, done or failed."""

    __tablename__ = "billing_operations"
    __table_args__ = (
        Index("ix_billing_operations_queued", "org_id", "sequence", postgresql_where=text("state = 'queued'")),
        Index("ix_billing_operations_org_id_created_at", "org_id", "created_at"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    sequence: Mapped[int] = mapped_column(BigInteger, Identity())
    kind: Mapped[str]
    payload: Mapped[dict[str, Any]]
    state: Mapped[str] = mapped_column(server_default="queued", default="queued")
    result: Mapped[dict[str, Any] | None]
    error: Mapped[dict[str, Any] | None]
    tries: Mapped[int] = mapped_column(server_default="0", default=0)
    actor: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    finished_at: Mapped[datetime | None]


class Subscription(Tenant, Base):
    """``status`` is Stripe's own; ``client_secret`` (sealed) is there while a payment waits for the customer."""

    __tablename__ = "subscriptions"
    __table_args__ = (Index("ix_subscriptions_org_id_created_at", "org_id", "created_at"),)

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    stripe_id: Mapped[str] = mapped_column(unique=True)
    plan: Mapped[str]
    status: Mapped[str]
    current_period_start: Mapped[datetime | None]
    current_period_end: Mapped[datetime | None]
    cancel_at_period_end: Mapped[bool] = mapped_column(server_default="false", default=False)
    trial_end: Mapped[datetime | None]
    ended_at: Mapped[datetime | None]
    client_secret: Mapped[bytes | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now(), onupdate=func.now())


class PaymentMethod(Tenant, Base):
    """What Stripe tells of one; the number itself never reaches us."""

    __tablename__ = "payment_methods"
    __table_args__ = (Index("ix_payment_methods_org_id_created_at", "org_id", "created_at"),)

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    stripe_id: Mapped[str] = mapped_column(unique=True)
    type: Mapped[str]
    brand: Mapped[str | None]
    last4: Mapped[str | None]
    exp_month: Mapped[int | None]
    exp_year: Mapped[int | None]
    is_default: Mapped[bool] = mapped_column(server_default="false", default=False)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Invoice(Tenant, Base):
    """``number`` is Stripe's and never changes; a draft has none. ``lines``: ``[{description, quantity, amount}]``."""

    __tablename__ = "invoices"
    __table_args__ = (Index("ix_invoices_org_id_created_at", "org_id", "created_at", "id"),)

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    stripe_id: Mapped[str] = mapped_column(unique=True)
    number: Mapped[str | None]
    status: Mapped[str]
    currency: Mapped[str]
    subtotal: Mapped[int] = mapped_column(BigInteger)
    tax: Mapped[int] = mapped_column(BigInteger, server_default="0", default=0)
    total: Mapped[int] = mapped_column(BigInteger)
    amount_paid: Mapped[int] = mapped_column(BigInteger)
    amount_due: Mapped[int] = mapped_column(BigInteger)
    period_start: Mapped[datetime]
    period_end: Mapped[datetime]
    due_at: Mapped[datetime | None]
    lines: Mapped[list[dict[str, Any]]] = mapped_column(JSONB, server_default=text("'[]'"), default=list)
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now(), onupdate=func.now())


class StripeEvent(Base):
    """An event that came, by webhook or sweep. ``org_id`` is null for a customer that is not ours."""

    __tablename__ = "stripe_events"

    id: Mapped[str] = mapped_column(primary_key=True)
    org_id: Mapped[UUID | None] = mapped_column(ForeignKey("organizations.id", ondelete="CASCADE"), index=True)
    type: Mapped[str]
    customer_id: Mapped[str | None]
    source: Mapped[str]
    created_at: Mapped[datetime]
    received_at: Mapped[datetime] = mapped_column(server_default=func.now(), index=True)


class UsagePoints(Base):
    """Points of an hour of arrival: ``points`` were stored, ``refused`` were over the day's quota."""

    __tablename__ = "usage_points"

    org_id: Mapped[UUID] = mapped_column(ForeignKey("organizations.id", ondelete="CASCADE"), primary_key=True)
    hour: Mapped[datetime] = mapped_column(primary_key=True)
    points: Mapped[int] = mapped_column(BigInteger, server_default="0", default=0)
    refused: Mapped[int] = mapped_column(BigInteger, server_default="0", default=0)


class UsageHour(Base):
    """What an organization used in an hour (UTC); ``reported_at`` once Stripe has been told."""

    __tablename__ = "usage_hours"
    __table_args__ = (
        Index("ix_usage_hours_unreported", "org_id", "hour", postgresql_where=text("reported_at IS NULL")),
    )

    org_id: Mapped[UUID] = mapped_column(ForeignKey("organizations.id", ondelete="CASCADE"), primary_key=True)
    hour: Mapped[datetime] = mapped_column(primary_key=True)
    device_seconds: Mapped[int] = mapped_column(BigInteger)
    commands: Mapped[int] = mapped_column(BigInteger)
    deployments: Mapped[int] = mapped_column(BigInteger)
    points: Mapped[int] = mapped_column(BigInteger)
    aggregated_at: Mapped[datetime] = mapped_column(server_default=func.now())
    reported_at: Mapped[datetime | None]


class UsageMonth(Base):
    """What an organization made in a month (UTC), whatever became of it: ``deployments`` never falls."""

    __tablename__ = "usage_months"

    org_id: Mapped[UUID] = mapped_column(ForeignKey("organizations.id", ondelete="CASCADE"), primary_key=True)
    month: Mapped[datetime] = mapped_column(primary_key=True)
    deployments: Mapped[int] = mapped_column(BigInteger, server_default="0", default=0)
