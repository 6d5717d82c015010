"""Counters that count for a meter from a date on (``counts_from``), kept beside the whole in the period they straddle.

A period that lies wholly after the date needs nothing of its own, one before it has no usage. Only in the period that
holds the date is the counter's usage from the date on another number; it is kept under a name of its own, moves report
by report like every other, and so has a maximum of its own (L3).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from quill_pricing.period import BillingPeriod

from quill_usage_ingest.domain.usage_cells import NEVER_REPORTED, CellChange

_NO_CHANGE: Final = CellChange(NEVER_REPORTED, NEVER_REPORTED)


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

    def with_dated(
        self,
        changes: Mapping[str, CellChange],
        *,
        window_start: datetime,
        period: BillingPeriod,
        known: Mapping[str, object],
    ) -> Mapping[str, CellChange]:
        """The changes of one window, with those of the counters from their dates on; ``known`` is kept in the period.

        A dated counter begins with its counter. Where the counter is known and the dated one is not, the date is new
        and its recount is still to come: it adds up everything, also this.
        """
        found = dict(changes)
        for counter, change in changes.items():
            for start in self.inside(counter, period):
                name = dated_name(counter, start)
                if name in known and window_start >= start:
                    found[name] = change
                elif name not in known and counter not in known:
                    found[name] = change if window_start >= start else _NO_CHANGE
        return found


UNDATED: Final = DatedCounters()
