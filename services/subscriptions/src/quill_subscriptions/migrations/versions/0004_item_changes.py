"""What held of each item over the last billing periods, as the newest snapshot of its customer told it."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "subscriptions_0004"
down_revision = "subscriptions_0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "customers", sa.Column("item_changes", postgresql.JSONB, nullable=False, server_default=sa.text("'{}'"))
    )


def downgrade() -> None:
    raise RuntimeError("migrations are not undone; restore a backup instead")
