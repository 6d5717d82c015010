"""The registry of counter names: an append-only slot in every packed array."""

from collections.abc import Collection, Sequence
from typing import Final

from quill_runtime.database import Transaction
from sqlalchemy import select, text
from sqlalchemy.dialects.postgresql import insert

from quill_usage_ingest.ports import TooManyCounters
from quill_usage_ingest.store.tables import counter_slots

SLOTS_MAX: Final = 512
"""Two arrays of 512 bigints fill a page; PostHog counts about 150 things. A source inventing names is stopped here."""
REGISTRY_LOCK: Final = 0x5155_494C_4C10
_LOCK_REGISTRY = text("select pg_advisory_xact_lock(:lock)")


class CounterSlots:
    """Committed slots, shared by all transactions of the process. A slot never changes, so they need no refreshing."""

    def __init__(self) -> None:
        self._slots: dict[str, int] = {}

    def of(self, transaction: Transaction) -> "SlotsInTransaction":
        """The slots as one transaction sees them."""
        return SlotsInTransaction(self._slots, transaction)


class SlotsInTransaction:
    """Committed slots plus those this transaction reads or adds; they become shared when it commits."""

    def __init__(self, committed: dict[str, int], transaction: Transaction) -> None:
        self._committed = committed
        self._slots = dict(committed)
        self._names = _by_slot(self._slots)
        self._transaction = transaction
        transaction.after_commit(lambda: committed.update(self._slots))

    async def ensure(self, counters: Collection[str]) -> None:
        """Give every counter a slot.

        Raises:
            TooManyCounters: the registry is full; names the first counter that found no place.
        """
        missing = sorted(set(counters) - self._slots.keys())
        if not missing:
            return
        connection = self._transaction.connection
        await connection.execute(_LOCK_REGISTRY.bindparams(lock=REGISTRY_LOCK))
        await self._read()
        missing = [counter for counter in missing if counter not in self._slots]
        if not missing:
            return
        free = len(self._slots)
        if free + len(missing) > SLOTS_MAX:
            raise TooManyCounters(missing[max(0, SLOTS_MAX - free)], SLOTS_MAX)
        added = {counter: free + index for index, counter in enumerate(missing)}
        await connection.execute(
            insert(counter_slots), [{"name": counter, "slot": slot} for counter, slot in added.items()]
        )
        self._slots.update(added)
        self._names = _by_slot(self._slots)

    async def names(self, length: int) -> Sequence[str]:
        """Counter names by slot, enough for arrays of this length."""
        if length > len(self._names):
            await self._read()
        return self._names

    async def places(self, counters: Collection[str]) -> dict[str, int]:
        """Slots of those among these counters that have one."""
        if not self._slots.keys() >= set(counters):
            await self._read()
        return {counter: self._slots[counter] for counter in counters if counter in self._slots}

    def slot(self, counter: str) -> int:
        return self._slots[counter]

    async def _read(self) -> None:
        rows = await self._transaction.connection.execute(select(counter_slots.c.name, counter_slots.c.slot))
        self._slots.update({row[0]: row[1] for row in rows})
        self._names = _by_slot(self._slots)


def _by_slot(slots: dict[str, int]) -> list[str]:
    """Names in slot order; slots are handed out without a gap."""
    return sorted(slots, key=slots.__getitem__)
