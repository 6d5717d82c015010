"""Runs of chunk files and how far each was read."""

revision = "usage_ingest_0003"
down_revision = "usage_ingest_0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    pass


def downgrade() -> None:
    raise RuntimeError("migrations are not undone; restore a backup instead")
