"""Rows of corrections. Nothing here leaves the folder."""

from typing import Final

from sqlalchemy import Column, DateTime, LargeBinary, String, Table
from sqlalchemy.dialects.postgresql import JSONB

from quill_usage_ingest.store.tables import usage_metadata

_INSTANT: Final = DateTime(timezone=True)

corrections = Table(
    "corrections",
    usage_metadata,
    Column("organization_id", String, primary_key=True),
    Column("correction_id", String, primary_key=True),
    Column("content_hash", LargeBinary, nullable=False),
    Column("applied_at", _INSTANT, nullable=False),
    Column("document", JSONB, nullable=False),
    comment="What people corrected: the order, the reports it touched, what changed, and who took it back (L3, L20).",
)
