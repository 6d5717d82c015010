"""Whether a license has an organization is asked for every report of an unknown one."""

from alembic import op

revision = "usage_ingest_0018"
down_revision = "usage_ingest_0017"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("organizations_license_idx", "organizations", ["license_id"])


def downgrade() -> None:
    raise RuntimeError("migrations are not undone; restore a backup instead")
