"""Rule tables as data, a shadow run beside them, credit balances, trials and prices of customers."""

import json

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "quota_limiter_0002"
down_revision = "quota_limiter_0001"
branch_labels = None
depends_on = None

INSTANT = sa.DateTime(timezone=True)
JSONB = postgresql.JSONB

VERSION_1 = {
    "near_percent": 80,
    "grace_days_by_trust": {"0": 0, "3": 0, "7": 1, "10": 3, "15": 5},
    "resources": {
        "ai_credits": {"is_exempt": True},
        "api_queries_read_bytes": {},
        "cdp_trigger_events": {},
        "events": {},
        "exceptions": {},
        "feature_flag_requests": {"minimum_grace_days": 2},
        "llm_events": {},
        "logs_mb_ingested": {},
        "posthog_code_credits": {"is_exempt": True},
        "recordings": {"buffer": 1000},
        "replay_vision_credits": {},
        "rows_exported": {},
        "rows_synced": {},
        "signals_credits": {"is_exempt": True},
        "survey_responses": {},
        "workflow_destinations_dispatched": {},
        "workflow_emails": {},
    },
}


def upgrade() -> None:
    op.create_table(
        "limit_rules",
        sa.Column("version", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("document", JSONB, nullable=False),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.Column("created_by", sa.String, nullable=False),
        sa.Column("reason", sa.String, nullable=False),
        comment="Every rule table there ever was; a version is added and never changed (L7).",
    )
    # The numbers of a past decision must be found again for ever, so the table refuses what would lose them.
    op.execute(
        "create function limit_rules_are_kept() returns trigger language plpgsql as $$"
        " begin raise exception 'limit_rules: a rule version is never changed or removed (L7)'; end $$"
    )
    op.execute(
        "create trigger limit_rules_kept before update or delete on limit_rules"
        " for each row execute function limit_rules_are_kept()"
    )
    op.create_table(
        "rules_standing",
        sa.Column("is_the_one", sa.Boolean, primary_key=True),
        sa.Column("in_force", sa.BigInteger, nullable=False),
        sa.Column("shadow", sa.BigInteger, nullable=True),
        sa.Column("shadow_since", INSTANT, nullable=True),
        sa.Column("shadow_run", sa.BigInteger, nullable=False),
        sa.Column("last_shadow", sa.BigInteger, nullable=True),
        sa.Column("walked_to", sa.String, nullable=True),
        sa.Column("retired", sa.ARRAY(sa.BigInteger), nullable=False),
        sa.CheckConstraint("is_the_one", name="rules_standing_is_one_row"),
        comment="One row: which rule version decides, which runs in the shadow, how far everybody was decided anew.",
    )
    connection = op.get_bind()
    connection.execute(
        sa.text(
            "insert into limit_rules (version, document, created_at, created_by, reason)"
            " values (1, cast(:document as jsonb), now(), 'migration', :reason)"
        ),
        {"document": json.dumps(VERSION_1), "reason": "PostHog's numbers"},
    )
    op.execute("insert into rules_standing (is_the_one, in_force, shadow_run, retired) values (true, 1, 0, '{}')")
    op.create_table(
        "shadow_limits",
        sa.Column("organization_id", sa.String, primary_key=True),
        sa.Column("run", sa.BigInteger, nullable=False),
        sa.Column("states", JSONB, nullable=False),
        comment="Limit states under the shadow table; rows of another run mean nothing.",
    )
    op.create_table(
        "shadow_differences",
        sa.Column("run", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("organization_id", sa.String, primary_key=True),
        sa.Column("usage_key", sa.String, primary_key=True),
        sa.Column("live_sequence", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("shadow_sequence", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("at", INSTANT, nullable=False),
        sa.Column("ended_at", INSTANT, nullable=True),
        sa.Column("live_state", sa.String, nullable=False),
        sa.Column("shadow_state", sa.String, nullable=False),
        sa.Column("live", JSONB, nullable=False),
        sa.Column("shadow", JSONB, nullable=False),
        sa.Column("evidence", JSONB, nullable=False),
        comment="Where the shadow table would have decided otherwise: one row per pair of states, bounded per run.",
    )
    op.create_table(
        "credit_balances",
        sa.Column("organization_id", sa.String, primary_key=True),
        sa.Column("revision", sa.BigInteger, nullable=False),
        sa.Column("currency", sa.String, nullable=False),
        sa.Column("balance_minor", sa.BigInteger, nullable=False),
        comment="Projection of invoicing.credits.v1.",
    )
    op.add_column("customers", sa.Column("free_trial_until", INSTANT, nullable=True))
    op.add_column("customers", sa.Column("prices", JSONB, nullable=False, server_default=sa.text("'{}'::jsonb")))


def downgrade() -> None:
    raise RuntimeError("rule versions explain past decisions and are not dropped; restore a backup instead")
