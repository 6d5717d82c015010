"""Rows of sources: what is known of each, watermarks that wait, and which reports are parked."""

from typing import Final

from sqlalchemy import BigInteger, Boolean, Column, DateTime, Identity, Index, Integer, String, Table, text
from sqlalchemy.dialects.postgresql import JSONB

from quill_usage_ingest.store.tables import usage_metadata

_Instant = DateTime(timezone=True)

usage_sources: Final = Table(
    "usage_sources",
    usage_metadata,
    Column("source", String, primary_key=True),
    Column("version", Integer, nullable=False, server_default=text("0")),
    Column("revision", BigInteger, nullable=False, server_default=text("0")),
    Column("parked", Integer, nullable=False, server_default=text("0")),
    Column("is_expected", Boolean, nullable=False, server_default=text("false")),
    Column("silent_since", _Instant, nullable=True),
    Column("document", JSONB, nullable=False, server_default=text("'{}'::jsonb")),
    comment="The fold of each source's events (L20), with its published revision and its parked reports.",
)

watermark_claims: Final = Table(
    "watermark_claims",
    usage_metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("source", String, nullable=False),
    Column("claim", JSONB, nullable=False),
    Column("fence", JSONB(none_as_null=True), nullable=True),
    Column("claimed_at", _Instant, nullable=False),
    comment="Words of sources that wait until what they speak for has been entered and published: the fence is where"
    " the logs of reports ended when the word was there.",
)

parked_reports: Final = Table(
    "parked_reports",
    usage_metadata,
    Column("letter_id", BigInteger, primary_key=True, autoincrement=False),
    Column("is_read", Boolean, nullable=False, server_default=text("false")),
    Column("source", String, nullable=True),
    Column("organization_id", String, nullable=True),
    Column("window_start", _Instant, nullable=True),
    Column("parked_at", _Instant, nullable=False),
    Column("replayed_at", _Instant, nullable=True),
    Column("fence", JSONB(none_as_null=True), nullable=True),
    Column("gone_at", _Instant, nullable=True),
    Index("parked_reports_unread_idx", "letter_id", postgresql_where=text("not is_read")),
    Index(
        "parked_reports_replayed_idx", "letter_id", postgresql_where=text("replayed_at is not null and gone_at is null")
    ),
    Index("parked_reports_organization_idx", "organization_id", postgresql_where=text("gone_at is null")),
    comment="Of which source and organization each dead letter is, written by a trigger on dead_letters and read by a"
    " job; gone once it was sent again and read again.",
)
