"""Rows per team, what they add up to, and the licenses that are billed on somebody's account."""

from typing import Final

from sqlalchemy import BigInteger, Boolean, Column, DateTime, Index, String, Table, text
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

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
    Index("team_windows_team_idx", "organization_id", "team_id", "window_start"),
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

team_usage: Final = Table(
    "team_usage",
    usage_metadata,
    Column("organization_id", String, primary_key=True),
    Column("team_id", String, primary_key=True),
    Column("revision", BigInteger, nullable=False),
    Column("periods", JSONB, nullable=False),
    Column("is_publication_due", Boolean, nullable=False),
    Index("team_usage_due_idx", "organization_id", "team_id", postgresql_where=text("is_publication_due")),
    comment="Every team that has rows, with the snapshot last made of it: newest periods first, by meter complete and"
    " partial usage. Revision 0: none yet.",
)

team_usage_marks: Final = Table(
    "team_usage_marks",
    usage_metadata,
    Column("organization_id", String, primary_key=True),
    Column("team_id", String, primary_key=True),
    comment="Teams whose usage must be added up again.",
)

team_usage_sweeps: Final = Table(
    "team_usage_sweeps",
    usage_metadata,
    Column("organization_id", String, primary_key=True),
    Column("after_team_id", String, nullable=False),
    comment="Organizations whose teams must all be added up again; those up to after_team_id are marked.",
)

further_licenses: Final = Table(
    "further_licenses",
    usage_metadata,
    Column("license_id", String, primary_key=True),
    Column("organization_id", String, primary_key=True),
    Index("further_licenses_organization_idx", "organization_id"),
    comment="Projection of customer snapshots: licenses beside its own that are billed on an organization's account.",
)
