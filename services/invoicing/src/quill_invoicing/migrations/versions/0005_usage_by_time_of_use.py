"""Usage by time of use: the newest snapshot of each period in place of what was heard when (L12)."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "invoicing_0005"
down_revision = "invoicing_0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.drop_table("usage_observations")
    op.drop_table("usage_periods")
    op.create_table(
        "usage_periods",
        sa.Column("organization_id", sa.String(), nullable=False),
        sa.Column("period_start", sa.DateTime(timezone=True), nullable=False),
        sa.Column("period_end", sa.DateTime(timezone=True), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("customer_revision", sa.BigInteger(), nullable=False),
        sa.Column("meters", postgresql.JSONB(), nullable=False),
        sa.Column("cuts", postgresql.JSONB(), nullable=False),
        sa.PrimaryKeyConstraint("organization_id", "period_start"),
        comment="What the newest usage snapshot says of each period: totals, and what was used before each cut (L12).",
    )


def downgrade() -> None:
    raise RuntimeError("migrations are not undone; restore a backup instead")
