"""Positions, outbox, inbox, events, dead letters, operations."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "runtime_0001"
down_revision = None
branch_labels = None
depends_on = None

INSTANT = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "consumer_positions",
        sa.Column("consumer_group", sa.String, primary_key=True),
        sa.Column("topic", sa.String, primary_key=True),
        sa.Column("partition", sa.Integer, primary_key=True),
        sa.Column("owner_epoch", sa.BigInteger, nullable=False),
        sa.Column("applied_offset", sa.BigInteger, nullable=False),
        sa.Column("settled_offset", sa.BigInteger, nullable=False),
        comment="Next offset whose effects are committed (applied) and whose follow-up is done (settled).",
    )
    op.create_table(
        "outbox",
        sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
        sa.Column("topic", sa.String, nullable=False),
        sa.Column("key", sa.String, nullable=False),
        sa.Column("value", sa.LargeBinary, nullable=True),
        sa.Column("headers", postgresql.JSONB, nullable=False, server_default=sa.text("'{}'::jsonb")),
        sa.Column("created_at", INSTANT, nullable=False, server_default=sa.text("now()")),
        comment="Messages saved with the state they tell of; a row lives until Kafka has confirmed it.",
    )
    op.create_table(
        "inbox",
        sa.Column("scope", sa.String, primary_key=True),
        sa.Column("message_id", sa.String, primary_key=True),
        sa.Column("content_hash", sa.LargeBinary, nullable=False),
        sa.Column("response", postgresql.JSONB, nullable=True),
        sa.Column("received_at", INSTANT, nullable=False),
        comment="What was already taken in, with a hash of its content: new, same again, or same id with other content.",
    )
    op.create_table(
        "events",
        sa.Column("position", sa.BigInteger, sa.Identity(always=True), primary_key=True),
        sa.Column("stream", sa.String, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("type", sa.String, nullable=False),
        sa.Column("data", postgresql.JSONB, nullable=False),
        sa.Column("actor", sa.String, nullable=False),
        sa.Column("occurred_at", INSTANT, nullable=False),
        sa.UniqueConstraint("stream", "version", name="events_stream_version_key"),
        comment="Append-only facts; one stream per aggregate, versions without a gap.",
    )
    op.create_table(
        "dead_letters",
        sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
        sa.Column("consumer_group", sa.String, nullable=False),
        sa.Column("topic", sa.String, nullable=False),
        sa.Column("partition", sa.Integer, nullable=False),
        sa.Column("offset", sa.BigInteger, nullable=False),
        sa.Column("key", sa.LargeBinary, nullable=True),
        sa.Column("value", sa.LargeBinary, nullable=True),
        sa.Column("headers", postgresql.JSONB, nullable=False),
        sa.Column("reason_code", sa.String, nullable=False),
        sa.Column("attribute", sa.String, nullable=True),
        sa.Column("detail", sa.String, nullable=False),
        sa.Column("subject", sa.String, nullable=True),
        sa.Column("parked_at", INSTANT, nullable=False),
        sa.Column("replayed_at", INSTANT, nullable=True),
        sa.Column("replays", sa.Integer, nullable=False, server_default=sa.text("0")),
        sa.UniqueConstraint("consumer_group", "topic", "partition", "offset", name="dead_letters_record_key"),
        comment="Records that could not be applied, with their bytes and the reason (L4).",
    )
    op.create_index(
        "dead_letters_waiting_idx",
        "dead_letters",
        ["reason_code", "subject"],
        postgresql_where=sa.text("replayed_at is null"),
    )
    op.create_table(
        "operations",
        sa.Column("operation_id", sa.String, primary_key=True),
        sa.Column("kind", sa.String, nullable=False),
        sa.Column("subject", sa.String, nullable=False),
        sa.Column("request", postgresql.JSONB, nullable=False),
        sa.Column("status", sa.String, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False, server_default=sa.text("0")),
        sa.Column("due_at", INSTANT, nullable=False),
        sa.Column("result", postgresql.JSONB, nullable=True),
        sa.Column("error", sa.String, nullable=True),
        sa.Column("planned_at", INSTANT, nullable=False),
        sa.Column("finished_at", INSTANT, nullable=True),
        comment="Effects outside, written down before they are tried (L15).",
    )
    op.create_index(
        "operations_due_idx", "operations", ["due_at"], postgresql_where=sa.text("status in ('planned', 'sent')")
    )
    # Facts are never changed or removed, whatever the code tries (L7, L20).
    op.execute(
        """
        create function events_are_append_only() returns trigger language plpgsql as $$
        begin
            raise exception 'events are append-only';
        end $$
        """
    )
    op.execute(
        "create trigger events_append_only before update or delete on events"
        " for each row execute function events_are_append_only()"
    )


def downgrade() -> None:
    raise RuntimeError("the runtime's first migration is not undone; drop the database instead")
