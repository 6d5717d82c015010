"""Tables of licensing beside the runtime's. Facts in ``events`` are the truth; ``licenses`` follows from them."""

from sqlalchemy import Boolean, Column, DateTime, ForeignKey, Index, Integer, MetaData, String, Table, text

metadata = MetaData()

_Instant = DateTime(timezone=True)

licenses = Table(
    "licenses",
    metadata,
    Column("license_id", String(collation="C"), primary_key=True),  # pages follow byte order, in every installation
    Column("type", String, nullable=False),
    Column("status", String, nullable=False),
    Column("email", String, nullable=False),
    Column("organization_name", String, nullable=False),
    Column("source", String, nullable=False),
    Column("sealed_secret", String, nullable=False),
    Column("issued_at", _Instant, nullable=False),
    Column("revision", Integer, nullable=False),
    Column("organization_id", String, nullable=True),
    Column("revoked_at", _Instant, nullable=True),
    Column("revocation_reason", String, nullable=True),
    Index("licenses_email_idx", "email"),
    Index("licenses_active_source_key", "source", unique=True, postgresql_where=text("status = 'active'")),
    comment="Each license as its facts leave it. Two active licenses never stand for one source (L1).",
)

activations = Table(
    "activations",
    metadata,
    Column("license_id", String, ForeignKey("licenses.license_id"), primary_key=True),
    Column("organization_id", String, primary_key=True),
    Column("organization_name", String, nullable=False),
    Column("is_exclusive", Boolean, nullable=False),
    Column("first_seen_at", _Instant, nullable=False),
    Index("activations_one_customer_key", "license_id", unique=True, postgresql_where=text("is_exclusive")),
    comment="Which organizations a license is used for; a self-hosted license has one (L17).",
)

signup_buckets = Table(
    "signup_buckets",
    metadata,
    Column("bucket", String, primary_key=True),
    Column("full_at", _Instant, nullable=False),
    Index("signup_buckets_full_at_idx", "full_at"),
    comment="Token buckets of public signup, by hash of address or e-mail; a full one may be dropped.",
)
