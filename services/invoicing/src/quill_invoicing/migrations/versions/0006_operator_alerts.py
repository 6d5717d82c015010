"""What an operator must know of the payment rail, and which products it rates for each customer."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "invoicing_0006"
down_revision = "invoicing_0005"
branch_labels = None
depends_on = None

INSTANT = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.add_column(
        "rail_customers",
        sa.Column("rated_from", postgresql.JSONB, nullable=False, server_default=sa.text("'{}'::jsonb")),
    )
    op.create_table(
        "operator_alerts",
        sa.Column("alert_id", sa.String, primary_key=True),
        sa.Column("kind", sa.String, nullable=False),
        sa.Column("subject", sa.String, nullable=False),
        sa.Column("detail", sa.String, nullable=False),
        sa.Column("first_seen_at", INSTANT, nullable=False),
        sa.Column("last_seen_at", INSTANT, nullable=False),
        sa.Column("count", sa.Integer, nullable=False),
        sa.Column("resolved_at", INSTANT, nullable=True),
        sa.Column("resolved_by", sa.String, nullable=True),
        sa.Column("reason", sa.String, nullable=True),
        comment="What an operator must know of the payment rail, until a named person resolves it.",
    )
    op.create_index(
        "operator_alerts_open_idx", "operator_alerts", ["last_seen_at"], postgresql_where=sa.text("resolved_at is null")
    )


def downgrade() -> None:
    raise RuntimeError("migrations are not undone; restore a backup instead")
