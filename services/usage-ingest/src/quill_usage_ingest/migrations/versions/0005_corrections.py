"""Corrections: what was voided or replaced, by whom and why."""

revision = "usage_ingest_0005"
down_revision = "usage_ingest_0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    pass


def downgrade() -> None:
    raise RuntimeError("migrations are not undone; restore a backup instead")
