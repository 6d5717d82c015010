"""The greatest total that a counter ever had in a billing period, or before a cut of it (L3), from the kept reports.

The hot path keeps a maximum as reports arrive (`PackedCounters.moved`). After a correction it is made again here, from
the reports that count now in the order in which they arrived. So a correction changes what it names and nothing else,
and taking it back restores exactly what was there.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from datetime import datetime

from quill_pricing.period import BillingPeriod

from quill_usage_ingest.domain.dated_counters import UNDATED, DatedCounters, dated_name
from quill_usage_ingest.domain.usage_cells import NEVER_REPORTED, Cell, rank_of
from quill_usage_ingest.domain.usage_report import UsageReport, UsageWindow

CellKey = tuple[datetime, str, str]
"""Window start, source, counter."""


@dataclass(slots=True)
class PeriodMaximum:
    """Enter the counting reports of a period in the order they arrived; then read totals and maxima.

    Attributes:
        period: needed where counters count from a date inside it (``dated``).
        before: a cut. Only what was used before it counts: a window that the cut splits counts as far as its reports
            with an as-of instant up to the cut say, and as a whole while there is none (D4).
        only: the counters to look at, under their own names; None for all.
        totals: by counter, also under the dated names of `DatedCounters`.
        maxima: the greatest total since the period began, or since a report that is a correction lowered it.
    """

    period: BillingPeriod | None = None
    dated: DatedCounters = UNDATED
    before: datetime | None = None
    only: Collection[str] | None = None
    totals: dict[str, int] = field(default_factory=dict)
    maxima: dict[str, int] = field(default_factory=dict)
    _cells: dict[CellKey, Cell] = field(default_factory=dict)
    _early: dict[CellKey, Cell] = field(default_factory=dict)

    def enter(self, report: UsageReport) -> None:
        """Merge one report by rank (L1) and follow what it does to the totals."""
        window = report.window
        if self.before is not None and window.start >= self.before:
            return
        rank = rank_of(report.completeness, report.as_of)
        is_early = self.before is not None and report.as_of <= self.before < window.end
        for counter, quantity in report.counters.items():
            if self.only is not None and counter not in self.only:
                continue
            key = (window.start, report.source, counter)
            held, claimed = self._cells.get(key, NEVER_REPORTED), Cell(rank, quantity)
            counted = self._counted(key, window)
            self._cells[key] = max(held, claimed)
            if is_early:
                self._early[key] = max(self._early.get(key, NEVER_REPORTED), claimed)
            moved = self._counted(key, window) - counted
            is_corrected = report.correction is not None and claimed > held
            for name, counts in self._names(counter, window):
                self._move(name, moved if counts else 0, is_corrected=is_corrected and counts)

    def _counted(self, key: CellKey, window: UsageWindow) -> int:
        held = self._cells.get(key, NEVER_REPORTED).quantity
        if self.before is None or window.end <= self.before or key not in self._early:
            return held
        return min(held, self._early[key].quantity)

    def _names(self, counter: str, window: UsageWindow) -> Iterator[tuple[str, bool]]:
        """Under which names the counter is kept, and whether this window counts under each."""
        yield counter, True
        if self.dated and self.period is not None:
            for start in self.dated.inside(counter, self.period):
                yield dated_name(counter, start), window.start >= start

    def _move(self, name: str, moved: int, *, is_corrected: bool) -> None:
        total = self.totals.get(name, 0) + moved
        self.totals[name] = total
        self.maxima[name] = total if is_corrected else max(total, self.maxima.get(name, 0))
