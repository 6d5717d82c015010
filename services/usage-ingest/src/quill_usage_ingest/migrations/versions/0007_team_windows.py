"""Packed cells per team."""

revision = "usage_ingest_0007"
down_revision = "usage_ingest_0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    pass


def downgrade() -> None:
    raise RuntimeError("migrations are not undone; restore a backup instead")
