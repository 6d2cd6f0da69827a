"""Deployments are counted by the month: a count that outlives them, since deleting a flow deletes its own."""

from alembic import op

from migrations import rights

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    op.execute("""
        CREATE TABLE usage_months (
            org_id uuid NOT NULL,
            month timestamptz NOT NULL,
            deployments bigint NOT NULL DEFAULT 0,
            CONSTRAINT pk_usage_months PRIMARY KEY (org_id, month),
            CONSTRAINT fk_usage_months_org_id FOREIGN KEY (org_id) REFERENCES organizations (id) ON DELETE CASCADE)""")
    rights.open_to_tenants("usage_months")
    # Forced policies hide every row from the owner; the role of sweeps sees all of them.
    op.execute(f"SET ROLE {rights.SYSTEM}")
    op.execute(
        "INSERT INTO usage_months (org_id, month, deployments) "
        "SELECT org_id, date_trunc('month', created_at, 'UTC'), count(*) FROM deployments GROUP BY 1, 2"
    )
    op.execute("RESET ROLE")


def downgrade() -> None:
    op.execute("DROP TABLE usage_months")
