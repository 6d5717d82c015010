"""The registry of counter names: an append-only slot in every packed array."""

from collections.abc import Callable, Collection
from typing import Final

from quill_runtime.database import Transaction
from sqlalchemy import select, text
from sqlalchemy.dialects.postgresql import insert

from quill_usage_ingest.domain.counter_layout import CounterLayout
from quill_usage_ingest.ports import TooManyCounters
from quill_usage_ingest.store.tables import counter_slots

SLOTS_MAX: Final = 512
"""Two arrays of 512 bigints fill a page; PostHog counts about 150 things. A source inventing names is stopped here."""
REGISTRY_LOCK: Final = 0x5155_494C_4C10
_LOCK_REGISTRY = text("select pg_advisory_xact_lock(:lock)")


class CounterSlots:
    """The committed layout, shared by all transactions of the process. Slots never change, so none needs refreshing."""

    def __init__(self) -> None:
        self._layout = CounterLayout()

    def of(self, transaction: Transaction) -> "SlotsInTransaction":
        """The slots as one transaction sees them."""
        return SlotsInTransaction(self._layout, transaction, on_commit=self._adopt)

    def _adopt(self, layout: CounterLayout) -> None:
        if len(layout) > len(self._layout):
            self._layout = layout


class SlotsInTransaction:
    """The committed layout plus what this transaction reads or adds; it becomes shared when it commits."""

    def __init__(
        self, committed: CounterLayout, transaction: Transaction, *, on_commit: Callable[[CounterLayout], None]
    ) -> None:
        self.layout = committed
        self._transaction = transaction
        transaction.after_commit(lambda: on_commit(self.layout))

    async def ensure(self, counters: Collection[str]) -> CounterLayout:
        """Give every counter a slot; returns the layout that has them.

        Raises:
            TooManyCounters: the registry is full; names the first counter that found no place.
        """
        if not self.layout.missing(counters):
            return self.layout
        connection = self._transaction.connection
        await connection.execute(_LOCK_REGISTRY.bindparams(lock=REGISTRY_LOCK))
        await self._read()
        missing = self.layout.missing(counters)
        if not missing:
            return self.layout
        taken = len(self.layout)
        if taken + len(missing) > SLOTS_MAX:
            raise TooManyCounters(missing[max(0, SLOTS_MAX - taken)], SLOTS_MAX)
        extended = self.layout.extended(missing)
        added = [{"name": counter, "slot": extended.slots[counter]} for counter in missing]
        await connection.execute(insert(counter_slots), added)
        self.layout = extended
        return extended

    async def reaching(self, length: int) -> CounterLayout:
        """A layout with names for packed rows of this length."""
        if length > len(self.layout):
            await self._read()
        return self.layout

    async def places(self, counters: Collection[str]) -> dict[str, int]:
        """Slots of those among these counters that have one."""
        if self.layout.missing(counters):
            await self._read()
        return {counter: self.layout.slots[counter] for counter in counters if counter in self.layout.slots}

    async def _read(self) -> None:
        rows = await self._transaction.connection.execute(
            select(counter_slots.c.name).where(counter_slots.c.slot >= len(self.layout)).order_by(counter_slots.c.slot)
        )
        names = [row.name for row in rows]
        if names:
            self.layout = CounterLayout((*self.layout.names, *names))
