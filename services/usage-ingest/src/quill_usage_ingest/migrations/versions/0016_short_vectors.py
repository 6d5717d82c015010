"""Packed rows leave out what their other numbers tell, and are compressed only when a page cannot hold them."""

import sqlalchemy as sa
from alembic import op

revision = "usage_ingest_0016"
down_revision = "usage_ingest_0015"
branch_labels = None
depends_on = None

CELLS = ("usage_windows", "team_windows")


def upgrade() -> None:
    # Rows that are there stay as they are: they are read in either form, and written short when they change.
    op.execute("alter table period_usage set (toast_tuple_target = 8160)")
    partitions = op.get_bind().execute(
        sa.text("select c.oid::regclass::text from pg_inherits as i join pg_class as c on c.oid = i.inhrelid"
                " where i.inhparent = any(cast(cast(:tables as text[]) as regclass[]))"),
        {"tables": list(CELLS)},
    )
    for (partition,) in partitions.all():
        op.execute(f"alter table {partition} set (toast_tuple_target = 8160)")
    op.execute(
        "comment on table usage_windows is 'Packed usage cells (L1). Rank: 0 never reported; else bit 60 = complete,"
        " below it microseconds since 0001-01-01 UTC of the as-of instant, plus 1. One rank for many quantities: that"
        " of each.'"
    )
    op.execute(
        "comment on table period_usage is 'Period-to-date sums of the cells and their maxima (L2, L3), packed by"
        " counter slot; maximum -1 = never reported. Partial empty: all 0; maximum empty: complete + partial. Not in"
        " force: the schedule has moved away from this period.'"
    )


def downgrade() -> None:
    raise RuntimeError("migrations are not undone; restore a backup instead")
