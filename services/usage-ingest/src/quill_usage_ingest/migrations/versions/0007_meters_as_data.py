"""Meters that count from a date on, or that events feed."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "usage_ingest_0007"
down_revision = "usage_ingest_0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("metered_products", sa.Column("counts_from", sa.DateTime(timezone=True), nullable=True))
    op.add_column("metered_products", sa.Column("event_meter", postgresql.JSONB, nullable=True))
    op.create_table(
        "counter_recounts",
        sa.Column("id", sa.SmallInteger, primary_key=True, autoincrement=False),
        sa.Column("dated", sa.String, nullable=False),
        sa.Column("after_organization_id", sa.String, nullable=True),
        comment="One row: the counters that count from a date on, and how far the recount of all organizations for"
        " them has come; null = through.",
    )


def downgrade() -> None:
    raise RuntimeError("migrations are not undone; restore a backup instead")
