"""Where the period ended that an observation was made of: a changed schedule may cut it afterwards (L21)."""

import sqlalchemy as sa
from alembic import op

revision = "invoicing_0003"
down_revision = "invoicing_0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("usage_observations", sa.Column("period_end", sa.DateTime(timezone=True), nullable=True))


def downgrade() -> None:
    raise RuntimeError("migrations are not undone; restore a backup instead")
