"""Rollout commands are numbered, so that a gateway knows one that others have overtaken."""

from alembic import op

from migrations import rights

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    op.execute("CREATE SEQUENCE rollout_turns")
    rights.open_sequence("rollout_turns")


def downgrade() -> None:
    op.execute("DROP SEQUENCE rollout_turns")
