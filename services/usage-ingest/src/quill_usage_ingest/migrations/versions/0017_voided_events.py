"""A correction may take single meter events out of count."""

import sqlalchemy as sa
from alembic import op

revision = "usage_ingest_0017"
down_revision = "usage_ingest_0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("meter_events", sa.Column("voided_at", sa.DateTime(timezone=True), nullable=True))
    op.execute(
        "comment on table meter_events is 'Every event as received, exact bytes (L4, L5). Voided: a correction took it"
        " out of count (L3).'"
    )


def downgrade() -> None:
    raise RuntimeError("migrations are not undone; restore a backup instead")
