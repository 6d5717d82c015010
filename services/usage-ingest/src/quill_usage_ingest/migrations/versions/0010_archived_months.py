"""Months of reports and cells that were archived."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "usage_ingest_0010"
down_revision = "usage_ingest_0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "archived_months",
        sa.Column("month", sa.DateTime(timezone=True), primary_key=True),
        sa.Column("state", sa.String, nullable=False),
        sa.Column("folder", sa.String, nullable=False),
        sa.Column("rows", sa.BigInteger, nullable=False),
        sa.Column("manifest", postgresql.JSONB, nullable=False),
        sa.Column("archived_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("detached_at", sa.DateTime(timezone=True), nullable=True),
        comment="Months that were archived. Whoever reads or writes usage reads it first and so keeps a month from"
        " leaving until the transaction ends.",
    )


def downgrade() -> None:
    raise RuntimeError("migrations are not undone; restore a backup instead")
