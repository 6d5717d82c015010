"""Catalog, customers, license bindings, the copy of usage."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "subscriptions_0001"
down_revision = None
branch_labels = None
depends_on = None

INSTANT = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "catalog_versions",
        sa.Column("version", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("effective_at", INSTANT, nullable=False),
        sa.Column("adopted_at", INSTANT, nullable=False),
        sa.Column("products", postgresql.JSONB, nullable=False),
        comment="Each catalog that came into force: its products as [key, revision] in the order of the file.",
    )
    op.create_table(
        "catalog_products",
        sa.Column("product_key", sa.String, primary_key=True),
        sa.Column("revision", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("document", postgresql.JSONB, nullable=False),
        comment="Every revision of every product; never changed, because subscriptions hold on to theirs.",
    )
    op.create_table(
        "customers",
        sa.Column("organization_id", sa.String, primary_key=True),
        sa.Column("license_id", sa.String, nullable=False),
        sa.Column("stream_version", sa.Integer, nullable=False),
        sa.Column("revision", sa.BigInteger, nullable=False),
        sa.Column("catalog_version", sa.Integer, nullable=False),
        sa.Column("effective_at", INSTANT, nullable=False),
        sa.Column("refresh_at", INSTANT, nullable=False),
        sa.Column("updated_at", INSTANT, nullable=False),
        sa.Column("state", postgresql.JSONB, nullable=False),
        sa.Column("members", postgresql.JSONB, nullable=False),
        comment="Projection of each customer's events; revision is that of its newest published snapshot.",
    )
    op.create_index("customers_refresh_idx", "customers", ["refresh_at"])
    op.create_index("customers_catalog_idx", "customers", ["catalog_version"])
    op.create_index("customers_license_idx", "customers", ["license_id"])
    op.create_table(
        "license_bindings",
        sa.Column("license_id", sa.String, primary_key=True),
        sa.Column("organization_id", sa.String, nullable=False),
        sa.Column("bound_at", INSTANT, nullable=False),
        sa.UniqueConstraint("organization_id", name="license_bindings_organization_key"),
        comment="A license that is not a region's belongs to exactly one organization, the first it named (L17).",
    )
    op.create_table(
        "period_usage",
        sa.Column("organization_id", sa.String, primary_key=True),
        sa.Column("revision", sa.BigInteger, nullable=False),
        sa.Column("snapshot", postgresql.JSONB, nullable=False),
        comment="Copy of usage.period-usage.v1; the highest revision holds.",
    )


def downgrade() -> None:
    for table in ("period_usage", "license_bindings", "customers", "catalog_products", "catalog_versions"):
        op.drop_table(table)
