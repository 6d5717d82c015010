"""The limiter's own tables; transitions live in the runtime's event table."""

from sqlalchemy import ARRAY, BigInteger, Boolean, Column, DateTime, Index, MetaData, String, Table, text
from sqlalchemy.dialects.postgresql import JSONB

metadata = MetaData()

_Instant = DateTime(timezone=True)

customers = Table(
    "customers",
    metadata,
    Column("organization_id", String, primary_key=True),
    Column("revision", BigInteger, nullable=False),
    Column("license_id", String, nullable=False),
    Column("anchor", _Instant, nullable=False),
    Column("interval", String, nullable=False),
    Column("entitlements", JSONB, nullable=False),
    Column("tokens", ARRAY(String), nullable=False),
    comment="Projection of subscriptions.customers.v1: what limits depend on, with quotas in units.",
)

period_usage = Table(
    "period_usage",
    metadata,
    Column("organization_id", String, primary_key=True),
    Column("revision", BigInteger, nullable=False),
    Column("periods", JSONB, nullable=False),
    comment="Projection of usage.period-usage.v1: quantities of the newest billing periods.",
)

limit_states = Table(
    "limit_states",
    metadata,
    Column("organization_id", String, primary_key=True),
    Column("revision", BigInteger, nullable=False, server_default=text("0")),
    Column("license_id", String, nullable=True),
    Column("tokens_revision", BigInteger, nullable=False, server_default=text("0")),
    Column("period_start", _Instant, nullable=True),
    Column("period_end", _Instant, nullable=True),
    Column("evaluated_at", _Instant, nullable=True),
    Column("next_evaluation_at", _Instant, nullable=True),
    Column("meters", JSONB, nullable=False, server_default=text("'{}'::jsonb")),
    Index("limit_states_due_idx", "next_evaluation_at"),
    comment="One row per organization: every limit state, and the lock under which evaluations take turns.",
)

project_tokens = Table(
    "project_tokens",
    metadata,
    Column("api_token", String, primary_key=True),
    Column("organization_id", String, nullable=False),
    Column("is_active", Boolean, nullable=False),
    Index("project_tokens_organization_idx", "organization_id"),
    comment="Each project token's organization; a retired one stays, so that its marks in Redis can be removed.",
)
