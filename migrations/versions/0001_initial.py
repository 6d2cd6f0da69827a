"""The first schema: tables, and the row-level security that keeps tenants apart."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from migrations import rights

revision = "0001"
down_revision = None

TENANT_TABLES = {
    "organizations": "id",
    **dict.fromkeys(
        (
            "memberships", "invitations", "api_keys", "idempotency_keys", "devices", "device_keys", "shadows",
            "connections", "flows", "flow_versions", "deployments", "deployment_stages", "executions", "installations",
        ),
        "org_id",
    ),
}  # fmt: skip
GLOBAL_TABLES = ("users", "sessions", "refresh_tokens", "processes", "scheduled_runs")


def upgrade() -> None:
    rights.create_roles()
    op.execute(sa.schema.CreateSequence(sa.Sequence("tunnel_epochs")))
    _create_tables()
    rights.open_sequence("tunnel_epochs")
    for table in GLOBAL_TABLES:
        rights.open_table(table)
    for table, column in TENANT_TABLES.items():
        rights.open_to_tenants(table, column, nobodys_rows=table == "idempotency_keys")
    # What must be known before the tenant is.
    for signature, body in FUNCTIONS.items():
        rights.answer_across_tenants(signature, body)


def _create_tables() -> None:
    op.create_table(
        "organizations",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("settings", postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'{}'"), nullable=False),
        sa.Column("created_at", sa.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_organizations"),
    )
    op.create_table(
        "processes",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("host", sa.Text(), nullable=False),
        sa.Column("pid", sa.Integer(), nullable=False),
        sa.Column("started_at", sa.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("heartbeat_at", sa.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_processes"),
    )
    op.create_index("ix_processes_heartbeat_at", "processes", ["heartbeat_at"], unique=False)
    op.create_table(
        "scheduled_runs",
        sa.Column("job", sa.Text(), nullable=False),
        sa.Column("due_at", sa.TIMESTAMP(timezone=True), nullable=False),
        sa.Column("enqueued_at", sa.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("started_at", sa.TIMESTAMP(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("job", "due_at", name="pk_scheduled_runs"),
    )
    op.create_table(
        "users",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("email", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("password_hash", sa.Text(), nullable=False),
        sa.Column("created_at", sa.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_users"),
    )
    op.create_index("uq_users_email_lower", "users", [sa.literal_column("lower(email)")], unique=True)
    op.create_table(
        "api_keys",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("key_hash", sa.LargeBinary(), nullable=False),
        sa.Column("prefix", sa.Text(), nullable=False),
        sa.Column("created_by", sa.Uuid(), nullable=True),
        sa.Column("created_at", sa.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("expires_at", sa.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("last_used_at", sa.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("org_id", sa.Uuid(), nullable=False),
        sa.ForeignKeyConstraint(["created_by"], ["users.id"], name="fk_api_keys_created_by", ondelete="SET NULL"),
        sa.ForeignKeyConstraint(["org_id"], ["organizations.id"], name="fk_api_keys_org_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name="pk_api_keys"),
        sa.UniqueConstraint("key_hash", name="uq_api_keys_key_hash"),
        sa.UniqueConstraint("org_id", "id", name="uq_api_keys_org_id_id"),
    )
    op.create_table(
        "devices",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("type", sa.Text(), server_default="generic", nullable=False),
        sa.Column("tags", postgresql.ARRAY(sa.Text()), server_default=sa.text("'{}'"), nullable=False),
        sa.Column("metadata", postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'{}'"), nullable=False),
        sa.Column("settings", postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'{}'"), nullable=False),
        sa.Column("hardware_info", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("network_info", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("agent_version", sa.Text(), nullable=True),
        sa.Column("protocol", sa.Integer(), nullable=True),
        sa.Column("capabilities", postgresql.ARRAY(sa.Text()), server_default=sa.text("'{}'"), nullable=False),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("disabled_at", sa.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("provisioning_hash", sa.LargeBinary(), nullable=True),
        sa.Column("provisioning_expires_at", sa.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("provisioned_at", sa.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("fingerprint", sa.LargeBinary(), nullable=True),
        sa.Column("created_at", sa.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("org_id", sa.Uuid(), nullable=False),
        sa.ForeignKeyConstraint(["org_id"], ["organizations.id"], name="fk_devices_org_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name="pk_devices"),
        sa.UniqueConstraint("org_id", "id", name="uq_devices_org_id_id"),
        sa.UniqueConstraint("provisioning_hash", name="uq_devices_provisioning_hash"),
    )
    op.create_index("ix_devices_org_id_created_at", "devices", ["org_id", "created_at", "id"], unique=False)
    op.create_index("ix_devices_org_id_name", "devices", ["org_id", "name", "id"], unique=False)
    op.create_index("ix_devices_tags", "devices", ["tags"], unique=False, postgresql_using="gin")
    op.create_table(
        "flows",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("description", sa.Text(), server_default="", nullable=False),
        sa.Column("definition", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("content_hash", sa.Text(), nullable=False),
        sa.Column("latest_version", sa.Integer(), nullable=True),
        sa.Column("published_hash", sa.Text(), nullable=True),
        sa.Column("created_by", sa.Text(), nullable=True),
        sa.Column("created_at", sa.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("org_id", sa.Uuid(), nullable=False),
        sa.ForeignKeyConstraint(["org_id"], ["organizations.id"], name="fk_flows_org_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name="pk_flows"),
        sa.UniqueConstraint("org_id", "id", name="uq_flows_org_id_id"),
    )
    op.create_index("ix_flows_org_id_created_at", "flows", ["org_id", "created_at", "id"], unique=False)
    op.create_table(
        "idempotency_keys",
        sa.Column("key_hash", sa.LargeBinary(), nullable=False),
        sa.Column("org_id", sa.Uuid(), nullable=True),
        sa.Column("request_hash", sa.LargeBinary(), nullable=False),
        sa.Column("response", sa.LargeBinary(), nullable=True),
        sa.Column("created_at", sa.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(
            ["org_id"], ["organizations.id"], name="fk_idempotency_keys_org_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("key_hash", name="pk_idempotency_keys"),
    )
    op.create_index("ix_idempotency_keys_created_at", "idempotency_keys", ["created_at"], unique=False)
    op.create_index("ix_idempotency_keys_org_id", "idempotency_keys", ["org_id"], unique=False)
    op.create_table(
        "invitations",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("email", sa.Text(), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("token_hash", sa.LargeBinary(), nullable=False),
        sa.Column("invited_by", sa.Uuid(), nullable=True),
        sa.Column("created_at", sa.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("expires_at", sa.TIMESTAMP(timezone=True), nullable=False),
        sa.Column("accepted_at", sa.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("org_id", sa.Uuid(), nullable=False),
        sa.ForeignKeyConstraint(["invited_by"], ["users.id"], name="fk_invitations_invited_by", ondelete="SET NULL"),
        sa.ForeignKeyConstraint(["org_id"], ["organizations.id"], name="fk_invitations_org_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name="pk_invitations"),
        sa.UniqueConstraint("org_id", "id", name="uq_invitations_org_id_id"),
        sa.UniqueConstraint("token_hash", name="uq_invitations_token_hash"),
    )
    op.create_index(
        "uq_invitations_open",
        "invitations",
        ["org_id", sa.literal_column("lower(email)")],
        unique=True,
        postgresql_where=sa.text("accepted_at IS NULL"),
    )
    op.create_table(
        "memberships",
        sa.Column("org_id", sa.Uuid(), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("created_at", sa.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["org_id"], ["organizations.id"], name="fk_memberships_org_id", ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_memberships_user_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("org_id", "user_id", name="pk_memberships"),
    )
    op.create_index("ix_memberships_user_id", "memberships", ["user_id"], unique=False)
    op.create_table(
        "sessions",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("org_id", sa.Uuid(), nullable=True),
        sa.Column("user_agent", sa.Text(), nullable=True),
        sa.Column("ip", sa.Text(), nullable=True),
        sa.Column("created_at", sa.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("expires_at", sa.TIMESTAMP(timezone=True), nullable=False),
        sa.Column("revoked_at", sa.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("revoked_reason", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["org_id"], ["organizations.id"], name="fk_sessions_org_id", ondelete="SET NULL"),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_sessions_user_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name="pk_sessions"),
    )
    op.create_index("ix_sessions_user_id", "sessions", ["user_id"], unique=False)
    op.create_table(
        "connections",
        sa.Column("device_id", sa.Uuid(), nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("gateway", sa.Text(), nullable=False),
        sa.Column("protocol", sa.Integer(), server_default="1", nullable=False),
        sa.Column("remote_addr", sa.Text(), nullable=True),
        sa.Column("connected_at", sa.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("last_seen_at", sa.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("disconnected_at", sa.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("disconnect_reason", sa.Text(), nullable=True),
        sa.Column("in_flight", sa.Integer(), server_default="0", nullable=False),
        sa.Column("bytes_in", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("bytes_out", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("rtt_ms", sa.Double(), nullable=True),
        sa.Column("org_id", sa.Uuid(), nullable=False),
        sa.ForeignKeyConstraint(
            ["org_id", "device_id"],
            ["devices.org_id", "devices.id"],
            name="fk_connections_org_id_device_id",
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(["org_id"], ["organizations.id"], name="fk_connections_org_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("device_id", name="pk_connections"),
    )
    op.create_index(
        "ix_connections_gateway",
        "connections",
        ["gateway"],
        unique=False,
        postgresql_where=sa.text("disconnected_at IS NULL"),
    )
    op.create_index("ix_connections_org_id", "connections", ["org_id"], unique=False)
    op.create_table(
        "deployments",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("flow_id", sa.Uuid(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), server_default="created", nullable=False),
        sa.Column("target", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("strategy", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("reason", sa.Text(), server_default="", nullable=False),
        sa.Column("current_stage", sa.Integer(), server_default="0", nullable=False),
        sa.Column("acknowledged_failures", sa.Integer(), server_default="0", nullable=False),
        sa.Column("created_by", sa.Text(), nullable=True),
        sa.Column("created_at", sa.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("schedule_at", sa.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("started_at", sa.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("finished_at", sa.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("next_check_at", sa.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("org_id", sa.Uuid(), nullable=False),
        sa.ForeignKeyConstraint(
            ["org_id", "flow_id"],
            ["flows.org_id", "flows.id"],
            name="fk_deployments_org_id_flow_id",
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(["org_id"], ["organizations.id"], name="fk_deployments_org_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name="pk_deployments"),
        sa.UniqueConstraint("org_id", "id", name="uq_deployments_org_id_id"),
    )
    op.create_index("ix_deployments_flow_id", "deployments", ["flow_id"], unique=False)
    op.create_index(
        "ix_deployments_next_check_at",
        "deployments",
        ["next_check_at"],
        unique=False,
        postgresql_where=sa.text("next_check_at IS NOT NULL"),
    )
    op.create_index("ix_deployments_org_id_created_at", "deployments", ["org_id", "created_at", "id"], unique=False)
    op.create_table(
        "device_keys",
        sa.Column("key_hash", sa.LargeBinary(), nullable=False),
        sa.Column("device_id", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("expires_at", sa.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("org_id", sa.Uuid(), nullable=False),
        sa.ForeignKeyConstraint(
            ["org_id", "device_id"],
            ["devices.org_id", "devices.id"],
            name="fk_device_keys_org_id_device_id",
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(["org_id"], ["organizations.id"], name="fk_device_keys_org_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("key_hash", name="pk_device_keys"),
    )
    op.create_index("ix_device_keys_device_id", "device_keys", ["device_id"], unique=False)
    op.create_table(
        "flow_versions",
        sa.Column("flow_id", sa.Uuid(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("definition", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("content_hash", sa.Text(), nullable=False),
        sa.Column("published_by", sa.Text(), nullable=True),
        sa.Column("created_at", sa.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("org_id", sa.Uuid(), nullable=False),
        sa.ForeignKeyConstraint(
            ["org_id", "flow_id"],
            ["flows.org_id", "flows.id"],
            name="fk_flow_versions_org_id_flow_id",
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(["org_id"], ["organizations.id"], name="fk_flow_versions_org_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("flow_id", "number", name="pk_flow_versions"),
        sa.UniqueConstraint("org_id", "flow_id", "number", name="uq_flow_versions_org_id_flow_id_number"),
    )
    op.create_table(
        "installations",
        sa.Column("id", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.Column("device_id", sa.Uuid(), nullable=False),
        sa.Column("flow_id", sa.Uuid(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=True),
        sa.Column("content_hash", sa.Text(), nullable=True),
        sa.Column("deployment_id", sa.Uuid(), nullable=True),
        sa.Column("installed_at", sa.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("replaced_at", sa.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("org_id", sa.Uuid(), nullable=False),
        sa.ForeignKeyConstraint(
            ["org_id", "device_id"],
            ["devices.org_id", "devices.id"],
            name="fk_installations_org_id_device_id",
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["org_id", "flow_id"],
            ["flows.org_id", "flows.id"],
            name="fk_installations_org_id_flow_id",
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(["org_id"], ["organizations.id"], name="fk_installations_org_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name="pk_installations"),
    )
    op.create_index("ix_installations_device_id", "installations", ["device_id", "installed_at"], unique=False)
    op.create_index(
        "uq_installations_current",
        "installations",
        ["device_id", "flow_id"],
        unique=True,
        postgresql_where=sa.text("replaced_at IS NULL"),
    )
    op.create_table(
        "refresh_tokens",
        sa.Column("token_hash", sa.LargeBinary(), nullable=False),
        sa.Column("session_id", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("expires_at", sa.TIMESTAMP(timezone=True), nullable=False),
        sa.Column("used_at", sa.TIMESTAMP(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["session_id"], ["sessions.id"], name="fk_refresh_tokens_session_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("token_hash", name="pk_refresh_tokens"),
    )
    op.create_index("ix_refresh_tokens_session_id", "refresh_tokens", ["session_id"], unique=False)
    op.create_table(
        "shadows",
        sa.Column("device_id", sa.Uuid(), nullable=False),
        sa.Column("version", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("desired", postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'{}'"), nullable=False),
        sa.Column("reported", postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'{}'"), nullable=False),
        sa.Column(
            "desired_times", postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'{}'"), nullable=False
        ),
        sa.Column(
            "reported_times", postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'{}'"), nullable=False
        ),
        sa.Column("updated_at", sa.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("org_id", sa.Uuid(), nullable=False),
        sa.ForeignKeyConstraint(
            ["org_id", "device_id"],
            ["devices.org_id", "devices.id"],
            name="fk_shadows_org_id_device_id",
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(["org_id"], ["organizations.id"], name="fk_shadows_org_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("device_id", name="pk_shadows"),
    )
    op.create_table(
        "deployment_stages",
        sa.Column("deployment_id", sa.Uuid(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("percent", sa.Integer(), nullable=False),
        sa.Column("size", sa.Integer(), nullable=False),
        sa.Column("status", sa.Text(), server_default="pending", nullable=False),
        sa.Column("started_at", sa.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("finished_at", sa.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("org_id", sa.Uuid(), nullable=False),
        sa.ForeignKeyConstraint(
            ["org_id", "deployment_id"],
            ["deployments.org_id", "deployments.id"],
            name="fk_deployment_stages_org_id_deployment_id",
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["org_id"], ["organizations.id"], name="fk_deployment_stages_org_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("deployment_id", "number", name="pk_deployment_stages"),
    )
    op.create_table(
        "executions",
        sa.Column("id", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.Column("deployment_id", sa.Uuid(), nullable=False),
        sa.Column("device_id", sa.Uuid(), nullable=True),
        sa.Column("device_name", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), server_default="install", nullable=False),
        sa.Column("stage", sa.Integer(), server_default="0", nullable=False),
        sa.Column("state", sa.Text(), server_default="queued", nullable=False),
        sa.Column("attempt", sa.Integer(), server_default="0", nullable=False),
        sa.Column("command_id", sa.Uuid(), nullable=True),
        sa.Column("lease_until", sa.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("redeliver_at", sa.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("next_attempt_at", sa.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("version", sa.Integer(), nullable=True),
        sa.Column("previous_version", sa.Integer(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("error_code", sa.Text(), nullable=True),
        sa.Column("queued_at", sa.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("started_at", sa.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("finished_at", sa.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("org_id", sa.Uuid(), nullable=False),
        sa.ForeignKeyConstraint(
            ["org_id", "deployment_id"],
            ["deployments.org_id", "deployments.id"],
            name="fk_executions_org_id_deployment_id",
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["org_id", "device_id"],
            ["devices.org_id", "devices.id"],
            name="fk_executions_org_id_device_id",
            ondelete="SET NULL (device_id)",
        ),
        sa.ForeignKeyConstraint(["org_id"], ["organizations.id"], name="fk_executions_org_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name="pk_executions"),
        sa.UniqueConstraint("deployment_id", "device_id", "kind", name="uq_executions_deployment_id_device_id_kind"),
        sa.UniqueConstraint("org_id", "id", name="uq_executions_org_id_id"),
    )
    op.create_index(
        "ix_executions_command_id",
        "executions",
        ["command_id"],
        unique=True,
        postgresql_where=sa.text("command_id IS NOT NULL"),
    )
    op.create_index(
        "ix_executions_deployment_id_state",
        "executions",
        ["deployment_id", "kind", "state", "stage", "id"],
        unique=False,
    )
    op.create_index(
        "ix_executions_device_id_open",
        "executions",
        ["device_id"],
        unique=False,
        postgresql_where=sa.text("state IN ('queued', 'in_progress', 'superseded')"),
    )
    op.create_index(
        "uq_executions_in_progress",
        "executions",
        ["org_id", "device_id"],
        unique=True,
        postgresql_where=sa.text("state = 'in_progress'"),
    )


FUNCTIONS = {
    "identify_session(p_session uuid, p_user uuid, p_org uuid)": """
        RETURNS TABLE (user_id uuid, email text, org_id uuid, role text)
        AS $$
          SELECT u.id, u.email, coalesce(p_org, s.org_id), m.role
          FROM public.sessions s
          JOIN public.users u ON u.id = s.user_id
          LEFT JOIN public.memberships m ON m.user_id = u.id AND m.org_id = coalesce(p_org, s.org_id)
          WHERE s.id = p_session AND s.user_id = p_user AND s.revoked_at IS NULL AND s.expires_at > now()
        $$""",
    "identify_api_key(p_hash bytea)": """
        RETURNS TABLE (id uuid, org_id uuid, role text, name text, stale boolean)
        AS $$
          SELECT k.id, k.org_id, k.role, k.name,
                 k.last_used_at IS NULL OR k.last_used_at < now() - interval '1 minute'
          FROM public.api_keys k
          WHERE k.key_hash = p_hash AND (k.expires_at IS NULL OR k.expires_at > now())
        $$""",
    "identify_devices(p_hashes bytea[])": """
        RETURNS TABLE (key_hash bytea, device_id uuid, org_id uuid, name text, disabled_at timestamptz)
        AS $$
          SELECT k.key_hash, d.id, d.org_id, d.name, d.disabled_at
          FROM public.device_keys k
          JOIN public.devices d ON d.org_id = k.org_id AND d.id = k.device_id
          WHERE k.key_hash = ANY (p_hashes) AND (k.expires_at IS NULL OR k.expires_at > now())
        $$""",
    "identify_provisioning(p_hash bytea)": """
        RETURNS TABLE (device_id uuid, org_id uuid)
        AS $$ SELECT d.id, d.org_id FROM public.devices d WHERE d.provisioning_hash = p_hash $$""",
    "identify_invitation(p_hash bytea)": """
        RETURNS TABLE (id uuid, org_id uuid, email text)
        AS $$
          SELECT i.id, i.org_id, i.email FROM public.invitations i
          WHERE i.token_hash = p_hash AND i.accepted_at IS NULL AND i.expires_at > now()
        $$""",
    "organizations_of(p_user uuid)": """
        RETURNS TABLE (id uuid, name text, role text, settings jsonb, created_at timestamptz, updated_at timestamptz,
                       joined_at timestamptz)
        AS $$
          SELECT o.id, o.name, m.role, o.settings, o.created_at, o.updated_at, m.created_at
          FROM public.memberships m JOIN public.organizations o ON o.id = m.org_id
          WHERE m.user_id = p_user
          ORDER BY m.created_at, o.id
        $$""",
}


def downgrade() -> None:
    for signature in FUNCTIONS:
        op.execute(f"DROP FUNCTION {signature}")
    for table in (
        "installations", "executions", "deployment_stages", "deployments", "flow_versions", "flows", "connections",
        "shadows", "device_keys", "devices", "idempotency_keys", "api_keys", "invitations", "memberships",
        "refresh_tokens", "sessions", "scheduled_runs", "processes", "organizations", "users",
    ):  # fmt: skip
        op.drop_table(table)
    op.execute(sa.schema.DropSequence(sa.Sequence("tunnel_epochs")))
