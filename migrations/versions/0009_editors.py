"""Sessions of devices' editors: who has which device's editor open, by a ticket first and then by a cookie."""

import sqlalchemy as sa
from alembic import op

from migrations import rights

revision = "0009"
down_revision = "0008"

# One statement says who calls, and all that may have ended his session since it was opened. ``ended`` is empty for one
# that lives; it is told in words, since that is what the journal says.
IDENTIFY = (
    "identify_editors(p_hashes bytea[])",
    """RETURNS TABLE (id uuid, ticket_hash bytea, cookie_hash bytea, org_id uuid, device_id uuid, actor text, role text,
                      opened boolean, stale boolean, noted boolean, ended text,
                      gateway text, heard_at timestamptz, capabilities text[])
    AS $$
      SELECT e.id, e.ticket_hash, e.cookie_hash, e.org_id, e.device_id,
        coalesce('user:' || u.email, 'api_key:' || k.name), coalesce(m.role, k.role),
        e.opened_at IS NOT NULL, e.last_used_at < now() - interval '1 minute', e.closed_at IS NOT NULL,
        CASE WHEN e.closed_at IS NOT NULL THEN e.close_reason
          WHEN e.device_id IS NULL THEN 'device deleted'
          WHEN d.disabled_at IS NOT NULL THEN 'device disabled'
          WHEN e.user_id IS NOT NULL AND (s.id IS NULL OR s.revoked_at IS NOT NULL OR s.expires_at <= now())
            THEN 'signed out'
          WHEN e.user_id IS NOT NULL AND m.role IS NULL THEN 'no member any more'
          WHEN e.user_id IS NULL AND (k.id IS NULL OR k.expires_at <= now()) THEN 'API key ended'
          WHEN e.expires_at <= now() THEN 'time is up'
          WHEN e.opened_at IS NOT NULL AND e.last_used_at <= now() - interval '30 minutes' THEN 'idle'
          ELSE '' END,
        c.gateway, CASE WHEN c.disconnected_at IS NULL THEN c.last_seen_at END, d.capabilities
      FROM public.editor_sessions e
      LEFT JOIN public.devices d ON d.org_id = e.org_id AND d.id = e.device_id
      LEFT JOIN public.connections c ON c.device_id = e.device_id
      LEFT JOIN public.users u ON u.id = e.user_id
      LEFT JOIN public.sessions s ON s.id = e.session_id
      LEFT JOIN public.memberships m ON m.org_id = e.org_id AND m.user_id = e.user_id
      LEFT JOIN public.api_keys k ON k.org_id = e.org_id AND k.id = e.api_key_id
      WHERE e.cookie_hash = ANY (p_hashes) OR e.ticket_hash = ANY (p_hashes)
    $$""",
)


def upgrade() -> None:
    op.create_table(
        "editor_sessions",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("device_id", sa.Uuid(), nullable=True),
        sa.Column("user_id", sa.Uuid(), nullable=True),
        sa.Column("session_id", sa.Uuid(), nullable=True),
        sa.Column("api_key_id", sa.Uuid(), nullable=True),
        sa.Column("ticket_hash", sa.LargeBinary(), nullable=False),
        sa.Column("ticket_expires_at", sa.TIMESTAMP(timezone=True), nullable=False),
        sa.Column("cookie_hash", sa.LargeBinary(), nullable=True),
        sa.Column("created_at", sa.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("expires_at", sa.TIMESTAMP(timezone=True), nullable=False),
        sa.Column("opened_at", sa.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("last_used_at", sa.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("bytes_in", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("bytes_out", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("closed_at", sa.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("close_reason", sa.Text(), nullable=True),
        sa.Column("org_id", sa.Uuid(), nullable=False),
        sa.ForeignKeyConstraint(
            ["org_id", "api_key_id"],
            ["api_keys.org_id", "api_keys.id"],
            name="fk_editor_sessions_org_id_api_key_id",
            ondelete="SET NULL (api_key_id)",
        ),
        sa.ForeignKeyConstraint(
            ["org_id", "device_id"],
            ["devices.org_id", "devices.id"],
            name="fk_editor_sessions_org_id_device_id",
            ondelete="SET NULL (device_id)",
        ),
        sa.ForeignKeyConstraint(["org_id"], ["organizations.id"], name="fk_editor_sessions_org_id", ondelete="CASCADE"),
        sa.ForeignKeyConstraint(
            ["session_id"], ["sessions.id"], name="fk_editor_sessions_session_id", ondelete="SET NULL"
        ),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_editor_sessions_user_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name="pk_editor_sessions"),
        sa.UniqueConstraint("cookie_hash", name="uq_editor_sessions_cookie_hash"),
        sa.UniqueConstraint("ticket_hash", name="uq_editor_sessions_ticket_hash"),
    )
    op.create_index("ix_editor_sessions_device_id", "editor_sessions", ["device_id"], unique=False)
    op.create_index("ix_editor_sessions_session_id", "editor_sessions", ["session_id"], unique=False)
    op.create_index("ix_editor_sessions_user_id", "editor_sessions", ["user_id"], unique=False)
    op.create_index("ix_editor_sessions_api_key_id", "editor_sessions", ["api_key_id"], unique=False)
    op.create_index("ix_editor_sessions_org_id", "editor_sessions", ["org_id"], unique=False)
    op.create_index(
        "ix_editor_sessions_open",
        "editor_sessions",
        ["id"],
        unique=False,
        postgresql_where=sa.text("opened_at IS NOT NULL AND closed_at IS NULL"),
    )
    rights.open_to_tenants("editor_sessions")
    rights.answer_across_tenants(*IDENTIFY)


def downgrade() -> None:
    op.execute(f"DROP FUNCTION {IDENTIFY[0]}")
    op.drop_table("editor_sessions")
