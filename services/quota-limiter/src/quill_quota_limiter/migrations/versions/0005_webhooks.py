"""Webhook endpoints and what is on its way to them."""

import sqlalchemy as sa
from alembic import op

revision = "quota_limiter_0005"
down_revision = "quota_limiter_0004"
branch_labels = None
depends_on = None

INSTANT = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "webhook_endpoints",
        sa.Column("endpoint_id", sa.String, primary_key=True),
        sa.Column("url", sa.String, nullable=False),
        sa.Column("description", sa.String, nullable=False),
        sa.Column("events", sa.ARRAY(sa.String), nullable=False),
        sa.Column("organization_id", sa.String, nullable=True),
        sa.Column("sealed_secret", sa.String, nullable=False),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.Column("sealed_previous", sa.String, nullable=True),
        sa.Column("previous_until", INSTANT, nullable=True),
        sa.Column("disabled_because", sa.String, nullable=True),
        sa.Column("failing_since", INSTANT, nullable=True),
        comment="Where limits are told over HTTP, with the sealed secrets that sign.",
    )
    op.create_table(
        "webhook_deliveries",
        sa.Column("delivery_id", sa.String, primary_key=True),
        sa.Column("endpoint_id", sa.String, nullable=False),
        sa.Column("event", sa.String, nullable=False),
        sa.Column("organization_id", sa.String, nullable=False),
        sa.Column("body", sa.LargeBinary, nullable=False),
        sa.Column("planned_at", INSTANT, nullable=False),
        sa.Column("due_at", INSTANT, nullable=False),
        sa.Column("give_up_at", INSTANT, nullable=False),
        sa.Column("status", sa.String, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("finished_at", INSTANT, nullable=True),
        sa.Column("last_status", sa.Integer, nullable=True),
        sa.Column("last_error", sa.String, nullable=True),
        sa.Column("last_response", sa.String, nullable=True),
        comment="One row per fact and endpoint, there before anything is sent (L15).",
    )
    op.create_index(
        "webhook_deliveries_due_idx",
        "webhook_deliveries",
        ["endpoint_id", "due_at"],
        postgresql_where=sa.text("status = 'pending'"),
    )
    op.create_index("webhook_deliveries_shown_idx", "webhook_deliveries", ["status", "planned_at"])
    op.create_index("webhook_deliveries_of_endpoint_idx", "webhook_deliveries", ["endpoint_id", "status", "planned_at"])
    op.create_index("webhook_deliveries_finished_idx", "webhook_deliveries", ["finished_at"])


def downgrade() -> None:
    op.drop_table("webhook_deliveries")
    op.drop_table("webhook_endpoints")
