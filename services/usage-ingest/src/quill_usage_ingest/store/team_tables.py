"""Rows per team, and the licenses that are billed on somebody's account."""

from typing import Final

from sqlalchemy import BigInteger, Column, DateTime, Index, String, Table
from sqlalchemy.dialects.postgresql import ARRAY

from quill_usage_ingest.store.tables import usage_metadata

_Instant = DateTime(timezone=True)

team_windows: Final = Table(
    "team_windows",
    usage_metadata,
    Column("organization_id", String, primary_key=True),
    Column("window_start", _Instant, primary_key=True),
    Column("source", String, primary_key=True),
    Column("team_id", String, primary_key=True),
    Column("window_end", _Instant, nullable=False),
    Column("quantities", ARRAY(BigInteger), nullable=False),
    Column("ranks", ARRAY(BigInteger), nullable=False),
    postgresql_partition_by="RANGE (window_start)",
    comment="Packed usage cells per team (L1), by counter slot. Rank: 0 never reported; else as in"
    " usage_cells.rank_of.",
)

team_rebuilds: Final = Table(
    "team_rebuilds",
    usage_metadata,
    Column("organization_id", String, primary_key=True),
    Column("window_start", _Instant, primary_key=True),
    Column("source", String, primary_key=True),
    Column("due_at", _Instant, nullable=True),
    comment="Windows whose team rows must be made again because other reports count now; due_at null = at once, else"
    " once more, when reports that were still on their way have been kept.",
)

further_licenses: Final = Table(
    "further_licenses",
    usage_metadata,
    Column("license_id", String, primary_key=True),
    Column("organization_id", String, primary_key=True),
    Index("further_licenses_organization_idx", "organization_id"),
    comment="Projection of customer snapshots: licenses beside its own that are billed on an organization's account.",
)
