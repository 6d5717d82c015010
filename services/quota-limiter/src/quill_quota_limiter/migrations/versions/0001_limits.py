"""Customers, period usage, limit states, project tokens."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "quota_limiter_0001"
down_revision = None
branch_labels = None
depends_on = None

INSTANT = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "customers",
        sa.Column("organization_id", sa.String, primary_key=True),
        sa.Column("revision", sa.BigInteger, nullable=False),
        sa.Column("license_id", sa.String, nullable=False),
        sa.Column("anchor", INSTANT, nullable=False),
        sa.Column("interval", sa.String, nullable=False),
        sa.Column("entitlements", postgresql.JSONB, nullable=False),
        sa.Column("tokens", sa.ARRAY(sa.String), nullable=False),
        comment="Projection of subscriptions.customers.v1: what limits depend on, with quotas in units.",
    )
    op.create_table(
        "period_usage",
        sa.Column("organization_id", sa.String, primary_key=True),
        sa.Column("revision", sa.BigInteger, nullable=False),
        sa.Column("periods", postgresql.JSONB, nullable=False),
        comment="Projection of usage.period-usage.v1: quantities of the newest billing periods.",
    )
    # Rewritten on every usage change of the organization: room for the new version on the same page keeps it cheap.
    op.create_table(
        "limit_states",
        sa.Column("organization_id", sa.String, primary_key=True),
        sa.Column("revision", sa.BigInteger, nullable=False, server_default=sa.text("0")),
        sa.Column("license_id", sa.String, nullable=True),
        sa.Column("tokens_revision", sa.BigInteger, nullable=False, server_default=sa.text("0")),
        sa.Column("period_start", INSTANT, nullable=True),
        sa.Column("period_end", INSTANT, nullable=True),
        sa.Column("evaluated_at", INSTANT, nullable=True),
        sa.Column("next_evaluation_at", INSTANT, nullable=True),
        sa.Column("meters", postgresql.JSONB, nullable=False, server_default=sa.text("'{}'::jsonb")),
        comment="One row per organization: every limit state, and the lock under which evaluations take turns.",
    )
    op.execute("alter table limit_states set (fillfactor = 70)")
    op.create_index("limit_states_due_idx", "limit_states", ["next_evaluation_at"])
    op.create_table(
        "project_tokens",
        sa.Column("api_token", sa.String, primary_key=True),
        sa.Column("organization_id", sa.String, nullable=False),
        sa.Column("is_active", sa.Boolean, nullable=False),
        comment="Each project token's organization; a retired one stays, so that its marks in Redis can be removed.",
    )
    op.create_index("project_tokens_organization_idx", "project_tokens", ["organization_id"])


def downgrade() -> None:
    raise RuntimeError("the first migration is not undone; drop the database instead")
