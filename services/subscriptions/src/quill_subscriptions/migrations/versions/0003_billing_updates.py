"""Which regions are to be told of which customers."""

import sqlalchemy as sa
from alembic import op

revision = "subscriptions_0003"
down_revision = "subscriptions_0002"
branch_labels = None
depends_on = None

INSTANT = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "billing_updates",
        sa.Column("organization_id", sa.String, primary_key=True),
        sa.Column("license_id", sa.String, nullable=False),
        sa.Column("generation", sa.BigInteger, nullable=False),
        sa.Column("due_at", INSTANT),
        sa.Column("is_urgent", sa.Boolean, nullable=False, server_default=sa.text("false")),
        sa.Column("awaits_usage", sa.BigInteger),
        sa.Column("held_until", INSTANT),
        sa.Column("attempts", sa.Integer, nullable=False, server_default=sa.text("0")),
        sa.Column("sent_at", INSTANT),
        sa.Column("failed_at", INSTANT),
        sa.Column("error", sa.String),
        comment="A customer whose region is to be told of it (due_at), is being told (held_until), or was (sent_at).",
    )
    op.create_index(
        "billing_updates_due_idx", "billing_updates", ["due_at"], postgresql_where=sa.text("due_at is not null")
    )
    op.create_index(
        "billing_updates_failed_idx",
        "billing_updates",
        ["organization_id"],
        postgresql_where=sa.text("failed_at is not null"),
    )


def downgrade() -> None:
    raise RuntimeError("migrations are not undone; restore a backup instead")
