"""Meter events, their names for ever, and what they add up to by day."""

revision = "usage_ingest_0004"
down_revision = "usage_ingest_0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    pass


def downgrade() -> None:
    raise RuntimeError("migrations are not undone; restore a backup instead")
