"""What devices lack, how installed flows fare, and where devices differ from what was deployed to them."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from migrations import rights

revision = "0010"
down_revision = "0009"

COLUMNS = {
    "flow_versions": sa.Column(
        "node_types", postgresql.ARRAY(sa.Text()), server_default=sa.text("'{}'"), nullable=False
    ),
    "executions": sa.Column("health", sa.Text(), nullable=True),
    "deployments": sa.Column("force", sa.Boolean(), server_default=sa.text("false"), nullable=False),
    "shadows": sa.Column(
        "drift", postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'{}'"), nullable=False
    ),
}


def upgrade() -> None:
    for table, column in COLUMNS.items():
        op.add_column(table, column)
    op.create_index("ix_shadows_drift", "shadows", ["org_id"], postgresql_where=sa.text("drift <> '{}'"))
    # Forced policies hide every row from the owner; the role of sweeps sees all of them.
    op.execute(f"SET ROLE {rights.SYSTEM}")
    op.execute(
        "UPDATE flow_versions SET node_types = ARRAY("
        "SELECT DISTINCT node->>'type' FROM jsonb_array_elements(definition->'nodes') node ORDER BY 1)"
    )
    op.execute("RESET ROLE")


def downgrade() -> None:
    op.drop_index("ix_shadows_drift", "shadows")
    for table, column in COLUMNS.items():
        op.drop_column(table, column.name)
