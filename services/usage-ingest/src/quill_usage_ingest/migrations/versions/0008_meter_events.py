"""Meter events: names for ever, events and distinct values by month, aggregates by hour and period."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "usage_ingest_0008"
down_revision = "usage_ingest_0007"
branch_labels = None
depends_on = None

INSTANT = sa.DateTime(timezone=True)
AHEAD = 3
"""Months beyond the present one; the partitions job keeps making more."""


def aggregate_columns() -> list[sa.Column]:
    return [
        sa.Column("events", sa.BigInteger, nullable=False),
        sa.Column("quantity", sa.Numeric, nullable=False),
        sa.Column("peak", sa.Numeric, nullable=False),
        sa.Column("first_at", INSTANT, nullable=False),
        sa.Column("first_name", sa.LargeBinary, nullable=False),
        sa.Column("last_at", INSTANT, nullable=False),
        sa.Column("last_name", sa.LargeBinary, nullable=False),
    ]


def upgrade() -> None:
    op.create_table(
        "event_names",
        sa.Column("name", sa.LargeBinary, primary_key=True),
        sa.Column("content", sa.LargeBinary, nullable=False),
        comment="Every event ever kept: hash of (organization, source, id) and of what it says. Never partitioned by"
        " time and never emptied: it is what makes a repeat a repeat after years.",
    )
    op.create_table(
        "meter_events",
        sa.Column("organization_id", sa.String, primary_key=True),
        sa.Column("window_start", INSTANT, primary_key=True),
        sa.Column("event_time", INSTANT, primary_key=True),
        sa.Column("name", sa.LargeBinary, primary_key=True),
        sa.Column("event_type", sa.String, nullable=False),
        sa.Column("received_at", INSTANT, nullable=False),
        sa.Column("intake", sa.String, nullable=False),
        sa.Column("topic", sa.String, nullable=True),
        sa.Column("partition", sa.Integer, nullable=True),
        sa.Column("offset", sa.BigInteger, nullable=True),
        sa.Column("body", sa.LargeBinary, nullable=False),
        postgresql_partition_by="RANGE (window_start)",
        comment="Every event as received, exact bytes (L4, L5).",
    )
    op.create_index("meter_events_type_idx", "meter_events", ["organization_id", "event_type", "event_time", "name"])
    op.create_table(
        "event_types",
        sa.Column("event_type", sa.String, primary_key=True),
        sa.Column("organization_id", sa.String, primary_key=True),
        comment="Which organizations ever sent events of a type: whom a new meter must be counted for.",
    )
    op.create_table(
        "event_feeds",
        sa.Column("feed_id", sa.Integer, sa.Identity(always=True), primary_key=True),
        sa.Column("usage_key", sa.String, nullable=False),
        sa.Column("fingerprint", sa.String, nullable=False),
        sa.Column("definition", postgresql.JSONB, nullable=False),
        sa.Column("is_retired", sa.Boolean, nullable=False, server_default=sa.text("false")),
        comment="Event meters at work, as the catalog defines them. Defined otherwise, a meter is another feed.",
    )
    op.create_index(
        "event_feeds_fingerprint_idx",
        "event_feeds",
        ["fingerprint"],
        unique=True,
        postgresql_where=sa.text("not is_retired"),
    )
    op.create_table(
        "event_windows",
        sa.Column("feed_id", sa.Integer, primary_key=True),
        sa.Column("organization_id", sa.String, primary_key=True),
        sa.Column("window_start", INSTANT, primary_key=True),
        sa.Column("grouping", sa.LargeBinary, primary_key=True),
        sa.Column("dimensions", postgresql.JSONB, nullable=False),
        *aggregate_columns(),
        postgresql_with={"fillfactor": "70"},
        comment="What the events of a UTC hour come to: the whole (grouping empty) and each group (hash of its"
        " dimensions).",
    )
    op.create_table(
        "event_periods",
        sa.Column("organization_id", sa.String, primary_key=True),
        sa.Column("feed_id", sa.Integer, primary_key=True),
        sa.Column("period_start", INSTANT, primary_key=True),
        sa.Column("period_end", INSTANT, primary_key=True),
        *aggregate_columns(),
        postgresql_with={"fillfactor": "70"},
        comment="What the windows of a billing period come to (L2, L3).",
    )
    op.create_table(
        "event_values",
        sa.Column("feed_id", sa.Integer, primary_key=True),
        sa.Column("organization_id", sa.String, primary_key=True),
        sa.Column("grouping", sa.LargeBinary, primary_key=True),
        sa.Column("value", sa.LargeBinary, primary_key=True),
        sa.Column("window_start", INSTANT, primary_key=True),
        postgresql_partition_by="RANGE (window_start)",
        comment="Distinct values of unique_count meters, hashed, by window.",
    )
    op.create_table(
        "event_recounts",
        sa.Column("organization_id", sa.String, primary_key=True),
        sa.Column("feed_id", sa.Integer, primary_key=True),
        sa.Column("reached_at", INSTANT, nullable=False),
        sa.Column("reached_name", sa.LargeBinary, nullable=False),
        comment="Organizations whose kept events are counted anew for a feed, and up to which event that is done.",
    )
    now = op.get_bind().scalar(sa.text("select current_timestamp at time zone 'UTC'"))
    first = now.year * 12 + now.month - 1
    for table in ("meter_events", "event_values"):
        op.execute(f"create table {table}_default partition of {table} default")
        for number in range(first, first + AHEAD + 1):
            start, end = month(number), month(number + 1)
            op.execute(
                f"create table {table}_{start.replace('-', '_')} partition of {table}"
                f" for values from ('{start}-01 00:00:00+00') to ('{end}-01 00:00:00+00')"
            )


def month(number: int) -> str:
    return f"{number // 12:04d}-{number % 12 + 1:02d}"


def downgrade() -> None:
    raise RuntimeError("migrations are not undone; restore a backup instead")
