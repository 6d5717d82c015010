"""What the two generations of reports say of the same organization and day."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "usage_ingest_0009"
down_revision = "usage_ingest_0008"
branch_labels = None
depends_on = None

INSTANT = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "generation_marks",
        sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
        sa.Column("organization_id", sa.String, nullable=False),
        sa.Column("day", INSTANT, nullable=False),
        sa.Column("source", sa.String, nullable=False),
        comment="Days of which either generation said something new, to be compared. Only ever added to and taken from,"
        " so that no writer waits for a comparison.",
    )
    op.create_table(
        "generation_comparisons",
        sa.Column("organization_id", sa.String, primary_key=True),
        sa.Column("day", sa.Date, primary_key=True),
        sa.Column("source", sa.String, primary_key=True),
        sa.Column("state", sa.String, nullable=False),
        sa.Column("differing", sa.Integer, nullable=False),
        sa.Column("differences", postgresql.JSONB, nullable=False),
        sa.Column("fingerprint", sa.LargeBinary, nullable=False),
        sa.Column("v1_report", sa.BigInteger, nullable=True),
        sa.Column("v2_report", sa.BigInteger, nullable=True),
        sa.Column("compared_at", INSTANT, nullable=False),
        sa.Column("accepted_by", sa.String, nullable=True),
        sa.Column("accepted_reason", sa.String, nullable=True),
        sa.Column("accepted_at", INSTANT, nullable=True),
        comment="What the newest complete reports of v1 and v2 say of one organization and day: [[counter, v1, v2],"
        " ...], the first fifty of the differing ones. An acceptance falls when the difference becomes another one.",
    )
    op.create_index("generation_comparisons_day_idx", "generation_comparisons", ["day", "source", "state"])


def downgrade() -> None:
    raise RuntimeError("migrations are not undone; restore a backup instead")
