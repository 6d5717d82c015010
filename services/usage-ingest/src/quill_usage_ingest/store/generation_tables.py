"""Rows of the comparison of report generations. Nothing here leaves the folder."""

from typing import Final

from sqlalchemy import BigInteger, Column, Date, DateTime, Identity, Index, Integer, LargeBinary, String, Table
from sqlalchemy.dialects.postgresql import JSONB

from quill_usage_ingest.store.tables import usage_metadata

_INSTANT: Final = DateTime(timezone=True)

generation_marks: Final = Table(
    "generation_marks",
    usage_metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("organization_id", String, nullable=False),
    Column("day", _INSTANT, nullable=False),
    Column("source", String, nullable=False),
    comment="Days of which either generation said something new, to be compared. Only ever added to and taken from,"
    " so that no writer waits for a comparison.",
)

generation_comparisons: Final = Table(
    "generation_comparisons",
    usage_metadata,
    Column("organization_id", String, primary_key=True),
    Column("day", Date, primary_key=True),
    Column("source", String, primary_key=True),
    Column("state", String, nullable=False),
    Column("differing", Integer, nullable=False),
    Column("differences", JSONB, nullable=False),
    Column("fingerprint", LargeBinary, nullable=False),
    Column("v1_report", BigInteger, nullable=True),
    Column("v2_report", BigInteger, nullable=True),
    Column("compared_at", _INSTANT, nullable=False),
    Column("accepted_by", String, nullable=True),
    Column("accepted_reason", String, nullable=True),
    Column("accepted_at", _INSTANT, nullable=True),
    Index("generation_comparisons_day_idx", "day", "source", "state"),
    comment="What the newest complete reports of v1 and v2 say of one organization and day: [[counter, v1, v2], ...],"
    " the first fifty of the differing ones. An acceptance falls when the difference becomes another one.",
)
