"""Recounts in memory: the same behaviour as in Postgres, for unit tests."""

from dataclasses import dataclass, field

from quill_usage_ingest.ports import CounterRecount


@dataclass(slots=True)
class MemoryMeterRecounts:
    """`MeterRecounts`; one task at a time, so holding and sharing need nothing."""

    held: CounterRecount = field(default_factory=CounterRecount)

    async def hold_meters(self) -> None:
        return

    async def share_meters(self) -> None:
        return

    async def counter_recount(self) -> CounterRecount:
        return self.held

    async def save_counter_recount(self, recount: CounterRecount) -> None:
        self.held = recount
