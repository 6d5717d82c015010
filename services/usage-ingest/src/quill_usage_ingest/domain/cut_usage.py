"""What was used before a cut: an instant at which a paid span began or ended, or a limit fell (L12).

A window that the cut splits counts as far as the source's reports with an as-of instant up to the cut say; while there
is none, the whole window lies before the cut (D4).
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

from quill_pricing.period import BillingPeriod
from quill_pricing.schedule_history import Schedules

from quill_usage_ingest.domain.dated_counters import UNDATED, DatedCounters, dated_name
from quill_usage_ingest.domain.usage_cells import Cells, WindowCells, claimed_cells, join
from quill_usage_ingest.domain.usage_report import UsageReport, WindowKey


class CutKey(NamedTuple):
    """One cut of one organization's billing period; ``at`` lies inside it."""

    organization_id: str
    period: BillingPeriod
    at: datetime


@dataclass(frozen=True, slots=True)
class CutUsage:
    """Used in the period before the cut: by counter (also under dated names), and by meter that events feed.

    Of counters it is the greatest value ever published, unless a correction lowered it (L3).
    """

    counters: Mapping[str, int] = field(default_factory=dict)
    events: Mapping[str, int] = field(default_factory=dict)

    def raised(self, counted: Mapping[str, int]) -> "CutUsage":
        """With counters that are greater now; none falls (L3)."""
        greatest = {
            counter: max(quantity, self.counters.get(counter, quantity)) for counter, quantity in counted.items()
        }
        return CutUsage({**self.counters, **greatest}, self.events)

    def corrected(self, counters: Collection[str], maxima: Mapping[str, int]) -> "CutUsage":
        """With these counters made again after a correction; the others stay."""
        kept = {counter: quantity for counter, quantity in self.counters.items() if counter not in counters}
        made = {counter: maxima[counter] for counter in counters if counter in maxima}
        return CutUsage({**kept, **made}, self.events)


NOTHING_BEFORE = CutUsage()


def cut_keys(organization_id: str, schedules: Schedules, cuts: Iterable[datetime]) -> list[CutKey]:
    """Each cut in its billing period. Nothing of a period lies before its start, so a cut there needs no number."""
    keys = [CutKey(organization_id, schedules.period_containing(at), at) for at in cuts]
    return [key for key in keys if key.period.start < key.at]


def used_before(
    key: CutKey,
    windows: Iterable[tuple[WindowKey, WindowCells]],
    reports: Iterable[UsageReport],
    dated: DatedCounters = UNDATED,
) -> dict[str, int]:
    """What the cells say of the time before the cut, by counter.

    Args:
        key: the cut.
        windows: the period's windows that start before it.
        reports: counting reports of the windows that it splits.
        dated: counters that count from a date on; also given under their dated names.
    """
    early: dict[WindowKey, Cells] = {}
    for report in reports:
        if report.as_of <= key.at:
            early[report.window_key] = join(early.get(report.window_key, {}), claimed_cells(report))
    found: dict[str, int] = {}
    for window_key, held in windows:
        is_split = held.window.end > key.at
        known = early.get(window_key, {}) if is_split else {}
        for counter, cell in held.cells.items():
            quantity = min(cell.quantity, known[counter].quantity) if counter in known else cell.quantity
            found[counter] = found.get(counter, 0) + quantity
            for start in dated.inside(counter, key.period) if dated else ():
                name = dated_name(counter, start)
                found[name] = found.get(name, 0) + (quantity if window_key.start >= start else 0)
    return found
