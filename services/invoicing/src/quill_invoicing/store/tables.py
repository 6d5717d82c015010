"""Rows. They never leave this folder."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    DateTime,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Numeric,
    String,
    Table,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

metadata = MetaData()

_Instant = DateTime(timezone=True)

customers = Table(
    "customers",
    metadata,
    Column("organization_id", String, primary_key=True),
    Column("revision", BigInteger, nullable=False),
    Column("open_period_start", _Instant, nullable=False),
    Column("open_period_end", _Instant, nullable=False),
    Column("held_period_start", _Instant, nullable=True),
    Index("customers_open_period_end_idx", "open_period_end"),
    comment="One row per customer: the newest snapshot seen and the billing period that is to be closed next.",
)

customer_terms = Table(
    "customer_terms",
    metadata,
    Column("organization_id", String, primary_key=True),
    Column("revision", BigInteger, primary_key=True),
    Column("effective_at", _Instant, nullable=False),
    Column("terms", JSONB, nullable=False),
    comment="Each version of a customer's terms that changed money; append-only (L12).",
)

usage_periods = Table(
    "usage_periods",
    metadata,
    Column("organization_id", String, primary_key=True),
    Column("period_start", _Instant, primary_key=True),
    Column("period_end", _Instant, nullable=False),
    Column("revision", BigInteger, nullable=False),
    Column("customer_revision", BigInteger, nullable=False),
    Column("meters", JSONB, nullable=False),
    Column("cuts", JSONB, nullable=False),
    comment="What the newest usage snapshot says of each period: totals, and what was used before each cut (L12).",
)

closed_periods = Table(
    "closed_periods",
    metadata,
    Column("organization_id", String, primary_key=True),
    Column("period_start", _Instant, primary_key=True),
    Column("period_end", _Instant, nullable=False),
    Column("closed_at", _Instant, nullable=False),
    Column("usage_revision", BigInteger, nullable=False),
    Column("invoice_id", String, nullable=True),
    Column("billed", JSONB, nullable=False),
    Column("waivers", JSONB, nullable=False, server_default=text("'[]'::jsonb")),
    comment="The closing of a period as a fact: its cut-off and what was billed of each product. One per period.",
)

usage_sources = Table(
    "usage_sources",
    metadata,
    Column("source", String, primary_key=True),
    Column("revision", BigInteger, nullable=False),
    Column("document", JSONB, nullable=False),
    comment="Projection of usage.sources.v1: how far each source has told everything, and what was waived.",
)

organization_sources = Table(
    "organization_sources",
    metadata,
    Column("organization_id", String, primary_key=True),
    Column("sources", JSONB, nullable=False),
    comment="Every source that ever reported for an organization, as its usage snapshots name them.",
)

held_closings = Table(
    "held_closings",
    metadata,
    Column("organization_id", String, primary_key=True),
    Column("period_start", _Instant, primary_key=True),
    Column("period_end", _Instant, nullable=False),
    Column("missing", JSONB, nullable=False),
    Column("since", _Instant, nullable=False),
    Column("look_again_at", _Instant, nullable=False),
    comment="Periods whose grace has passed and that wait for expected sources; gone once they are closed.",
)

late_usage = Table(
    "late_usage",
    metadata,
    Column("organization_id", String, primary_key=True),
    Column("period_start", _Instant, primary_key=True),
    Column("product_key", String, primary_key=True),
    Column("revision", BigInteger, primary_key=True),
    Column("quantity_before", BigInteger, nullable=False),
    Column("quantity_after", BigInteger, nullable=False),
    Column("recorded_at", _Instant, nullable=False),
    Column("invoice_id", String, nullable=True),
    ForeignKeyConstraint(
        ["organization_id", "period_start"], ["closed_periods.organization_id", "closed_periods.period_start"]
    ),
    Index("late_usage_unsettled_idx", "organization_id", postgresql_where=text("invoice_id is null")),
    comment="Usage that came after its period was closed, until an adjustment line bills it (L13).",
)

invoice_numbers = Table(
    "invoice_numbers",
    metadata,
    Column("year", Integer, primary_key=True, autoincrement=False),
    Column("last_sequence", Integer, nullable=False),
    comment="Last invoice number given per year; taken in the closing's transaction, so that none is ever missing.",
)

invoices = Table(
    "invoices",
    metadata,
    Column("invoice_id", String, primary_key=True),
    Column("number", String, nullable=False, unique=True),
    Column("organization_id", String, nullable=False),
    Column("customer_id", String, nullable=False),
    Column("revision", BigInteger, nullable=False),
    Column("status", String, nullable=False),
    Column("currency", String, nullable=False),
    Column("collection_mode", String, nullable=False),
    Column("period_start", _Instant, nullable=False),
    Column("period_end", _Instant, nullable=False),
    Column("usage_revision", BigInteger, nullable=False),
    Column("total_minor", BigInteger, nullable=False),
    Column("created_at", _Instant, nullable=False),
    Column("finalized_at", _Instant, nullable=True),
    Column("settled_at", _Instant, nullable=True),
    Column("rail_invoice", String, nullable=True),
    Column("reconciliation", String, nullable=False),
    Column("collection_problem", String, nullable=True),
    Index("invoices_organization_period_key", "organization_id", "period_start", unique=True),
    Index("invoices_rail_invoice_key", "rail_invoice", unique=True),
    comment="One invoice per organization and billing period; frozen by triggers once finalized (L13).",
)

invoice_lines = Table(
    "invoice_lines",
    metadata,
    Column("invoice_id", String, ForeignKey("invoices.invoice_id"), primary_key=True),
    Column("position", Integer, primary_key=True, autoincrement=False),
    Column("kind", String, nullable=False),
    Column("product_key", String, nullable=False),
    Column("usage_key", String, nullable=True),
    Column("description", String, nullable=False),
    Column("quantity", BigInteger, nullable=False),
    Column("unit_amount", Numeric, nullable=False),
    Column("amount_minor", BigInteger, nullable=False),
    Column("service_period_start", _Instant, nullable=False),
    Column("service_period_end", _Instant, nullable=False),
    Column("tier", Integer, nullable=True),
    comment="Lines in minor units, written with the draft and never changed after it is finalized (L11, L13).",
)

reconciliations = Table(
    "reconciliations",
    metadata,
    Column("reconciliation_id", String, primary_key=True),
    Column("organization_id", String, nullable=False),
    Column("invoice_id", String, ForeignKey("invoices.invoice_id"), nullable=False, unique=True),
    Column("compared_at", _Instant, nullable=False),
    Column("our_total_minor", BigInteger, nullable=False),
    Column("rail_total_minor", BigInteger, nullable=False),
    Column("is_equal", Boolean, nullable=False),
    Column("differences", JSONB, nullable=False),
    Column("accepted_by", String, nullable=True),
    Column("accepted_reason", String, nullable=True),
    Column("accepted_at", _Instant, nullable=True),
    Index("reconciliations_different_idx", "compared_at", postgresql_where=text("not is_equal")),
    comment="Our invoice against the rail's; every difference with its class and who accepted it (L16).",
)

credit_entries = Table(
    "credit_entries",
    metadata,
    Column("entry_id", String, primary_key=True),
    Column("organization_id", String, nullable=False),
    Column("currency", String, nullable=False),
    Column("kind", String, nullable=False),
    Column("amount_minor", BigInteger, nullable=False),
    Column("invoice_id", String, ForeignKey("invoices.invoice_id"), nullable=False),
    Column("recorded_at", _Instant, nullable=False),
    Index("credit_entries_organization_idx", "organization_id", "currency"),
    comment="Changes of what a customer is owed, per currency; append-only, the balance is their sum.",
)

rail_customers = Table(
    "rail_customers",
    metadata,
    Column("organization_id", String, primary_key=True),
    Column("customer", String, nullable=False, unique=True),
    Column("subscription", String, nullable=True),
    Column("subscribed_revision", BigInteger, nullable=True),
    Column("billed_from", _Instant, nullable=True),
    Column("rated_from", JSONB, nullable=False, server_default=text("'{}'::jsonb")),
    comment="The customer and subscription at the payment rail, and the terms' revision the latter was last set to.",
)

operator_alerts = Table(
    "operator_alerts",
    metadata,
    Column("alert_id", String, primary_key=True),
    Column("kind", String, nullable=False),
    Column("subject", String, nullable=False),
    Column("detail", String, nullable=False),
    Column("first_seen_at", _Instant, nullable=False),
    Column("last_seen_at", _Instant, nullable=False),
    Column("count", Integer, nullable=False),
    Column("resolved_at", _Instant, nullable=True),
    Column("resolved_by", String, nullable=True),
    Column("reason", String, nullable=True),
    Index("operator_alerts_open_idx", "last_seen_at", postgresql_where=text("resolved_at is null")),
    comment="What an operator must know of the payment rail, until a named person resolves it.",
)

meter_reports = Table(
    "meter_reports",
    metadata,
    Column("organization_id", String, primary_key=True),
    Column("product_key", String, primary_key=True),
    Column("period_start", _Instant, primary_key=True),
    Column("quantity", BigInteger, nullable=False),
    Column("stamped_at", _Instant, nullable=False),
    Column("looked_at", _Instant, nullable=False),
    comment="The last report planned per customer and product: timestamps must rise strictly.",
)

webhook_events = Table(
    "webhook_events",
    metadata,
    Column("event_id", String, primary_key=True),
    Column("type", String, nullable=False),
    Column("api_version", String, nullable=True),
    Column("object_id", String, nullable=True),
    Column("created", _Instant, nullable=False),
    Column("raw", LargeBinary, nullable=False),
    Column("received_at", _Instant, nullable=False),
    Column("attempts", Integer, nullable=False, server_default=text("0")),
    Column("due_at", _Instant, nullable=False),
    Column("processed_at", _Instant, nullable=True),
    Column("outcome", String, nullable=True),
    Index("webhook_events_due_idx", "due_at", postgresql_where=text("processed_at is null")),
    comment="Webhooks as they came, verified; acted upon later by fetching the object's current state (L19).",
)
