"""The limiter's own tables; transitions live in the runtime's event table."""

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Index,
    Integer,
    LargeBinary,
    MetaData,
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
    Column("license_id", String, nullable=False),
    Column("anchor", _Instant, nullable=False),
    Column("interval", String, nullable=False),
    Column("entitlements", JSONB, nullable=False),
    Column("tokens", ARRAY(String), nullable=False),
    Column("free_trial_until", _Instant, nullable=True),
    Column("prices", JSONB, nullable=False, server_default=text("'{}'::jsonb")),
    Column("teams", JSONB, nullable=False, server_default=text("'{}'::jsonb")),
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

team_usage = Table(
    "team_usage",
    metadata,
    Column("organization_id", String, primary_key=True),
    Column("team_id", String, primary_key=True),
    Column("revision", BigInteger, nullable=False),
    Column("periods", JSONB, nullable=False),
    comment="Projection of usage.team-usage.v1: quantities of each team's newest billing periods.",
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
    Column("thresholds", JSONB, nullable=False, server_default=text("'{}'::jsonb")),
    Column("scopes", JSONB(none_as_null=True), nullable=True),
    Column("spend_thresholds", JSONB, nullable=False, server_default=text("'{}'::jsonb")),
    Index("limit_states_due_idx", "next_evaluation_at"),
    comment="One row per organization: every limit state, and the lock under which evaluations take turns.",
)

project_tokens = Table(
    "project_tokens",
    metadata,
    Column("api_token", String, primary_key=True),
    Column("organization_id", String, nullable=False),
    Column("is_active", Boolean, nullable=False),
    Column("team_id", String, nullable=True),
    Index("project_tokens_organization_idx", "organization_id"),
    comment="Each project token's organization; a retired one stays, so that its marks in Redis can be removed.",
)

thresholds_reached = Table(
    "thresholds_reached",
    metadata,
    Column("reached_id", String, primary_key=True),
    Column("period_end", _Instant, nullable=False),
    Column("at", _Instant, nullable=False),
    Index("thresholds_reached_period_idx", "period_end"),
    comment="Each share of a quota and amount of cost that was told about: never twice.",
)

credit_balances = Table(
    "credit_balances",
    metadata,
    Column("organization_id", String, primary_key=True),
    Column("revision", BigInteger, nullable=False),
    Column("currency", String, nullable=False),
    Column("balance_minor", BigInteger, nullable=False),
    comment="Projection of invoicing.credits.v1.",
)

limit_rules = Table(
    "limit_rules",
    metadata,
    Column("version", BigInteger, primary_key=True, autoincrement=False),
    Column("document", JSONB, nullable=False),
    Column("created_at", _Instant, nullable=False),
    Column("created_by", String, nullable=False),
    Column("reason", String, nullable=False),
    comment="Every rule table there ever was; a version is added and never changed (L7).",
)

rules_standing = Table(
    "rules_standing",
    metadata,
    Column("is_the_one", Boolean, primary_key=True),
    Column("in_force", BigInteger, nullable=False),
    Column("shadow", BigInteger, nullable=True),
    Column("shadow_since", _Instant, nullable=True),
    Column("shadow_run", BigInteger, nullable=False),
    Column("last_shadow", BigInteger, nullable=True),
    Column("walked_to", String, nullable=True),
    Column("retired", ARRAY(BigInteger), nullable=False),
    CheckConstraint("is_the_one", name="rules_standing_is_one_row"),
    comment="One row: which rule version decides, which runs in the shadow, how far everybody was decided anew.",
)

shadow_limits = Table(
    "shadow_limits",
    metadata,
    Column("organization_id", String, primary_key=True),
    Column("run", BigInteger, nullable=False),
    Column("states", JSONB, nullable=False),
    comment="Limit states under the shadow table; rows of another run mean nothing.",
)

shadow_differences = Table(
    "shadow_differences",
    metadata,
    Column("run", BigInteger, primary_key=True, autoincrement=False),
    Column("organization_id", String, primary_key=True),
    Column("usage_key", String, primary_key=True),
    Column("live_sequence", BigInteger, primary_key=True, autoincrement=False),
    Column("shadow_sequence", BigInteger, primary_key=True, autoincrement=False),
    Column("version", BigInteger, nullable=False),
    Column("at", _Instant, nullable=False),
    Column("ended_at", _Instant, nullable=True),
    Column("live_state", String, nullable=False),
    Column("shadow_state", String, nullable=False),
    Column("live", JSONB, nullable=False),
    Column("shadow", JSONB, nullable=False),
    Column("evidence", JSONB, nullable=False),
    comment="Where the shadow table would have decided otherwise: one row per pair of states, bounded per run.",
)

drop_reports = Table(
    "drop_reports",
    metadata,
    Column("organization_id", String, primary_key=True),
    Column("report_id", String, primary_key=True),
    Column("usage_key", String, nullable=False),
    Column("source", String, nullable=False),
    Column("window_start", _Instant, nullable=False),
    Column("window_end", _Instant, nullable=False),
    Column("allowed", BigInteger, nullable=False),
    Column("dropped", BigInteger, nullable=False),
    Column("received_at", _Instant, nullable=False),
    Index("drop_reports_window_idx", "organization_id", "window_start"),
    comment="What a source let through and dropped of one meter in a window; one row per id.",
)

webhook_endpoints = Table(
    "webhook_endpoints",
    metadata,
    Column("endpoint_id", String, primary_key=True),
    Column("url", String, nullable=False),
    Column("description", String, nullable=False),
    Column("events", ARRAY(String), nullable=False),
    Column("organization_id", String, nullable=True),
    Column("sealed_secret", String, nullable=False),
    Column("created_at", _Instant, nullable=False),
    Column("sealed_previous", String, nullable=True),
    Column("previous_until", _Instant, nullable=True),
    Column("disabled_because", String, nullable=True),
    Column("failing_since", _Instant, nullable=True),
    comment="Where limits are told over HTTP, with the sealed secrets that sign.",
)

webhook_deliveries = Table(
    "webhook_deliveries",
    metadata,
    Column("delivery_id", String, primary_key=True),
    Column("endpoint_id", String, nullable=False),
    Column("event", String, nullable=False),
    Column("organization_id", String, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("planned_at", _Instant, nullable=False),
    Column("due_at", _Instant, nullable=False),
    Column("give_up_at", _Instant, nullable=False),
    Column("status", String, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("finished_at", _Instant, nullable=True),
    Column("last_status", Integer, nullable=True),
    Column("last_error", String, nullable=True),
    Column("last_response", String, nullable=True),
    Index("webhook_deliveries_due_idx", "endpoint_id", "due_at", postgresql_where=text("status = 'pending'")),
    Index("webhook_deliveries_shown_idx", "status", "planned_at"),
    Index("webhook_deliveries_of_endpoint_idx", "endpoint_id", "status", "planned_at"),
    Index("webhook_deliveries_finished_idx", "finished_at"),
    comment="One row per fact and endpoint, there before anything is sent (L15).",
)
