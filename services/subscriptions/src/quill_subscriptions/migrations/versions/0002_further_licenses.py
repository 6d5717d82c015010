"""A license may be bound to an account beside the account's own."""

import sqlalchemy as sa
from alembic import op

revision = "subscriptions_0002"
down_revision = "subscriptions_0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "license_bindings", sa.Column("is_further", sa.Boolean, nullable=False, server_default=sa.text("false"))
    )
    op.drop_constraint("license_bindings_organization_key", "license_bindings", type_="unique")
    op.create_index(
        "license_bindings_organization_key",
        "license_bindings",
        ["organization_id"],
        unique=True,
        postgresql_where=sa.text("not is_further"),
    )


def downgrade() -> None:
    raise RuntimeError("migrations are not undone; restore a backup instead")
