"""Amounts of cost that are told about, beside shares of a quota."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "quota_limiter_0007"
down_revision = "quota_limiter_0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "limit_states",
        sa.Column("spend_thresholds", postgresql.JSONB, nullable=False, server_default=sa.text("'{}'::jsonb")),
    )
    op.execute(
        "comment on table thresholds_reached is"
        " 'Each share of a quota and amount of cost that was told about: never twice.'"
    )


def downgrade() -> None:
    op.execute("comment on table thresholds_reached is 'Each share of a quota that was told about: never twice.'")
    op.drop_column("limit_states", "spend_thresholds")
