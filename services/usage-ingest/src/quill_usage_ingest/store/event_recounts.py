"""Working off recounts of event meters, and what retired meters left behind: in bounded transactions, resumed."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from quill_runtime.database import Database, Transaction
from sqlalchemy import Table, delete, select, tuple_

from quill_usage_ingest.domain.meters import MeterMap
from quill_usage_ingest.store.counter_slots import CounterSlots
from quill_usage_ingest.store.event_tables import event_feeds, event_periods, event_values, event_windows
from quill_usage_ingest.store.meter_events import PostgresEvents
from quill_usage_ingest.store.postgres import PostgresUsage
from quill_usage_ingest.store.stand_ins import StandIns
from quill_usage_ingest.usecases.recount_events import recount_some

EVENTS_PER_BATCH: Final = 1_000
ROWS_PER_BATCH: Final = 5_000
_LEFT_BEHIND: Final[tuple[Table, ...]] = (event_windows, event_values, event_periods)


@dataclass(frozen=True, slots=True)
class EventRecounts:
    """Counts kept events for new meters, and removes the numbers of meters that are no more or stand in no more."""

    database: Database
    slots: CounterSlots

    async def run(self, now: datetime) -> int:
        """Go on until nothing is left to do; returns how many transactions it took."""
        del now
        batches = 0
        while await self.database.run(self._recount) or await self.database.run(self._remove):
            batches += 1
        await self.database.run(self._drop_stand_ins)
        return batches

    async def _recount(self, transaction: Transaction) -> bool:
        return await recount_some(
            tx=PostgresUsage(transaction, self.slots), events=PostgresEvents(transaction), limit=EVENTS_PER_BATCH
        )

    async def _drop_stand_ins(self, transaction: Transaction) -> None:
        events = PostgresEvents(transaction)
        await events.share_meters()
        meters = MeterMap.of(await PostgresUsage(transaction, self.slots).metered_products())
        await StandIns(transaction, self.slots).drop(meters)

    async def _remove(self, transaction: Transaction) -> bool:
        """Remove some rows of one retired feed; False when there is none. The feed itself goes last."""
        connection = transaction.connection
        feed_id = await connection.scalar(
            select(event_feeds.c.feed_id).where(event_feeds.c.is_retired).order_by(event_feeds.c.feed_id).limit(1)
        )
        if feed_id is None:
            return False
        for table in _LEFT_BEHIND:
            keys = list(table.primary_key)
            some = select(*keys).where(table.c.feed_id == feed_id).limit(ROWS_PER_BATCH)
            removed = await connection.execute(delete(table).where(tuple_(*keys).in_(some)))
            if removed.rowcount:
                return True
        await connection.execute(delete(event_feeds).where(event_feeds.c.feed_id == feed_id))
        return True
