"""Terms, usage, closings, invoices, reconciliations, the payment rail and its webhooks."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "invoicing_0001"
down_revision = None
branch_labels = None
depends_on = None

INSTANT = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "customers",
        sa.Column("organization_id", sa.String, primary_key=True),
        sa.Column("revision", sa.BigInteger, nullable=False),
        sa.Column("open_period_start", INSTANT, nullable=False),
        sa.Column("open_period_end", INSTANT, nullable=False),
        sa.Column("held_period_start", INSTANT, nullable=True),
        comment="One row per customer: the newest snapshot seen and the billing period that is to be closed next.",
    )
    op.create_index("customers_open_period_end_idx", "customers", ["open_period_end"])
    op.create_table(
        "customer_terms",
        sa.Column("organization_id", sa.String, primary_key=True),
        sa.Column("revision", sa.BigInteger, primary_key=True),
        sa.Column("effective_at", INSTANT, nullable=False),
        sa.Column("terms", postgresql.JSONB, nullable=False),
        comment="Each version of a customer's terms that changed money; append-only (L12).",
    )
    op.create_table(
        "usage_observations",
        sa.Column("organization_id", sa.String, primary_key=True),
        sa.Column("period_start", INSTANT, primary_key=True),
        sa.Column("revision", sa.BigInteger, primary_key=True),
        sa.Column("as_of", INSTANT, nullable=False),
        sa.Column("maxima", postgresql.JSONB, nullable=False),
        comment="What was known of a period's usage at each revision; append-only (L12).",
    )
    op.create_table(
        "usage_periods",
        sa.Column("organization_id", sa.String, primary_key=True),
        sa.Column("period_start", INSTANT, primary_key=True),
        sa.Column("newest_revision", sa.BigInteger, nullable=False),
        sa.Column("corrected_revision", sa.BigInteger, nullable=False, server_default=sa.text("0")),
        comment="How far each period's usage was read, and from which revision on it counts (L3).",
    )
    op.create_table(
        "closed_periods",
        sa.Column("organization_id", sa.String, primary_key=True),
        sa.Column("period_start", INSTANT, primary_key=True),
        sa.Column("period_end", INSTANT, nullable=False),
        sa.Column("closed_at", INSTANT, nullable=False),
        sa.Column("usage_revision", sa.BigInteger, nullable=False),
        sa.Column("invoice_id", sa.String, nullable=True),
        sa.Column("billed", postgresql.JSONB, nullable=False),
        comment="The closing of a period as a fact: its cut-off and what was billed of each product. One per period.",
    )
    op.create_table(
        "late_usage",
        sa.Column("organization_id", sa.String, primary_key=True),
        sa.Column("period_start", INSTANT, primary_key=True),
        sa.Column("product_key", sa.String, primary_key=True),
        sa.Column("revision", sa.BigInteger, primary_key=True),
        sa.Column("quantity_before", sa.BigInteger, nullable=False),
        sa.Column("quantity_after", sa.BigInteger, nullable=False),
        sa.Column("recorded_at", INSTANT, nullable=False),
        sa.Column("invoice_id", sa.String, nullable=True),
        sa.ForeignKeyConstraint( ["organization_id", "period_start"], ["closed_periods.organization_id", "closed_periods.period_start"] ),
        comment="Usage that came after its period was closed, until an adjustment line bills it (L13).",
    )
    op.create_index("late_usage_unsettled_idx", "late_usage", ["organization_id"], postgresql_where=sa.text("invoice_id is null"))
    op.create_table(
        "invoice_numbers",
        sa.Column("year", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("last_sequence", sa.Integer, nullable=False),
        comment="Last invoice number given per year; taken in the closing's transaction, so that none is ever missing.",
    )
    op.create_table(
        "invoices",
        sa.Column("invoice_id", sa.String, primary_key=True),
        sa.Column("number", sa.String, nullable=False, unique=True),
        sa.Column("organization_id", sa.String, nullable=False),
        sa.Column("customer_id", sa.String, nullable=False),
        sa.Column("revision", sa.BigInteger, nullable=False),
        sa.Column("status", sa.String, nullable=False),
        sa.Column("currency", sa.String, nullable=False),
        sa.Column("collection_mode", sa.String, nullable=False),
        sa.Column("period_start", INSTANT, nullable=False),
        sa.Column("period_end", INSTANT, nullable=False),
        sa.Column("usage_revision", sa.BigInteger, nullable=False),
        sa.Column("total_minor", sa.BigInteger, nullable=False),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.Column("finalized_at", INSTANT, nullable=True),
        sa.Column("settled_at", INSTANT, nullable=True),
        sa.Column("rail_invoice", sa.String, nullable=True),
        sa.Column("reconciliation", sa.String, nullable=False),
        sa.Column("collection_problem", sa.String, nullable=True),
        comment="One invoice per organization and billing period; frozen by triggers once finalized (L13).",
    )
    op.create_index("invoices_organization_period_key", "invoices", ["organization_id", "period_start"], unique=True)
    op.create_index("invoices_rail_invoice_key", "invoices", ["rail_invoice"], unique=True)
    op.create_table(
        "invoice_lines",
        sa.Column("invoice_id", sa.String, sa.ForeignKey("invoices.invoice_id"), primary_key=True),
        sa.Column("position", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("kind", sa.String, nullable=False),
        sa.Column("product_key", sa.String, nullable=False),
        sa.Column("usage_key", sa.String, nullable=True),
        sa.Column("description", sa.String, nullable=False),
        sa.Column("quantity", sa.BigInteger, nullable=False),
        sa.Column("unit_amount", sa.Numeric, nullable=False),
        sa.Column("amount_minor", sa.BigInteger, nullable=False),
        sa.Column("service_period_start", INSTANT, nullable=False),
        sa.Column("service_period_end", INSTANT, nullable=False),
        sa.Column("tier", sa.Integer, nullable=True),
        comment="Lines in minor units, written with the draft and never changed after it is finalized (L11, L13).",
    )
    op.create_table(
        "reconciliations",
        sa.Column("reconciliation_id", sa.String, primary_key=True),
        sa.Column("organization_id", sa.String, nullable=False),
        sa.Column("invoice_id", sa.String, sa.ForeignKey("invoices.invoice_id"), nullable=False, unique=True),
        sa.Column("compared_at", INSTANT, nullable=False),
        sa.Column("our_total_minor", sa.BigInteger, nullable=False),
        sa.Column("rail_total_minor", sa.BigInteger, nullable=False),
        sa.Column("is_equal", sa.Boolean, nullable=False),
        sa.Column("differences", postgresql.JSONB, nullable=False),
        sa.Column("accepted_by", sa.String, nullable=True),
        sa.Column("accepted_reason", sa.String, nullable=True),
        sa.Column("accepted_at", INSTANT, nullable=True),
        comment="Our invoice against the rail's; every difference with its class and who accepted it (L16).",
    )
    op.create_index("reconciliations_different_idx", "reconciliations", ["compared_at"], postgresql_where=sa.text("not is_equal"))
    op.create_table(
        "rail_customers",
        sa.Column("organization_id", sa.String, primary_key=True),
        sa.Column("customer", sa.String, nullable=False, unique=True),
        sa.Column("subscription", sa.String, nullable=True),
        sa.Column("subscribed_revision", sa.BigInteger, nullable=True),
        sa.Column("billed_from", INSTANT, nullable=True),
        comment="The customer and subscription at the payment rail, and the terms' revision the latter was last set to.",
    )
    op.create_table(
        "meter_reports",
        sa.Column("organization_id", sa.String, primary_key=True),
        sa.Column("product_key", sa.String, primary_key=True),
        sa.Column("period_start", INSTANT, primary_key=True),
        sa.Column("quantity", sa.BigInteger, nullable=False),
        sa.Column("stamped_at", INSTANT, nullable=False),
        sa.Column("looked_at", INSTANT, nullable=False),
        comment="The last report planned per customer and product: timestamps must rise strictly.",
    )
    op.create_table(
        "webhook_events",
        sa.Column("event_id", sa.String, primary_key=True),
        sa.Column("type", sa.String, nullable=False),
        sa.Column("api_version", sa.String, nullable=True),
        sa.Column("object_id", sa.String, nullable=True),
        sa.Column("created", INSTANT, nullable=False),
        sa.Column("raw", sa.LargeBinary, nullable=False),
        sa.Column("received_at", INSTANT, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False, server_default=sa.text("0")),
        sa.Column("due_at", INSTANT, nullable=False),
        sa.Column("processed_at", INSTANT, nullable=True),
        sa.Column("outcome", sa.String, nullable=True),
        comment="Webhooks as they came, verified; acted upon later by fetching the object's current state (L19).",
    )
    op.create_index("webhook_events_due_idx", "webhook_events", ["due_at"], postgresql_where=sa.text("processed_at is null"))
    # A finalized invoice never changes, whatever the code tries (L13): only its way to payment goes on.
    op.execute(
        """
        create function invoices_are_frozen() returns trigger language plpgsql as $$
        begin
            if tg_op = 'DELETE' then
                raise exception 'invoice % is never deleted (L13)', old.number;
            end if;
            if old.status <> 'draft' and (
                   new.invoice_id, new.number, new.organization_id, new.customer_id, new.currency, new.collection_mode,
                   new.period_start, new.period_end, new.usage_revision, new.total_minor, new.created_at,
                   new.finalized_at)
               is distinct from (
                   old.invoice_id, old.number, old.organization_id, old.customer_id, old.currency, old.collection_mode,
                   old.period_start, old.period_end, old.usage_revision, old.total_minor, old.created_at,
                   old.finalized_at) then
                raise exception 'invoice % is finalized and immutable (L13)', old.number;
            end if;
            if new.status <> old.status and (old.status, new.status) not in (
                   ('draft', 'finalized'), ('finalized', 'paid'), ('finalized', 'void'), ('finalized', 'uncollectible'),
                   ('uncollectible', 'paid'), ('uncollectible', 'void')) then
                raise exception 'invoice % cannot go from % to %', old.number, old.status, new.status;
            end if;
            if old.status = 'draft' and new.status = 'finalized' and new.total_minor <> (
                   select coalesce(sum(amount_minor), 0) from invoice_lines where invoice_id = new.invoice_id) then
                raise exception 'invoice %: the total is not the sum of its lines (L11)', old.number;
            end if;
            return new;
        end $$
        """
    )
    op.execute(
        """
        create function invoice_lines_are_frozen() returns trigger language plpgsql as $$
        declare
            touched text := case when tg_op = 'INSERT' then new.invoice_id else old.invoice_id end;
        begin
            if tg_op = 'UPDATE' and new.invoice_id <> old.invoice_id then
                raise exception 'a line stays on its invoice (L13)';
            end if;
            if exists (select from invoices where invoice_id = touched and status <> 'draft') then
                raise exception 'the lines of invoice % are frozen (L13)', touched;
            end if;
            return case when tg_op = 'DELETE' then old else new end;
        end $$
        """
    )
    op.execute(
        "create trigger invoices_frozen before update or delete on invoices"
        " for each row execute function invoices_are_frozen()"
    )
    op.execute(
        "create trigger invoice_lines_frozen before insert or update or delete on invoice_lines"
        " for each row execute function invoice_lines_are_frozen()"
    )
    # Terms, observations and closings are facts.
    op.execute(
        """
        create function facts_are_append_only() returns trigger language plpgsql as $$
        begin
            raise exception '% is append-only', tg_table_name;
        end $$
        """
    )
    for table in ("customer_terms", "usage_observations", "closed_periods"):
        op.execute(
            f"create trigger {table}_append_only before update or delete on {table}"
            " for each row execute function facts_are_append_only()"
        )


def downgrade() -> None:
    raise RuntimeError("the first migration is not undone; drop the database instead")
