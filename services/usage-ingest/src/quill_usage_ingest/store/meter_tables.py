"""What is being counted anew because the catalog says something else of a meter."""

from typing import Final

from sqlalchemy import Column, SmallInteger, String, Table

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
