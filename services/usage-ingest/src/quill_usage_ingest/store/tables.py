"""Rows of the usage database. Nothing here leaves the folder."""

from typing import Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    DateTime,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Sequence,
    SmallInteger,
    String,
    Table,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

usage_metadata: Final = MetaData()

_Instant = DateTime(timezone=True)

organizations = Table(
    "organizations",
    usage_metadata,
    Column("organization_id", String, primary_key=True),
    Column("license_id", String, nullable=False),
    Column("customer_revision", BigInteger, nullable=False),
    Column("usage_revision", BigInteger, nullable=False, server_default=text("0")),
    Column("is_publication_due", Boolean, nullable=False, server_default=text("false")),
    Column("schedule_anchor", _Instant, nullable=False),
    Column("schedule_interval", String, nullable=False),
    Column("ended_schedules", JSONB(none_as_null=True), nullable=True),
    Column("customer", JSONB, nullable=False),
    Column("sources", ARRAY(String), nullable=False, server_default=text("'{}'::character varying[]")),
    Column("cuts", ARRAY(_Instant), nullable=False, server_default=text("'{}'::timestamptz[]")),
    Index("organizations_license_idx", "license_id"),
    Index("organizations_publication_due_idx", "organization_id", postgresql_where=text("is_publication_due")),
    comment="Projection of customer snapshots; its row lock orders all writers of one organization's usage.",
)

metered_products = Table(
    "metered_products",
    usage_metadata,
    Column("product_key", String, primary_key=True),
    Column("revision", BigInteger, nullable=False),
    Column("usage_key", String, nullable=True),
    Column("counter", String, nullable=True),
    Column("counts_from", _Instant, nullable=True),
    Column("event_meter", JSONB(none_as_null=True), nullable=True),
    comment="Projection of the catalog: which counter feeds which meter.",
)

counter_slots = Table(
    "counter_slots",
    usage_metadata,
    Column("name", String, primary_key=True),
    Column("slot", SmallInteger, nullable=False, unique=True, autoincrement=False),
    comment="Append-only: position of a counter in every packed array, from 0.",
)

usage_windows = Table(
    "usage_windows",
    usage_metadata,
    Column("organization_id", String, primary_key=True),
    Column("window_start", _Instant, primary_key=True),
    Column("source", String, primary_key=True),
    Column("window_end", _Instant, nullable=False),
    Column("quantities", ARRAY(BigInteger), nullable=False),
    Column("ranks", ARRAY(BigInteger), nullable=False),
    postgresql_partition_by="RANGE (window_start)",
    comment="Packed usage cells (L1). Rank: 0 never reported; else bit 60 = complete, below it microseconds since"
    " 0001-01-01 UTC of the as-of instant, plus 1. One rank for many quantities: that of each.",
)

period_usage = Table(
    "period_usage",
    usage_metadata,
    Column(
        "organization_id",
        String,
        ForeignKey("organizations.organization_id", name="period_usage_organization_fkey"),
        primary_key=True,
    ),
    Column("period_start", _Instant, primary_key=True),
    Column("period_end", _Instant, primary_key=True),
    Column("as_of", _Instant, nullable=False),
    Column("revision", BigInteger, nullable=False),
    Column("is_in_force", Boolean, nullable=False, server_default=text("true")),
    Column("is_late_usage_due", Boolean, nullable=False, server_default=text("false")),
    Column("complete", ARRAY(BigInteger), nullable=False),
    Column("partial", ARRAY(BigInteger), nullable=False),
    Column("maximum", ARRAY(BigInteger), nullable=False),
    Index("period_usage_late_due_idx", "organization_id", postgresql_where=text("is_late_usage_due")),
    postgresql_with={"fillfactor": "70", "toast_tuple_target": "8160"},
    comment="Period-to-date sums of the cells and their maxima (L2, L3), packed by counter slot; maximum -1 = never"
    " reported. Partial empty: all 0; maximum empty: complete + partial. Not in force: the schedule has moved away from"
    " this period.",
)

cut_usage = Table(
    "cut_usage",
    usage_metadata,
    Column("organization_id", String, primary_key=True),
    Column("period_start", _Instant, primary_key=True),
    Column("period_end", _Instant, primary_key=True),
    Column("cut_at", _Instant, primary_key=True),
    Column("counters", JSONB, nullable=False),
    Column("events", JSONB, nullable=False),
    comment="What was used in a period before a cut of it, by counter and by event meter; of counters the greatest"
    " value ever published, unless a correction lowered it (L3, L12).",
)

usage_reports = Table(
    "usage_reports",
    usage_metadata,
    Column("id", BigInteger, Sequence("usage_report_ids"), primary_key=True, autoincrement=True),
    Column("organization_id", String, nullable=False),
    Column("source", String, nullable=False),
    Column("report_id", String, nullable=False),
    Column("content_hash", LargeBinary, nullable=False),
    Column("window_start", _Instant, primary_key=True),
    Column("window_end", _Instant, nullable=False),
    Column("completeness", String, nullable=False),
    Column("as_of", _Instant, nullable=False),
    Column("received_at", _Instant, nullable=False),
    Column("intake", String, nullable=False),
    Column("topic", String, nullable=True),
    Column("partition", Integer, nullable=True),
    Column("offset", BigInteger, nullable=True),
    Column("verdict", String, nullable=False),
    Column("correction_actor", String, nullable=True),
    Column("correction_reason", String, nullable=True),
    Column("note", JSONB(none_as_null=True), nullable=True),
    Column("body", LargeBinary, nullable=False),
    Column("claim", LargeBinary, nullable=True),
    # A key must name what the table is partitioned by. That takes nothing from the others: an id comes from one
    # sequence, and the hash of a content covers its window, so of one content there is one window.
    UniqueConstraint(
        "organization_id", "source", "report_id", "content_hash", "window_start", name="usage_reports_content_key"
    ),
    Index("usage_reports_window_idx", "organization_id", "window_start"),
    postgresql_partition_by="RANGE (window_start)",
    comment="Every distinct report as received (the exact bytes, compressed) and what became of it (L4, L5).",
)
