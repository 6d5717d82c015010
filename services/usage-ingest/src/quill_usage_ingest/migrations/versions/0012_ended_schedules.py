"""The schedules an organization had before the one in force, each with the instant it ended at (L21)."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "usage_ingest_0012"
down_revision = "usage_ingest_0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("organizations", sa.Column("ended_schedules", postgresql.JSONB, nullable=True))


def downgrade() -> None:
    raise RuntimeError("migrations are not undone; restore a backup instead")
