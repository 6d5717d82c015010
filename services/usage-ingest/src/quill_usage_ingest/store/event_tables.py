"""Rows of meter events: their names for ever, the events by month, and what they add up to."""

from typing import Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Identity,
    Index,
    Integer,
    LargeBinary,
    Numeric,
    String,
    Table,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from quill_usage_ingest.store.tables import usage_metadata

_Instant = DateTime(timezone=True)


def _aggregate_columns() -> list[Column[object]]:
    """What a span comes to; numeric, because a recount may find more than a bigint holds."""
    return [
        Column("events", BigInteger, nullable=False),
        Column("quantity", Numeric, nullable=False),
        Column("first_at", _Instant, nullable=False),
        Column("first_name", LargeBinary, nullable=False),
        Column("last_at", _Instant, nullable=False),
        Column("last_name", LargeBinary, nullable=False),
    ]


event_names: Final = Table(
    "event_names",
    usage_metadata,
    Column("name", LargeBinary, primary_key=True),
    Column("content", LargeBinary, nullable=False),
    comment="Every event ever kept: hash of (organization, source, id) and of what it says. Never partitioned by time"
    " and never emptied: it is what makes a repeat a repeat after years.",
)

meter_events: Final = Table(
    "meter_events",
    usage_metadata,
    Column("organization_id", String, primary_key=True),
    Column("window_start", _Instant, primary_key=True),
    Column("event_time", _Instant, primary_key=True),
    Column("name", LargeBinary, primary_key=True),
    Column("event_type", String, nullable=False),
    Column("received_at", _Instant, nullable=False),
    Column("intake", String, nullable=False),
    Column("topic", String, nullable=True),
    Column("partition", Integer, nullable=True),
    Column("offset", BigInteger, nullable=True),
    Column("body", LargeBinary, nullable=False),
    Column("voided_at", _Instant, nullable=True),
    Index("meter_events_type_idx", "organization_id", "event_type", "event_time", "name"),
    postgresql_partition_by="RANGE (window_start)",
    comment="Every event as received, exact bytes (L4, L5). Voided: a correction took it out of count (L3).",
)

event_types: Final = Table(
    "event_types",
    usage_metadata,
    Column("event_type", String, primary_key=True),
    Column("organization_id", String, primary_key=True),
    comment="Which organizations ever sent events of a type: whom a new meter must be counted for.",
)

event_feeds: Final = Table(
    "event_feeds",
    usage_metadata,
    Column("feed_id", Integer, Identity(always=True), primary_key=True),
    Column("usage_key", String, nullable=False),
    Column("fingerprint", String, nullable=False),
    Column("definition", JSONB, nullable=False),
    Column("is_retired", Boolean, nullable=False, server_default=text("false")),
    Index("event_feeds_fingerprint_idx", "fingerprint", unique=True, postgresql_where=text("not is_retired")),
    comment="Event meters at work, as the catalog defines them. Defined otherwise, a meter is another feed.",
)

event_windows: Final = Table(
    "event_windows",
    usage_metadata,
    Column("feed_id", Integer, primary_key=True),
    Column("organization_id", String, primary_key=True),
    Column("window_start", _Instant, primary_key=True),
    Column("grouping", LargeBinary, primary_key=True),
    Column("dimensions", JSONB, nullable=False),
    *_aggregate_columns(),
    postgresql_with={"fillfactor": "70"},
    comment="What the events of a UTC hour come to: the whole (grouping empty) and each group (hash of its"
    " dimensions).",
)

event_periods: Final = Table(
    "event_periods",
    usage_metadata,
    Column("organization_id", String, primary_key=True),
    Column("feed_id", Integer, primary_key=True),
    Column("period_start", _Instant, primary_key=True),
    Column("period_end", _Instant, primary_key=True),
    *_aggregate_columns(),
    postgresql_with={"fillfactor": "70"},
    comment="What the windows of a billing period come to (L2, L3).",
)

event_values: Final = Table(
    "event_values",
    usage_metadata,
    Column("feed_id", Integer, primary_key=True),
    Column("organization_id", String, primary_key=True),
    Column("grouping", LargeBinary, primary_key=True),
    Column("value", LargeBinary, primary_key=True),
    Column("window_start", _Instant, primary_key=True),
    postgresql_partition_by="RANGE (window_start)",
    comment="Distinct values of unique_count meters, hashed, by window.",
)

event_recounts: Final = Table(
    "event_recounts",
    usage_metadata,
    Column("organization_id", String, primary_key=True),
    Column("feed_id", Integer, primary_key=True),
    Column("reached_at", _Instant, nullable=False),
    Column("reached_name", LargeBinary, nullable=False),
    comment="Organizations whose kept events are counted anew for a feed, and up to which event that is done.",
)
