"""Which months of reports and cells were archived, and whether they are still here."""

from enum import StrEnum
from typing import Final

from sqlalchemy import BigInteger, Column, DateTime, String, Table
from sqlalchemy.dialects.postgresql import JSONB

from quill_usage_ingest.store.tables import usage_metadata


class ArchiveState(StrEnum):
    """Where the rows of an archived month are."""

    ARCHIVED = "archived"
    """Copied to files, and still in use here."""
    DETACHING = "detaching"
    """Being compared with the files; nobody reads or writes the month any more."""
    DETACHED = "detached"
    """In tables of their own, out of everybody's reach."""
    DROPPED = "dropped"
    """In the files alone."""


OUT_OF_REACH: Final = (ArchiveState.DETACHING, ArchiveState.DETACHED, ArchiveState.DROPPED)

archived_months: Final = Table(
    "archived_months",
    usage_metadata,
    Column("month", DateTime(timezone=True), primary_key=True),
    Column("state", String, nullable=False),
    Column("folder", String, nullable=False),
    Column("rows", BigInteger, nullable=False),
    Column("manifest", JSONB, nullable=False),
    Column("archived_at", DateTime(timezone=True), nullable=False),
    Column("detached_at", DateTime(timezone=True), nullable=True),
    comment="Months that were archived. Whoever reads or writes usage reads it first and so keeps a month from leaving"
    " until the transaction ends.",
)
