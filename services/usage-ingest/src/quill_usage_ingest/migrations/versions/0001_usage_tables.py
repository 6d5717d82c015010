"""Organizations, meters, packed cells, period usage, reports."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "usage_ingest_0001"
down_revision = None
branch_labels = None
depends_on = None

INSTANT = sa.DateTime(timezone=True)
PACKED = postgresql.ARRAY(sa.BigInteger)


def upgrade() -> None:
    op.create_table(
        "organizations",
        sa.Column("organization_id", sa.String, primary_key=True),
        sa.Column("license_id", sa.String, nullable=False),
        sa.Column("customer_revision", sa.BigInteger, nullable=False),
        sa.Column("usage_revision", sa.BigInteger, nullable=False, server_default=sa.text("0")),
        sa.Column("is_publication_due", sa.Boolean, nullable=False, server_default=sa.text("false")),
        sa.Column("schedule_anchor", INSTANT, nullable=False),
        sa.Column("schedule_interval", sa.String, nullable=False),
        sa.Column("customer", postgresql.JSONB, nullable=False),
        comment="Projection of customer snapshots; its row lock orders all writers of one organization's usage.",
    )
    op.create_index(
        "organizations_publication_due_idx",
        "organizations",
        ["organization_id"],
        postgresql_where=sa.text("is_publication_due"),
    )
    op.create_table(
        "metered_products",
        sa.Column("product_key", sa.String, primary_key=True),
        sa.Column("revision", sa.BigInteger, nullable=False),
        sa.Column("usage_key", sa.String, nullable=True),
        sa.Column("counter", sa.String, nullable=True),
        comment="Projection of the catalog: which counter feeds which meter.",
    )
    op.create_table(
        "counter_slots",
        sa.Column("name", sa.String, primary_key=True),
        sa.Column("slot", sa.SmallInteger, nullable=False, unique=True, autoincrement=False),
        comment="Append-only: position of a counter in every packed array, from 0.",
    )
    op.create_table(
        "usage_windows",
        sa.Column("organization_id", sa.String, primary_key=True),
        sa.Column("window_start", INSTANT, primary_key=True),
        sa.Column("source", sa.String, primary_key=True),
        sa.Column("window_end", INSTANT, nullable=False),
        sa.Column("quantities", PACKED, nullable=False),
        sa.Column("ranks", PACKED, nullable=False),
        postgresql_with={"fillfactor": "70"},
        comment="Packed usage cells (L1). Rank: 0 never reported; else bit 60 = complete, below it microseconds since"
        " 0001-01-01 UTC of the as-of instant, plus 1.",
    )
    op.create_table(
        "period_usage",
        sa.Column(
            "organization_id",
            sa.String,
            sa.ForeignKey("organizations.organization_id", name="period_usage_organization_fkey"),
            primary_key=True,
        ),
        sa.Column("period_start", INSTANT, primary_key=True),
        sa.Column("period_end", INSTANT, primary_key=True),
        sa.Column("as_of", INSTANT, nullable=False),
        sa.Column("revision", sa.BigInteger, nullable=False),
        sa.Column("corrected_revision", sa.BigInteger, nullable=True),
        sa.Column("is_in_force", sa.Boolean, nullable=False, server_default=sa.text("true")),
        sa.Column("complete", PACKED, nullable=False),
        sa.Column("partial", PACKED, nullable=False),
        sa.Column("maximum", PACKED, nullable=False),
        postgresql_with={"fillfactor": "70"},
        comment="Period-to-date sums of the cells and their maxima (L2, L3), packed by counter slot; maximum -1 = never"
        " reported. Not in force: the schedule has moved away from this period.",
    )
    op.create_table(
        "usage_reports",
        sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
        sa.Column("organization_id", sa.String, nullable=False),
        sa.Column("source", sa.String, nullable=False),
        sa.Column("report_id", sa.String, nullable=False),
        sa.Column("content_hash", sa.LargeBinary, nullable=False),
        sa.Column("window_start", INSTANT, nullable=False),
        sa.Column("window_end", INSTANT, nullable=False),
        sa.Column("completeness", sa.String, nullable=False),
        sa.Column("as_of", INSTANT, nullable=False),
        sa.Column("received_at", INSTANT, nullable=False),
        sa.Column("intake", sa.String, nullable=False),
        sa.Column("topic", sa.String, nullable=True),
        sa.Column("partition", sa.Integer, nullable=True),
        sa.Column("offset", sa.BigInteger, nullable=True),
        sa.Column("verdict", sa.String, nullable=False),
        sa.Column("correction_actor", sa.String, nullable=True),
        sa.Column("correction_reason", sa.String, nullable=True),
        sa.Column("note", postgresql.JSONB, nullable=True),
        sa.Column("body", sa.LargeBinary, nullable=False),
        sa.UniqueConstraint(
            "organization_id", "source", "report_id", "content_hash", name="usage_reports_content_key"
        ),
        comment="Every distinct report as received (zlib of the exact bytes) and what became of it (L4, L5).",
    )
    op.create_index("usage_reports_window_idx", "usage_reports", ["organization_id", "window_start"])
    # Packed arrays are small and hot: keep them in the row as long as it fits a page (performance 3).
    for table, column in (
        ("usage_windows", "quantities"),
        ("usage_windows", "ranks"),
        ("period_usage", "complete"),
        ("period_usage", "partial"),
        ("period_usage", "maximum"),
    ):
        op.execute(f"alter table {table} alter column {column} set storage main")


def downgrade() -> None:
    raise RuntimeError("the first migration is not undone; drop the database instead")
