"""What customers are owed: credits that an invoice could not use, until the credits ledger exists."""

import sqlalchemy as sa
from alembic import op

revision = "invoicing_0004"
down_revision = "invoicing_0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "credit_entries",
        sa.Column("entry_id", sa.String, primary_key=True),
        sa.Column("organization_id", sa.String, nullable=False),
        sa.Column("currency", sa.String, nullable=False),
        sa.Column("kind", sa.String, nullable=False),
        sa.Column("amount_minor", sa.BigInteger, nullable=False),
        sa.Column("invoice_id", sa.String, sa.ForeignKey("invoices.invoice_id"), nullable=False),
        sa.Column("recorded_at", sa.DateTime(timezone=True), nullable=False),
        comment="Changes of what a customer is owed, per currency; append-only, the balance is their sum.",
    )
    op.create_index("credit_entries_organization_idx", "credit_entries", ["organization_id", "currency"])
    op.execute(
        "create trigger credit_entries_append_only before update or delete on credit_entries"
        " for each row execute function facts_are_append_only()"
    )


def downgrade() -> None:
    raise RuntimeError("migrations are not undone; restore a backup instead")
