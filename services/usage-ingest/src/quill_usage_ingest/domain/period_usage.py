"""Period usage: what an organization used in a billing period, per counter, and the largest total seen (L2, L3, L6)."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final, NamedTuple

from quill_pricing.period import BillingPeriod

from quill_usage_ingest.domain.dated_counters import UNDATED, DatedCounters, dated_name
from quill_usage_ingest.domain.usage_cells import INSTANT_MASK, Cell, WindowCells, as_of_rank, is_complete


class CounterUsage(NamedTuple):
    """One counter in one period, in the counter's own unit.

    Attributes:
        complete: sum over windows whose winning claim is complete.
        partial: sum over windows the source still counts (L6).
        maximum: the largest ``to_date`` since the period began or was last corrected (L3).
    """

    complete: int = 0
    partial: int = 0
    maximum: int = 0

    @property
    def to_date(self) -> int:
        """Period-to-date usage: all cells whose window starts in the period, over all sources (L2)."""
        return self.complete + self.partial


NOTHING_USED: Final = CounterUsage()


@dataclass(frozen=True, slots=True)
class PeriodUsage:
    """All counters of one organization in one billing period.

    Attributes:
        as_of: the newest as-of instant among the reports merged so far, also those that changed nothing.
        revision: the organization's usage revision at which this period last changed.
    """

    period: BillingPeriod
    as_of: datetime
    revision: int
    counters: Mapping[str, CounterUsage] = field(default_factory=dict)

    def touched(self, *, as_of: datetime, revision: int) -> "PeriodUsage":
        """After meters that are not kept here changed in this period."""
        return replace(self, as_of=max(self.as_of, as_of), revision=revision)


@dataclass(frozen=True, slots=True)
class PeriodSum:
    """What the cells of one period add up to: the check on, and the repair of, a maintained `PeriodUsage`."""

    period: BillingPeriod
    as_of: datetime
    sums: Mapping[str, CounterUsage]


def sum_windows(
    period: BillingPeriod, windows: Iterable[WindowCells], dated: DatedCounters = UNDATED
) -> PeriodSum | None:
    """Add up windows of one period, or None when no cell was ever reported in them.

    Counters that count from a date inside the period are added up once more from there, under their dated names.
    """
    complete: dict[str, int] = {}
    partial: dict[str, int] = {}
    newest = 0
    for window in windows:
        for counter, cell in window.cells.items():
            newest = max(newest, _instant_only(cell))
            side = complete if is_complete(cell.rank) else partial
            side[counter] = side.get(counter, 0) + cell.quantity
            for start in dated.inside(counter, period) if dated else ():
                name = dated_name(counter, start)
                side[name] = side.get(name, 0) + (cell.quantity if window.window.start >= start else 0)
    if not newest:
        return None
    sums = {}
    for counter in {**complete, **partial}:
        done, counting = complete.get(counter, 0), partial.get(counter, 0)
        sums[counter] = CounterUsage(done, counting, done + counting)
    return PeriodSum(period, as_of_rank(newest), sums)


def reconciled(period_sum: PeriodSum, stored: PeriodUsage | None, *, revision: int) -> PeriodUsage:
    """Period usage as the cells have it, keeping maxima already published (L3).

    Returns ``stored`` itself when it agrees with the cells, so that nothing is published for nothing.
    """
    if stored is None:
        return PeriodUsage(
            period=period_sum.period, as_of=period_sum.as_of, revision=revision, counters=period_sum.sums
        )
    counters = {
        counter: usage._replace(maximum=max(usage.maximum, stored.counters.get(counter, NOTHING_USED).maximum))
        for counter, usage in period_sum.sums.items()
    }
    as_of = max(stored.as_of, period_sum.as_of)
    if counters == dict(stored.counters) and as_of == stored.as_of:
        return stored
    return replace(stored, as_of=as_of, counters=counters, revision=revision)


def _instant_only(cell: Cell) -> int:
    """A rank without its completeness, so that the newest instant can be found among both kinds."""
    return cell.rank & INSTANT_MASK
