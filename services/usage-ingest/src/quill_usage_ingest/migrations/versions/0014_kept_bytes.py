"""Kept bytes are Zstandard from here on; rows of before stay zlib, and what reads them knows both."""

from alembic import op

revision = "usage_ingest_0014"
down_revision = "usage_ingest_0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        "comment on table usage_reports is 'Every distinct report as received (the exact bytes, compressed) and what became"
        " of it (L4, L5).'"
    )


def downgrade() -> None:
    raise RuntimeError("migrations are not undone; restore a backup instead")
