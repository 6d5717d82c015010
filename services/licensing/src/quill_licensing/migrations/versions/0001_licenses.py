"""Licenses, activations, signup buckets."""

import sqlalchemy as sa
from alembic import op

revision = "licensing_0001"
down_revision = None
branch_labels = None
depends_on = None

INSTANT = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "licenses",
        sa.Column("license_id", sa.String(collation="C"), primary_key=True),
        sa.Column("type", sa.String, nullable=False),
        sa.Column("status", sa.String, nullable=False),
        sa.Column("email", sa.String, nullable=False),
        sa.Column("organization_name", sa.String, nullable=False),
        sa.Column("source", sa.String, nullable=False),
        sa.Column("sealed_secret", sa.String, nullable=False),
        sa.Column("issued_at", INSTANT, nullable=False),
        sa.Column("revision", sa.Integer, nullable=False),
        sa.Column("organization_id", sa.String, nullable=True),
        sa.Column("revoked_at", INSTANT, nullable=True),
        sa.Column("revocation_reason", sa.String, nullable=True),
        comment="Each license as its facts leave it. Two active licenses never stand for one source (L1).",
    )
    op.create_index("licenses_email_idx", "licenses", ["email"])
    op.create_index(
        "licenses_active_source_key",
        "licenses",
        ["source"],
        unique=True,
        postgresql_where=sa.text("status = 'active'"),
    )
    op.create_table(
        "activations",
        sa.Column("license_id", sa.String, sa.ForeignKey("licenses.license_id"), primary_key=True),
        sa.Column("organization_id", sa.String, primary_key=True),
        sa.Column("organization_name", sa.String, nullable=False),
        sa.Column("is_exclusive", sa.Boolean, nullable=False),
        sa.Column("first_seen_at", INSTANT, nullable=False),
        comment="Which organizations a license is used for; a self-hosted license has one (L17).",
    )
    op.create_index(
        "activations_one_customer_key",
        "activations",
        ["license_id"],
        unique=True,
        postgresql_where=sa.text("is_exclusive"),
    )
    op.create_table(
        "signup_buckets",
        sa.Column("bucket", sa.String, primary_key=True),
        sa.Column("full_at", INSTANT, nullable=False),
        comment="Token buckets of public signup, by hash of address or e-mail; a full one may be dropped.",
    )
    op.create_index("signup_buckets_full_at_idx", "signup_buckets", ["full_at"])
