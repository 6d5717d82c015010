"""Raw reports and cells are partitioned by month, as team rows are; rows that are there move to their months."""

from datetime import UTC, datetime

import sqlalchemy as sa
from alembic import op

revision = "usage_ingest_0006"
down_revision = "usage_ingest_0005"
branch_labels = None
depends_on = None

AHEAD = 3
"""Months beyond the present one; the partitions job keeps making more."""
OLDEST = 120
"""Months back that get a partition if rows are there; what is older lies in the default partition."""
CELL_STORAGE = " with (fillfactor = 70)"


def upgrade() -> None:
    # Copied month by month: a statement for each, so that the time limit on statements is one on months.
    for table in ("usage_reports", "usage_windows"):
        op.execute(f"alter table {table} rename to {table}_before")
    # Names of keys belong to the schema: the new table wants them.
    op.execute("alter index usage_reports_pkey rename to usage_reports_before_pkey")
    op.execute("alter index usage_reports_content_key rename to usage_reports_before_content_key")
    op.execute("alter index usage_reports_window_idx rename to usage_reports_before_window_idx")
    op.execute("alter index usage_windows_pkey rename to usage_windows_before_pkey")

    op.execute("create sequence usage_report_ids as bigint")
    op.execute(
        "create table usage_reports (like usage_reports_before including storage)"
        " partition by range (window_start)"
    )
    op.execute("alter table usage_reports alter column id set default nextval('usage_report_ids')")
    op.execute("alter sequence usage_report_ids owned by usage_reports.id")
    # A key must name what the table is partitioned by. Ids stay unique since they come from one sequence; contents stay
    # unique since the hash of a content covers its window.
    op.execute("alter table usage_reports add constraint usage_reports_pkey primary key (id, window_start)")
    op.execute(
        "alter table usage_reports add constraint usage_reports_content_key"
        " unique (organization_id, source, report_id, content_hash, window_start)"
    )
    op.execute("create index usage_reports_window_idx on usage_reports (organization_id, window_start)")
    op.execute(
        "comment on table usage_reports is 'Every distinct report as received (zlib of the exact bytes) and what became"
        " of it (L4, L5).'"
    )
    op.execute(
        "create table usage_windows (like usage_windows_before including storage)"
        " partition by range (window_start)"
    )
    op.execute(
        "alter table usage_windows add constraint usage_windows_pkey"
        " primary key (organization_id, window_start, source)"
    )
    op.execute(
        "comment on table usage_windows is 'Packed usage cells (L1). Rank: 0 never reported; else bit 60 = complete,"
        " below it microseconds since 0001-01-01 UTC of the as-of instant, plus 1.'"
    )

    connection = op.get_bind()
    present = _month(connection.scalar(sa.text("select current_timestamp")))
    for table, storage in (("usage_reports", ""), ("usage_windows", CELL_STORAGE)):
        op.execute(f"create table {table}_default partition of {table} default{storage}")
        held = connection.execute(
            sa.text(f"select distinct date_trunc('month', window_start, 'UTC') from {table}_before")
        )
        months = {_month(row[0]) for row in held if row[0].year < 9000}
        oldest = present - OLDEST
        wanted = {month for month in months if oldest <= month <= present + AHEAD}
        for month in sorted(wanted | set(range(present, present + AHEAD + 1))):
            op.execute(
                f"create table {table}_{_text(month)[:7].replace('-', '_')} partition of {table}"
                f" for values from ('{_text(month)}') to ('{_text(month + 1)}'){storage}"
            )
        for month in sorted(months):
            op.execute(
                f"insert into {table} select * from {table}_before"
                f" where window_start >= '{_text(month)}' and window_start < '{_text(month + 1)}'"
            )
        op.execute(
            f"insert into {table} select * from {table}_before"
            " where date_trunc('month', window_start, 'UTC') >= '9000-01-01 UTC'"
        )
    op.execute("select setval('usage_report_ids', coalesce((select max(id) from usage_reports_before), 0) + 1, false)")
    for table in ("usage_reports", "usage_windows"):
        op.execute(f"drop table {table}_before")


def _month(instant: datetime) -> int:
    """Months since year 0."""
    utc = instant.astimezone(UTC)
    return utc.year * 12 + utc.month - 1


def _text(month: int) -> str:
    return f"{month // 12:04d}-{month % 12 + 1:02d}-01 00:00:00+00"


def downgrade() -> None:
    raise RuntimeError("migrations are not undone; restore a backup instead")
