"""What a report claims is kept beside its bytes, wherever the bytes alone do not say it."""

import sqlalchemy as sa
from alembic import op

revision = "usage_ingest_0002"
down_revision = "usage_ingest_0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("usage_reports", sa.Column("claim", sa.LargeBinary, nullable=True))


def downgrade() -> None:
    raise RuntimeError("migrations are not undone; restore a backup instead")
