"""Sources of usage, whose they are, closings that wait for them, and the waivers that a closing used."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "invoicing_0002"
down_revision = "invoicing_0001"
branch_labels = None
depends_on = None

INSTANT = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "usage_sources",
        sa.Column("source", sa.String, primary_key=True),
        sa.Column("revision", sa.BigInteger, nullable=False),
        sa.Column("document", postgresql.JSONB, nullable=False),
        comment="Projection of usage.sources.v1: how far each source has told everything, and what was waived.",
    )
    op.create_table(
        "organization_sources",
        sa.Column("organization_id", sa.String, primary_key=True),
        sa.Column("sources", postgresql.JSONB, nullable=False),
        comment="Every source that ever reported for an organization, as its usage snapshots name them.",
    )
    op.create_table(
        "held_closings",
        sa.Column("organization_id", sa.String, primary_key=True),
        sa.Column("period_start", INSTANT, primary_key=True),
        sa.Column("period_end", INSTANT, nullable=False),
        sa.Column("missing", postgresql.JSONB, nullable=False),
        sa.Column("since", INSTANT, nullable=False),
        sa.Column("look_again_at", INSTANT, nullable=False),
        comment="Periods whose grace has passed and that wait for expected sources; gone once they are closed.",
    )
    op.add_column(
        "closed_periods",
        sa.Column("waivers", postgresql.JSONB, nullable=False, server_default=sa.text("'[]'::jsonb")),
    )


def downgrade() -> None:
    raise RuntimeError("migrations are not undone; restore a backup instead")
