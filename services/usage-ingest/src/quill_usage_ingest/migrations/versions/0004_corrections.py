"""Corrections: what was voided or replaced, by whom and why."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "usage_ingest_0004"
down_revision = "usage_ingest_0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "corrections",
        sa.Column("organization_id", sa.String, primary_key=True),
        sa.Column("correction_id", sa.String, primary_key=True),
        sa.Column("content_hash", sa.LargeBinary, nullable=False),
        sa.Column("applied_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("document", postgresql.JSONB, nullable=False),
        comment="What people corrected: the order, the reports it touched, what changed, and who took it back"
        " (L3, L20).",
    )


def downgrade() -> None:
    raise RuntimeError("migrations are not undone; restore a backup instead")
