"""Usage before each cut: where a paid span began or ended, or a limit fell (L12)."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "usage_ingest_0019"
down_revision = "usage_ingest_0018"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "organizations",
        sa.Column(
            "cuts",
            postgresql.ARRAY(sa.DateTime(timezone=True)),
            nullable=False,
            server_default=sa.text("'{}'::timestamptz[]"),
        ),
    )
    op.create_table(
        "cut_usage",
        sa.Column("organization_id", sa.String(), nullable=False),
        sa.Column("period_start", sa.DateTime(timezone=True), nullable=False),
        sa.Column("period_end", sa.DateTime(timezone=True), nullable=False),
        sa.Column("cut_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("counters", postgresql.JSONB(), nullable=False),
        sa.Column("events", postgresql.JSONB(), nullable=False),
        sa.PrimaryKeyConstraint("organization_id", "period_start", "period_end", "cut_at"),
        comment="What was used in a period before a cut of it, by counter and by event meter; of counters the greatest"
        " value ever published, unless a correction lowered it (L3, L12).",
    )
    op.drop_column("period_usage", "corrected_revision")
    op.add_column(
        "period_usage",
        sa.Column("is_late_usage_due", sa.Boolean(), nullable=False, server_default=sa.text("false")),
    )
    op.create_index(
        "period_usage_late_due_idx",
        "period_usage",
        ["organization_id"],
        postgresql_where=sa.text("is_late_usage_due"),
    )
    op.drop_column("event_windows", "peak")
    op.drop_column("event_periods", "peak")


def downgrade() -> None:
    raise RuntimeError("migrations are not undone; restore a backup instead")
