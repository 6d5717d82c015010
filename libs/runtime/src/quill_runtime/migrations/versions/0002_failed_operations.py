"""An index of operations that were given up: operators list and count them among many that are done."""

import sqlalchemy as sa
from alembic import op

revision = "runtime_0002"
down_revision = "runtime_0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("operations_failed_idx", "operations", ["planned_at"], postgresql_where=sa.text("status = 'failed'"))


def downgrade() -> None:
    raise RuntimeError("migrations are not undone; restore a backup instead")
