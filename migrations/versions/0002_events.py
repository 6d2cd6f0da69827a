"""Events of deployments, written by triggers: whoever changes a status, stage or execution, in the same transaction."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from migrations import rights

revision = "0002"
down_revision = "0001"

# Triggers run as whoever made the change, so the policies hold for what they write too.
FUNCTIONS = {
    # Deferred to the commit: only then is the reason of the new status written, and all that led to it.
    "note_deployment_status": """
        INSERT INTO public.deployment_events (org_id, deployment_id, kind, data)
        SELECT d.org_id, d.id, 'status', jsonb_build_object(
            'status', NEW.status, 'previous_status', CASE WHEN TG_OP = 'UPDATE' THEN OLD.status END,
            'reason', CASE WHEN d.status = NEW.status THEN d.reason END)
        FROM public.deployments d WHERE d.id = NEW.id;
    """,
    "note_deployment_stages": """
        INSERT INTO public.deployment_events (org_id, deployment_id, kind, data)
        SELECT n.org_id, n.deployment_id, 'stage', jsonb_build_object(
            'number', n.number, 'percent', n.percent, 'size', n.size,
            'status', n.status, 'previous_status', o.status)
        FROM after n JOIN before o USING (deployment_id, number)
        WHERE n.status <> o.status
        ORDER BY n.deployment_id, n.number;
    """,
    "note_executions": """
        INSERT INTO public.deployment_events (org_id, deployment_id, kind, command_id, data)
        SELECT n.org_id, n.deployment_id, 'execution', CASE WHEN n.state = 'in_progress' THEN n.command_id END,
            jsonb_build_object(
                'execution_id', n.id, 'device_id', n.device_id, 'device_name', n.device_name, 'kind', n.kind,
                'stage', n.stage, 'state', n.state, 'previous_state', o.state, 'attempt', n.attempt,
                'version', n.version, 'error', n.error, 'error_code', n.error_code)
        FROM after n JOIN before o ON o.id = n.id
        WHERE n.state <> o.state;
    """,
    "tell_deployment_events": """
        PERFORM pg_notify('deployment_events', told.deployment_id::text)
        FROM (SELECT DISTINCT deployment_id FROM after) told;
    """,
}
STATEMENTS = {
    "note_deployment_stages": ("deployment_stages", "UPDATE", "OLD TABLE AS before NEW TABLE AS after"),
    "note_executions": ("executions", "UPDATE", "OLD TABLE AS before NEW TABLE AS after"),
    "tell_deployment_events": ("deployment_events", "INSERT", "NEW TABLE AS after"),
}
STATUS = {
    "note_deployment_status": "UPDATE OF status ON deployments DEFERRABLE INITIALLY DEFERRED "
    "FOR EACH ROW WHEN (OLD.status IS DISTINCT FROM NEW.status)",
    "note_deployment_created": "INSERT ON deployments DEFERRABLE INITIALLY DEFERRED FOR EACH ROW",
}


def upgrade() -> None:
    _create_table()
    for name, body in FUNCTIONS.items():
        op.execute(f"CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {body} RETURN NULL; END $$")
    for name, (table, change, tables) in STATEMENTS.items():
        op.execute(
            f"CREATE TRIGGER {name} AFTER {change} ON {table} REFERENCING {tables} "
            f"FOR EACH STATEMENT EXECUTE FUNCTION {name}()"
        )
    for name, when in STATUS.items():
        op.execute(f"CREATE CONSTRAINT TRIGGER {name} AFTER {when} EXECUTE FUNCTION note_deployment_status()")
    # Lists of executions by name, 10,000 of them page by page.
    op.create_index("ix_executions_deployment_id_device_name", "executions", ["deployment_id", "device_name", "id"])


def _create_table() -> None:
    op.create_table(
        "deployment_events",
        sa.Column("deployment_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.BigInteger(), sa.Identity(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("command_id", sa.Uuid(), nullable=True),
        sa.Column("data", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("created_at", sa.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("org_id", sa.Uuid(), nullable=False),
        sa.ForeignKeyConstraint(
            ["org_id", "deployment_id"],
            ["deployments.org_id", "deployments.id"],
            name="fk_deployment_events_org_id_deployments",
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["org_id"], ["organizations.id"], name="fk_deployment_events_org_id_organizations", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("deployment_id", "id", name="pk_deployment_events"),
    )
    op.create_index(
        "ix_deployment_events_command_id",
        "deployment_events",
        ["command_id"],
        postgresql_where=sa.text("command_id IS NOT NULL"),
    )
    rights.open_to_tenants("deployment_events")


def downgrade() -> None:
    op.drop_index("ix_executions_deployment_id_device_name", "executions")
    for name, (table, _change, _tables) in STATEMENTS.items():
        op.execute(f"DROP TRIGGER {name} ON {table}")
    for name in STATUS:
        op.execute(f"DROP TRIGGER {name} ON deployments")
    for name in FUNCTIONS:
        op.execute(f"DROP FUNCTION {name}()")
    op.drop_table("deployment_events")
