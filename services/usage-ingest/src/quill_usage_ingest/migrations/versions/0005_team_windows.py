"""Packed cells per team, partitioned by month; licenses billed on somebody's account."""

from datetime import date

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "usage_ingest_0005"
down_revision = "usage_ingest_0004"
branch_labels = None
depends_on = None

INSTANT = sa.DateTime(timezone=True)
PACKED = postgresql.ARRAY(sa.BigInteger)
FIRST_MONTH, MONTHS = date(2025, 1, 1), 72
"""Windows outside go to the default partition: nothing is refused for want of a partition."""


def upgrade() -> None:
    op.create_table(
        "team_windows",
        sa.Column("organization_id", sa.String, primary_key=True),
        sa.Column("window_start", INSTANT, primary_key=True),
        sa.Column("source", sa.String, primary_key=True),
        sa.Column("team_id", sa.String, primary_key=True),
        sa.Column("window_end", INSTANT, nullable=False),
        sa.Column("quantities", PACKED, nullable=False),
        sa.Column("ranks", PACKED, nullable=False),
        postgresql_partition_by="RANGE (window_start)",
        comment="Packed usage cells per team (L1), by counter slot. Rank: 0 never reported; else as in"
        " usage_cells.rank_of.",
    )
    op.execute("alter table team_windows alter column quantities set storage main")
    op.execute("alter table team_windows alter column ranks set storage main")
    # fillfactor is a matter of partitions: the parent holds no rows.
    op.execute("create table team_windows_default partition of team_windows default with (fillfactor = 70)")
    start = FIRST_MONTH
    for _ in range(MONTHS):
        end = date(start.year + start.month // 12, start.month % 12 + 1, 1)
        op.execute(
            f"create table team_windows_{start:%Y_%m} partition of team_windows"
            f" for values from ('{start} 00:00:00+00') to ('{end} 00:00:00+00') with (fillfactor = 70)"
        )
        start = end
    op.create_table(
        "team_rebuilds",
        sa.Column("organization_id", sa.String, primary_key=True),
        sa.Column("window_start", INSTANT, primary_key=True),
        sa.Column("source", sa.String, primary_key=True),
        sa.Column("due_at", INSTANT, nullable=True),
        comment="Windows whose team rows must be made again because other reports count now; due_at null = at once,"
        " else once more, when reports that were still on their way have been kept.",
    )
    op.create_table(
        "further_licenses",
        sa.Column("license_id", sa.String, primary_key=True),
        sa.Column("organization_id", sa.String, primary_key=True),
        comment="Projection of customer snapshots: licenses beside its own that are billed on an organization's"
        " account.",
    )
    op.create_index("further_licenses_organization_idx", "further_licenses", ["organization_id"])


def downgrade() -> None:
    raise RuntimeError("migrations are not undone; restore a backup instead")
