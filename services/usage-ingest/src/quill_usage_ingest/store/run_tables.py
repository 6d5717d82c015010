"""Rows of report runs."""

from typing import Final

from sqlalchemy import BigInteger, Column, DateTime, Index, Integer, LargeBinary, String, Table, text
from sqlalchemy.dialects.postgresql import JSONB

from quill_usage_ingest.store.tables import usage_metadata

report_runs: Final = Table(
    "report_runs",
    usage_metadata,
    Column("run_id", String, primary_key=True),
    Column("source", String, nullable=False),
    Column("run", JSONB, nullable=False),
    Column("state", String, nullable=False),
    Column("chunk", Integer, nullable=False, server_default=text("0")),
    Column("line", BigInteger, nullable=False, server_default=text("0")),
    Column("lines_sent", BigInteger, nullable=False, server_default=text("0")),
    Column("attempts", Integer, nullable=False, server_default=text("0")),
    Column("due_at", DateTime(timezone=True), nullable=False),
    Column("arrived_at", DateTime(timezone=True), nullable=False),
    Column("reason", String, nullable=True),
    Column("topic", String, nullable=False),
    Column("partition", Integer, nullable=False),
    Column("offset", BigInteger, nullable=False),
    Column("value", LargeBinary, nullable=False),
    Index("report_runs_due_idx", "due_at", postgresql_where=text("state = 'due'")),
    comment="Runs of generation v2: due, done or failed, and how far each was copied; a lease moves due_at ahead.",
)
