"""The service's own tables. Events, outbox and positions are the runtime's."""

from sqlalchemy import BigInteger, Boolean, Column, DateTime, Index, Integer, MetaData, String, Table, text
from sqlalchemy.dialects.postgresql import JSONB

metadata = MetaData()

_Instant = DateTime(timezone=True)

catalog_versions = Table(
    "catalog_versions",
    metadata,
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("effective_at", _Instant, nullable=False),
    Column("adopted_at", _Instant, nullable=False),
    Column("products", JSONB, nullable=False),
    comment="Each catalog that came into force: its products as [key, revision] in the order of the file.",
)

catalog_products = Table(
    "catalog_products",
    metadata,
    Column("product_key", String, primary_key=True),
    Column("revision", Integer, primary_key=True, autoincrement=False),
    Column("document", JSONB, nullable=False),
    comment="Every revision of every product; never changed, because subscriptions hold on to theirs.",
)

customers = Table(
    "customers",
    metadata,
    Column("organization_id", String, primary_key=True),
    Column("license_id", String, nullable=False),
    Column("stream_version", Integer, nullable=False),
    Column("revision", BigInteger, nullable=False),
    Column("catalog_version", Integer, nullable=False),
    Column("effective_at", _Instant, nullable=False),
    Column("refresh_at", _Instant, nullable=False),
    Column("updated_at", _Instant, nullable=False),
    Column("state", JSONB, nullable=False),
    Column("members", JSONB, nullable=False),
    Column("item_changes", JSONB, nullable=False, server_default=text("'{}'")),
    Index("customers_refresh_idx", "refresh_at"),
    Index("customers_catalog_idx", "catalog_version"),
    Index("customers_license_idx", "license_id"),
    comment="Projection of each customer's events; revision is that of its newest published snapshot.",
)

license_bindings = Table(
    "license_bindings",
    metadata,
    Column("license_id", String, primary_key=True),
    Column("organization_id", String, nullable=False),
    Column("bound_at", _Instant, nullable=False),
    Column("is_further", Boolean, nullable=False, server_default=text("false")),
    Index("license_bindings_organization_key", "organization_id", unique=True, postgresql_where=text("not is_further")),
    comment="A license that is not a region's belongs to exactly one organization, the first it named (L17).",
)

period_usage = Table(
    "period_usage",
    metadata,
    Column("organization_id", String, primary_key=True),
    Column("revision", BigInteger, nullable=False),
    Column("snapshot", JSONB, nullable=False),
    comment="Copy of usage.period-usage.v1; the highest revision holds.",
)

billing_updates = Table(
    "billing_updates",
    metadata,
    Column("organization_id", String, primary_key=True),
    Column("license_id", String, nullable=False),
    Column("generation", BigInteger, nullable=False),
    Column("due_at", _Instant),
    Column("is_urgent", Boolean, nullable=False, server_default=text("false")),
    Column("awaits_usage", BigInteger),
    Column("held_until", _Instant),
    Column("attempts", Integer, nullable=False, server_default=text("0")),
    Column("sent_at", _Instant),
    Column("failed_at", _Instant),
    Column("error", String),
    Index("billing_updates_due_idx", "due_at", postgresql_where=text("due_at is not null")),
    Index("billing_updates_failed_idx", "organization_id", postgresql_where=text("failed_at is not null")),
    comment="A customer whose region is to be told of it (due_at), is being told (held_until), or was (sent_at).",
)
