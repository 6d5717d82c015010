"""Counters that count for a meter from a date on (``counts_from``), kept beside the whole in the period they straddle.

A period that lies wholly after the date needs nothing of its own, one before it has no usage. Only in the period that
holds the date is the counter's usage from the date on another number; it is kept under a name of its own, moves report
by report like every other, and so has a maximum of its own (L3).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from quill_pricing.period import BillingPeriod

from quill_usage_ingest.domain.counter_layout import CounterLayout
from quill_usage_ingest.domain.packed_cells import SlotChange


def dated_name(counter: str, start: datetime) -> str:
    """Under which name the counter's usage from this instant on is kept."""
    return f"{counter} from {start.isoformat()}"


@dataclass(frozen=True, slots=True)
class DatedCounters:
    """Counter to the instants from which it counts for some meter."""

    starts: Mapping[str, tuple[datetime, ...]] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.starts)

    @property
    def text(self) -> str:
        """The same for the same dates."""
        return "; ".join(
            dated_name(counter, start) for counter, found in sorted(self.starts.items()) for start in found
        )

    def inside(self, counter: str, period: BillingPeriod) -> list[datetime]:
        """The instants that divide this period."""
        return [start for start in self.starts.get(counter, ()) if period.start < start < period.end]

    def names(self, counter: str, period: BillingPeriod) -> list[str]:
        """Under which further names the counter is kept in this period."""
        return [dated_name(counter, start) for start in self.inside(counter, period)]

    def moves(
        self,
        changes: Iterable[SlotChange],
        *,
        layout: CounterLayout,
        window_start: datetime,
        period: BillingPeriod,
        known: Mapping[str, object],
    ) -> Iterable[SlotChange]:
        """What the changes of one window do to the counters from their dates on; ``known`` is kept in the period.

        A dated counter begins with its counter. Where the counter is known and the dated one is not, the date is new
        and its recount is still to come: it adds up everything, also this.
        """
        for change in changes:
            counter = layout.names[change[0]]
            for start in self.inside(counter, period):
                name = dated_name(counter, start)
                slot = layout.slots[name]
                if name in known and window_start >= start:
                    yield (slot, *change[1:])
                elif name not in known and counter not in known:
                    yield (slot, *change[1:]) if window_start >= start else (slot, 0, 0, 0)


UNDATED: Final = DatedCounters()
