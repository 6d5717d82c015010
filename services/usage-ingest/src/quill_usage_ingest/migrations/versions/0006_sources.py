"""Sources, their watermarks and waivers; what each report generation claims."""

revision = "usage_ingest_0006"
down_revision = "usage_ingest_0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    pass


def downgrade() -> None:
    raise RuntimeError("migrations are not undone; restore a backup instead")
