"""Counting anew what a changed catalog means for what was received: kept in rows, so that a kill loses no place."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from quill_runtime.database import Database, Transaction
from sqlalchemy import select, text
from sqlalchemy.dialects.postgresql import insert

from quill_usage_ingest.domain.meters import MeterMap
from quill_usage_ingest.ports import CounterRecount
from quill_usage_ingest.store.counter_slots import CounterSlots
from quill_usage_ingest.store.meter_tables import counter_recounts
from quill_usage_ingest.store.postgres import PostgresUsage
from quill_usage_ingest.store.stand_ins import StandIns
from quill_usage_ingest.usecases.recount_counters import recount_counters

METERS_LOCK: Final = 0x5155_494C_4C11
ORGANIZATIONS_PER_BATCH: Final = 50
_HOLD: Final = text("select pg_advisory_xact_lock(:lock)")
_SHARE: Final = text("select pg_advisory_xact_lock_shared(:lock)")
_ROW_ID: Final = 1


class PostgresMeterRecounts:
    """`MeterRecounts` on one open transaction."""

    def __init__(self, transaction: Transaction) -> None:
        self._connection = transaction.connection

    async def hold_meters(self) -> None:
        await self._connection.execute(_HOLD, {"lock": METERS_LOCK})

    async def share_meters(self) -> None:
        await self._connection.execute(_SHARE, {"lock": METERS_LOCK})

    async def counter_recount(self) -> CounterRecount:
        row = (await self._connection.execute(select(counter_recounts))).one_or_none()
        return CounterRecount() if row is None else CounterRecount(row.dated, row.after_organization_id)

    async def save_counter_recount(self, recount: CounterRecount) -> None:
        row = {"dated": recount.dated, "after_organization_id": recount.after}
        await self._connection.execute(
            insert(counter_recounts).values(id=_ROW_ID, **row).on_conflict_do_update(index_elements=["id"], set_=row)
        )


@dataclass(frozen=True, slots=True)
class CounterRecounts:
    """Works off the recount of dated counters, a few organizations per transaction."""

    database: Database
    slots: CounterSlots

    async def run(self, now: datetime) -> int:
        """Go on until all organizations are through; returns how many changed."""
        del now
        changed = 0
        while True:
            found = await self.database.run(self._some)
            if found is None:
                return changed
            changed += found

    async def is_pending(self) -> bool:
        """Whether numbers may still differ from what the cells say because a date is new."""
        async with self.database.begin() as transaction:
            return (await PostgresMeterRecounts(transaction).counter_recount()).after is not None

    async def _some(self, transaction: Transaction) -> int | None:
        usage, recounts = PostgresUsage(transaction, self.slots), PostgresMeterRecounts(transaction)
        await recounts.share_meters()
        begun = (await recounts.counter_recount()).after
        changed = await recount_counters(tx=usage, recounts=recounts, limit=ORGANIZATIONS_PER_BATCH)
        if begun is not None:
            meters = MeterMap.of(await usage.metered_products())
            through = (await recounts.counter_recount()).after
            stand_ins = StandIns(transaction, self.slots)
            await stand_ins.publish_freed(meters.counts_from.keys(), after=begun, through=through)
        return changed
