"""What stays published of a meter while it is counted anew."""

import sqlalchemy as sa
from alembic import op

revision = "usage_ingest_0015"
down_revision = "usage_ingest_0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "usage_stand_ins",
        sa.Column("organization_id", sa.String, primary_key=True),
        sa.Column("usage_key", sa.String, primary_key=True),
        sa.Column("period_start", sa.DateTime(timezone=True), primary_key=True),
        sa.Column("period_end", sa.DateTime(timezone=True), primary_key=True),
        sa.Column("complete", sa.BigInteger, nullable=False),
        sa.Column("partial", sa.BigInteger, nullable=False),
        sa.Column("maximum", sa.BigInteger, nullable=False),
        comment="What was published of meters that are counted anew: shown while the recount of the organization waits.",
    )


def downgrade() -> None:
    raise RuntimeError("migrations are not undone; restore a backup instead")
