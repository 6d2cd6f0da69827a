"""Who has which device's editor open."""

from datetime import datetime
from uuid import UUID, uuid4

from sqlalchemy import BigInteger, ForeignKey, ForeignKeyConstraint, Index, func, text
from sqlalchemy.orm import Mapped, mapped_column

from app.db import Base, Tenant
from app.devices.models import device_reference


class EditorSession(Tenant, Base):
    """An editor in somebody's browser: opened by a single-use ticket, then known by a cookie.

    It lives no longer than what it was opened with: the sign-in ``session_id`` of the user, or the API key. Of a device
    or key that is deleted the reference goes, so that the end can still be told. Tokens are stored as HMACs.
    """

    __tablename__ = "editor_sessions"
    __table_args__ = (
        device_reference("SET NULL (device_id)"),
        ForeignKeyConstraint(
            ["org_id", "api_key_id"], ["api_keys.org_id", "api_keys.id"], ondelete="SET NULL (api_key_id)"
        ),
        Index("ix_editor_sessions_org_id", "org_id"),
        Index(
            "ix_editor_sessions_open", "id", postgresql_where=text("opened_at IS NOT NULL AND closed_at IS NULL")
        ),
    )  # fmt: skip

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    device_id: Mapped[UUID | None] = mapped_column(index=True)
    user_id: Mapped[UUID | None] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    session_id: Mapped[UUID | None] = mapped_column(ForeignKey("sessions.id", ondelete="SET NULL"), index=True)
    api_key_id: Mapped[UUID | None] = mapped_column(index=True)
    ticket_hash: Mapped[bytes] = mapped_column(unique=True)
    ticket_expires_at: Mapped[datetime]
    cookie_hash: Mapped[bytes | None] = mapped_column(unique=True)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    expires_at: Mapped[datetime]
    opened_at: Mapped[datetime | None]
    last_used_at: Mapped[datetime | None]
    bytes_in: Mapped[int] = mapped_column(BigInteger, server_default="0", default=0)
    bytes_out: Mapped[int] = mapped_column(BigInteger, server_default="0", default=0)
    closed_at: Mapped[datetime | None]
    close_reason: Mapped[str | None]
