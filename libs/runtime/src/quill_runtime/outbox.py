"""Messages saved in the transaction that made them true, and the relay that brings them to Kafka.

The relay asks for rows that exist, never for ids above the last one seen: a smaller id may commit later (reliability
O1). A row is deleted once Kafka has confirmed it; a crash in between sends it twice, which readers forgive by revision.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

import msgspec
import structlog
from sqlalchemy import BigInteger, bindparam, delete, func, select, text
from sqlalchemy.dialects.postgresql import ARRAY

from quill_runtime.background import BackgroundTask
from quill_runtime.database import Database, Transaction, is_unavailable
from quill_runtime.publisher import Outgoing, Publisher
from quill_runtime.tables import outbox as outbox_table
from quill_runtime.telemetry import OUTBOX_ROWS, current_trace_headers

RELAY_BATCH = 500
IDLE_POLL_SECONDS = 0.25
RETRY_SECONDS = 1.0
RELAY_LOCK = 0x5155_494C_4C01
"""Advisory lock that keeps one relay per database at work, so one key's messages leave in the order they were saved."""
VALUE_BYTES_MAX = 512 * 1024
_ADD = text(
    """
    insert into outbox (topic, key, value, headers)
    select m.topic, m.key, m.value, cast(m.headers as jsonb)
    from unnest(cast(:topics as text[]), cast(:keys as text[]), cast(:values as bytea[]), cast(:headers as text[]))
         with ordinality as m(topic, key, value, headers, place)
    order by m.place
    """
)
_TRY_LOCK = select(func.pg_try_advisory_xact_lock(RELAY_LOCK))
_NEXT = select(outbox_table).order_by(outbox_table.c.id).limit(RELAY_BATCH)
_REMOVE = delete(outbox_table).where(outbox_table.c.id == func.any(bindparam("ids", type_=ARRAY(BigInteger))))

log = structlog.get_logger(__name__)


class MessageTooLarge(ValueError):
    """A message above 512 KiB would be refused by the broker after the commit; refuse it before."""


@dataclass(slots=True)
class Outbox:
    """Adds messages to a transaction and wakes the relay after its commit."""

    _wake: asyncio.Event = field(default_factory=asyncio.Event)

    async def add(
        self, transaction: Transaction, messages: Sequence[Outgoing], *, bytes_max: int = VALUE_BYTES_MAX
    ) -> None:
        """Save messages with the state they tell of.

        ``bytes_max`` is for what a topic is known to take because it held it before.

        Raises:
            MessageTooLarge: naming topic and key.
        """
        if not messages:
            return
        for message in messages:
            if message.value is not None and len(message.value) > bytes_max:
                raise MessageTooLarge(f"{message.topic} key {message.key!r}: {len(message.value)} bytes")
        trace = current_trace_headers()
        await transaction.connection.execute(
            _ADD,
            {
                "topics": [message.topic for message in messages],
                "keys": [message.key for message in messages],
                "values": [message.value for message in messages],
                "headers": [msgspec.json.encode({**trace, **message.headers}).decode() for message in messages],
            },
        )
        transaction.after_commit(self._wake.set)

    async def wait_for_work(self) -> None:
        """Return when something was committed here, or after the idle poll."""
        try:
            async with asyncio.timeout(IDLE_POLL_SECONDS):
                await self._wake.wait()
        except TimeoutError:
            pass
        self._wake.clear()


class OutboxRelay(BackgroundTask):
    """Brings outbox rows to Kafka in the order they were saved."""

    def __init__(self, *, database: Database, outbox: Outbox, publisher: Publisher) -> None:
        super().__init__("outbox-relay")
        self._database = database
        self._outbox = outbox
        self._publisher = publisher

    async def drain(self) -> int:
        """Publish everything that is committed now; returns how many messages."""
        total = 0
        while published := await self._relay_batch():
            total += published
        return total

    async def _run(self) -> None:
        while True:
            try:
                # What was committed here meanwhile has set the wake-up, and is not waited for.
                if await self._relay_batch() < RELAY_BATCH:
                    await self._outbox.wait_for_work()
            except asyncio.CancelledError:
                raise
            except Exception as error:  # noqa: BLE001 - the relay outlives every fault; rows stay until confirmed
                log.warning("outbox.relay_failed", error=str(error), unavailable=is_unavailable(error))
                await asyncio.sleep(RETRY_SECONDS)

    async def _relay_batch(self) -> int:
        async with self._database.begin() as transaction:
            connection = transaction.connection
            if not await connection.scalar(_TRY_LOCK):
                return 0
            rows = (await connection.execute(_NEXT)).all()
            OUTBOX_ROWS.set(len(rows))
            if not rows:
                return 0
            await self._publisher.publish_all(
                [Outgoing(row.topic, row.key, row.value, dict(row.headers)) for row in rows]
            )
            await connection.execute(_REMOVE, {"ids": [row.id for row in rows]})
        return len(rows)


async def oldest_age_seconds(transaction: Transaction) -> float:
    """Age of the oldest unpublished message; 0 when there is none."""
    oldest = await transaction.connection.scalar(select(func.min(outbox_table.c.created_at)))
    if oldest is None:
        return 0.0
    now: datetime = await transaction.connection.scalar(text("select now()")) or datetime.now(UTC)
    return max(0.0, float((now - oldest).total_seconds()))
