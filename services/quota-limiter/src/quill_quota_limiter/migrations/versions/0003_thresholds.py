"""Shares of a quota that are told about, and which were told already."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "quota_limiter_0003"
down_revision = "quota_limiter_0002"
branch_labels = None
depends_on = None

INSTANT = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.add_column(
        "limit_states",
        sa.Column("thresholds", postgresql.JSONB, nullable=False, server_default=sa.text("'{}'::jsonb")),
    )
    op.create_table(
        "thresholds_reached",
        sa.Column("reached_id", sa.String, primary_key=True),
        sa.Column("period_end", INSTANT, nullable=False),
        sa.Column("at", INSTANT, nullable=False),
        comment="Each share of a quota that was told about: never twice.",
    )
    op.create_index("thresholds_reached_period_idx", "thresholds_reached", ["period_end"])


def downgrade() -> None:
    op.drop_table("thresholds_reached")
    op.drop_column("limit_states", "thresholds")
