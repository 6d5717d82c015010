"""Limits of teams and projects: what was set and decided, what teams used, which team a token is of."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "quota_limiter_0006"
down_revision = "quota_limiter_0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("limit_states", sa.Column("scopes", postgresql.JSONB, nullable=True))
    # Known from each customer's next snapshot on; until then a token is bound by its organization's limit alone.
    op.add_column(
        "customers", sa.Column("teams", postgresql.JSONB, nullable=False, server_default=sa.text("'{}'::jsonb"))
    )
    op.add_column("project_tokens", sa.Column("team_id", sa.String, nullable=True))
    # Rewritten on every usage change of the team: room for the new version on the same page keeps it cheap.
    op.create_table(
        "team_usage",
        sa.Column("organization_id", sa.String, primary_key=True),
        sa.Column("team_id", sa.String, primary_key=True),
        sa.Column("revision", sa.BigInteger, nullable=False),
        sa.Column("periods", postgresql.JSONB, nullable=False),
        comment="Projection of usage.team-usage.v1: quantities of each team's newest billing periods.",
    )
    op.execute("alter table team_usage set (fillfactor = 70)")


def downgrade() -> None:
    op.drop_table("team_usage")
    op.drop_column("project_tokens", "team_id")
    op.drop_column("customers", "teams")
    op.drop_column("limit_states", "scopes")
