"""Rollouts in stages: approval, why one stopped by itself, accepted failures of a stage, when a command was sent."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

COLUMNS = {
    "deployments": (
        sa.Column("cause", sa.Text(), nullable=True),
        sa.Column("approval_role", sa.Text(), nullable=True),
        sa.Column("approved_by", sa.Text(), nullable=True),
        sa.Column("approved_at", sa.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("start_when_approved", sa.Boolean(), server_default=sa.text("false"), nullable=False),
    ),
    "deployment_stages": (
        sa.Column("acknowledged_failures", sa.Integer(), server_default=sa.text("0"), nullable=False),
    ),
    "executions": (sa.Column("sent_at", sa.TIMESTAMP(timezone=True), nullable=True),),
}


def upgrade() -> None:
    for table, columns in COLUMNS.items():
        for column in columns:
            op.add_column(table, column)
    # Its plan is made once, for the few rows of a first change; 5,000 devices at once took 4 s by nested loops.
    op.execute("ALTER FUNCTION note_executions() SET enable_nestloop = off")


def downgrade() -> None:
    op.execute("ALTER FUNCTION note_executions() RESET enable_nestloop")
    for table, columns in COLUMNS.items():
        for column in columns:
            op.drop_column(table, column.name)
