"""What is being counted anew because the catalog says something else of a meter."""

from typing import Final

from sqlalchemy import BigInteger, Column, DateTime, SmallInteger, String, Table

from quill_usage_ingest.store.tables import usage_metadata

counter_recounts: Final = Table(
    "counter_recounts",
    usage_metadata,
    Column("id", SmallInteger, primary_key=True, autoincrement=False),
    Column("dated", String, nullable=False),
    Column("after_organization_id", String, nullable=True),
    comment="One row: the counters that count from a date on, and how far the recount of all organizations for them has"
    " come; null = through.",
)

usage_stand_ins: Final = Table(
    "usage_stand_ins",
    usage_metadata,
    Column("organization_id", String, primary_key=True),
    Column("usage_key", String, primary_key=True),
    Column("period_start", DateTime(timezone=True), primary_key=True),
    Column("period_end", DateTime(timezone=True), primary_key=True),
    Column("complete", BigInteger, nullable=False),
    Column("partial", BigInteger, nullable=False),
    Column("maximum", BigInteger, nullable=False),
    comment="What was published of meters that are counted anew: shown while the recount of the organization waits.",
)
