"""Runs of chunk files and how far each was read."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "usage_ingest_0003"
down_revision = "usage_ingest_0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "report_runs",
        sa.Column("run_id", sa.String, primary_key=True),
        sa.Column("source", sa.String, nullable=False),
        sa.Column("run", postgresql.JSONB, nullable=False),
        sa.Column("state", sa.String, nullable=False),
        sa.Column("chunk", sa.Integer, nullable=False, server_default=sa.text("0")),
        sa.Column("line", sa.BigInteger, nullable=False, server_default=sa.text("0")),
        sa.Column("lines_sent", sa.BigInteger, nullable=False, server_default=sa.text("0")),
        sa.Column("attempts", sa.Integer, nullable=False, server_default=sa.text("0")),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("arrived_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("reason", sa.String, nullable=True),
        sa.Column("topic", sa.String, nullable=False),
        sa.Column("partition", sa.Integer, nullable=False),
        sa.Column("offset", sa.BigInteger, nullable=False),
        sa.Column("value", sa.LargeBinary, nullable=False),
        comment="Runs of generation v2: due, done or failed, and how far each was copied; a lease moves due_at ahead.",
    )
    op.create_index("report_runs_due_idx", "report_runs", ["due_at"], postgresql_where=sa.text("state = 'due'"))


def downgrade() -> None:
    raise RuntimeError("migrations are not undone; restore a backup instead")
