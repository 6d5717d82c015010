"""What capture services let through and dropped."""

import sqlalchemy as sa
from alembic import op

revision = "quota_limiter_0004"
down_revision = "quota_limiter_0003"
branch_labels = None
depends_on = None

INSTANT = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "drop_reports",
        sa.Column("organization_id", sa.String, primary_key=True),
        sa.Column("report_id", sa.String, primary_key=True),
        sa.Column("usage_key", sa.String, nullable=False),
        sa.Column("source", sa.String, nullable=False),
        sa.Column("window_start", INSTANT, nullable=False),
        sa.Column("window_end", INSTANT, nullable=False),
        sa.Column("allowed", sa.BigInteger, nullable=False),
        sa.Column("dropped", sa.BigInteger, nullable=False),
        sa.Column("received_at", INSTANT, nullable=False),
        comment="What a source let through and dropped of one meter in a window; one row per id.",
    )
    op.create_index("drop_reports_window_idx", "drop_reports", ["organization_id", "window_start"])


def downgrade() -> None:
    op.drop_table("drop_reports")
