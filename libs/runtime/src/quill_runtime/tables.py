"""Tables that every service's database has: positions, outbox, inbox, events, dead letters, operations."""

from sqlalchemy import (
    BigInteger,
    Column,
    DateTime,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

runtime_metadata = MetaData()

_Instant = DateTime(timezone=True)

consumer_positions = Table(
    "consumer_positions",
    runtime_metadata,
    Column("consumer_group", String, primary_key=True),
    Column("topic", String, primary_key=True),
    Column("partition", Integer, primary_key=True),
    Column("owner_epoch", BigInteger, nullable=False),
    Column("applied_offset", BigInteger, nullable=False),
    Column("settled_offset", BigInteger, nullable=False),
    comment="Next offset whose effects are committed (applied) and whose follow-up is done (settled).",
)

outbox = Table(
    "outbox",
    runtime_metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("topic", String, nullable=False),
    Column("key", String, nullable=False),
    Column("value", LargeBinary, nullable=True),
    Column("headers", JSONB, nullable=False, server_default=text("'{}'::jsonb")),
    Column("created_at", _Instant, nullable=False, server_default=text("now()")),
    comment="Messages saved with the state they tell of; a row lives until Kafka has confirmed it.",
)

inbox = Table(
    "inbox",
    runtime_metadata,
    Column("scope", String, primary_key=True),
    Column("message_id", String, primary_key=True),
    Column("content_hash", LargeBinary, nullable=False),
    Column("response", JSONB, nullable=True),
    Column("received_at", _Instant, nullable=False),
    comment="What was already taken in, with a hash of its content: new, same again, or same id with other content.",
)

events = Table(
    "events",
    runtime_metadata,
    Column("position", BigInteger, Identity(always=True), primary_key=True),
    Column("stream", String, nullable=False),
    Column("version", Integer, nullable=False),
    Column("type", String, nullable=False),
    Column("data", JSONB, nullable=False),
    Column("actor", String, nullable=False),
    Column("occurred_at", _Instant, nullable=False),
    UniqueConstraint("stream", "version", name="events_stream_version_key"),
    comment="Append-only facts; one stream per aggregate, versions without a gap.",
)

dead_letters = Table(
    "dead_letters",
    runtime_metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("consumer_group", String, nullable=False),
    Column("topic", String, nullable=False),
    Column("partition", Integer, nullable=False),
    Column("offset", BigInteger, nullable=False),
    Column("key", LargeBinary, nullable=True),
    Column("value", LargeBinary, nullable=True),
    Column("headers", JSONB, nullable=False),
    Column("reason_code", String, nullable=False),
    Column("attribute", String, nullable=True),
    Column("detail", String, nullable=False),
    Column("subject", String, nullable=True),
    Column("parked_at", _Instant, nullable=False),
    Column("replayed_at", _Instant, nullable=True),
    Column("replays", Integer, nullable=False, server_default=text("0")),
    UniqueConstraint("consumer_group", "topic", "partition", "offset", name="dead_letters_record_key"),
    Index("dead_letters_waiting_idx", "reason_code", "subject", postgresql_where=text("replayed_at is null")),
    comment="Records that could not be applied, with their bytes and the reason (L4).",
)

operations = Table(
    "operations",
    runtime_metadata,
    Column("operation_id", String, primary_key=True),
    Column("kind", String, nullable=False),
    Column("subject", String, nullable=False),
    Column("request", JSONB, nullable=False),
    Column("status", String, nullable=False),
    Column("attempts", Integer, nullable=False, server_default=text("0")),
    Column("due_at", _Instant, nullable=False),
    Column("result", JSONB, nullable=True),
    Column("error", String, nullable=True),
    Column("planned_at", _Instant, nullable=False),
    Column("finished_at", _Instant, nullable=True),
    Index("operations_due_idx", "due_at", postgresql_where=text("status in ('planned', 'sent')")),
    Index("operations_failed_idx", "planned_at", postgresql_where=text("status = 'failed'")),
    comment="Effects outside, written down before they are tried (L15).",
)
