"""Entering reports: cells, period usage and revisions of the organizations at hand, changed together."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from functools import lru_cache
from typing import Final, NamedTuple

from quill_pricing.period import BillingPeriod
from quill_pricing.schedule_history import Schedules

from quill_usage_ingest.domain.archived_month import MonthArchived, first_archived
from quill_usage_ingest.domain.counter_layout import CounterLayout
from quill_usage_ingest.domain.dated_counters import UNDATED, DatedCounters
from quill_usage_ingest.domain.packed_cells import Changes, PackedCells, SlotChange
from quill_usage_ingest.domain.packed_counters import PackedCounters
from quill_usage_ingest.domain.period_usage import PeriodUsage
from quill_usage_ingest.domain.usage_cells import WindowCells, rank_of
from quill_usage_ingest.domain.usage_report import QUANTITY_MAX, DayKey, ReportName, UsageReport, WindowKey

CLOCK_TOLERANCE: Final = timedelta(days=2)
"""How far a source's clock may run ahead of ours. An as-of instant of the year 9999 would win its cell for ever (L1),
and windows of the next century would push today's period out of the snapshot."""
USAGE_LATE_MAX: Final = timedelta(days=400)
"""How late usage may be told and still be billed, as an adjustment (D6)."""
MONTH_ARCHIVED: Final = "month_archived"
YEARS: Final = range(1971, 9000)
"""Windows outside cannot be placed in a billing period; no honest report has one."""
PERIODS_REMEMBERED: Final = 16_384


@lru_cache(maxsize=PERIODS_REMEMBERED)
def _period_containing(schedules: Schedules, instant: datetime) -> BillingPeriod:
    """Most customers share a schedule, and a day's reports an instant; the calendar is half of what entering costs."""
    return schedules.period_containing(instant)


class Verdict(StrEnum):
    """What became of a report that was entered."""

    APPLIED = "applied"
    """It won at least one cell."""
    NO_CHANGE = "no_change"
    """All it claims was known already."""
    SUPERSEDED = "superseded"
    """Claims of higher rank hold its cells."""
    CONFLICT = "conflict"
    """Another content is known under its name; merged by rank all the same, and both are kept."""
    VOIDED = "voided"
    """Taken out of count by a correction: kept, and without effect until the correction is reverted (L3)."""
    SHADOWED = "shadowed"
    """Of a report generation that is compared and does not count."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """A report that cannot be entered as it is: nothing was changed, it is to be parked (L4)."""

    code: str
    detail: str
    attribute: str
    subject: str


class PeriodKey(NamedTuple):
    """One billing period of one organization."""

    organization_id: str
    period: BillingPeriod


@dataclass(slots=True)
class UsageBook:
    """What is known of some organizations, and what entering reports made of it.

    Loaded with all windows of the days and all periods that the reports touch. Reports are entered one by one in the
    order they came, so the maxima do not depend on how a log happened to be cut into batches (L3). A layout that lacks
    a counter grows here; a store that keeps slots gives it whole.

    Attributes:
        archived: months whose cells are not at hand; a report about one cannot be merged.
    """

    schedules: Mapping[str, Schedules]
    revisions: Mapping[str, int]
    windows: dict[WindowKey, WindowCells] = field(default_factory=dict)
    periods: dict[PeriodKey, PeriodUsage] = field(default_factory=dict)
    known_contents: dict[ReportName, set[bytes]] = field(default_factory=dict)
    layout: CounterLayout = field(default_factory=CounterLayout)
    archived: frozenset[datetime] = frozenset()
    changed_windows: set[WindowKey] = field(default_factory=set)
    changed_periods: set[PeriodKey] = field(default_factory=set)
    dated: DatedCounters = UNDATED
    _starts_by_day: dict[DayKey, set[datetime]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.know_windows(self.windows)

    def know_windows(self, windows: Mapping[WindowKey, WindowCells]) -> None:
        """Take in stored windows, indexed by day so that overlaps are seen."""
        self.windows |= windows
        for key, window in windows.items():
            self._starts_by_day.setdefault(DayKey(key.organization_id, window.window.day, key.source), set()).add(
                key.start
            )

    @property
    def new_revisions(self) -> dict[str, int]:
        """The next revision of every organization that changed: one per batch, however many reports changed it."""
        return {key.organization_id: self.revisions[key.organization_id] + 1 for key in self.changed_periods}

    def period_key(self, report: UsageReport) -> PeriodKey:
        """The billing period that a report of a known organization counts towards: where its window starts (L2)."""
        organization_id = report.organization_id
        return PeriodKey(organization_id, _period_containing(self.schedules[organization_id], report.window.start))

    def enter(self, report: UsageReport, *, now: datetime) -> Verdict | Refusal:
        """Merge a report by rank and bring its period up to date.

        A content that is kept already has had its effect, or has been denied it by a correction: it changes nothing.
        """
        if report.organization_id not in self.schedules:
            return unknown_organization(report.organization_id)
        if self.archived and report.window.month in self.archived:
            return _month_archived(report, report.window.month)
        name = report.name
        if report.content_hash in self.known_contents.get(name, ()):
            return Verdict.NO_CHANGE
        refusal = self._refuse(report, now=now)
        if refusal is not None:
            return refusal
        key, period_key = report.window_key, self.period_key(report)
        known, usage = self.windows.get(key), self.periods.get(period_key)
        self._take_up(known.cells if known else {}, usage.counters if usage else {})
        self.layout = self.layout.extended(self.dated_names(report))
        rank, claimed = rank_of(report.completeness, report.as_of), report.counters.values()
        slots = self._places(report.counters)
        layout = self.layout
        held = PackedCells.of(known.cells if known else {}, layout)
        cells, changes = held.joined(layout, slots, claimed, rank=rank)
        moves = [*changes, *self._dated_moves(changes, report, usage)] if self.dated else changes
        counters, largest = PackedCounters.of(usage.counters if usage else {}, layout).moved(
            layout, moves, rank=rank, is_correction=report.correction is not None
        )
        if largest > QUANTITY_MAX:
            return _overflow(report, counters, changes)
        if changes:
            self.windows[key] = WindowCells(known.window if known else report.window, cells)
            self.changed_windows.add(key)
            if known is None:
                self._starts_by_day.setdefault(report.day_key, set()).add(key.start)
        if changes or usage is None or report.as_of > usage.as_of:
            revision = self.revisions[report.organization_id] + 1
            self.periods[period_key] = PeriodUsage(
                period=period_key.period,
                as_of=max(usage.as_of, report.as_of) if usage else report.as_of,
                revision=revision,
                counters=counters,
            )
            self.changed_periods.add(period_key)
        is_known = not changes and held.holds(slots, claimed, rank=rank)
        return self._verdict(name, report.content_hash, is_known=is_known, changes=changes)

    def dated_names(self, report: UsageReport) -> list[str]:
        """Under which further names the report's counters are kept in its period (`DatedCounters`)."""
        if not self.dated or report.window.start.year not in YEARS:
            return []
        period = self.period_key(report).period
        return [name for counter in report.counters for name in self.dated.names(counter, period)]

    def _dated_moves(self, changes: Changes, report: UsageReport, usage: PeriodUsage | None) -> Iterable[SlotChange]:
        return self.dated.moves(
            changes,
            layout=self.layout,
            window_start=report.window.start,
            period=self.period_key(report).period,
            known=usage.counters if usage else {},
        )

    def _take_up(self, *rows: Mapping[str, object]) -> None:
        """See to it that every counter of these rows has a slot, and keep the slots that stored rows were packed by."""
        for row in rows:
            if isinstance(row, PackedCells | PackedCounters):
                if self.layout.continues(row.layout):
                    continue
                if row.layout.continues(self.layout):
                    self.layout = row.layout
                    continue
            if not row.keys() <= self.layout.slots.keys():
                self.layout = self.layout.extended(row)

    def _places(self, counters: Mapping[str, int]) -> tuple[int, ...]:
        """The slots of a report's counters, which get one if they have none."""
        try:
            return self.layout.places(counters)
        except KeyError:
            self.layout = self.layout.extended(counters)
            return self.layout.places(counters)

    def _refuse(self, report: UsageReport, *, now: datetime) -> Refusal | None:
        subject = report.organization_id
        refusal = _refuse_time(report, now=now)
        if refusal is not None:
            return refusal
        if self.archived and self.period_key(report) not in self.periods:
            # It would begin a period of which nobody can add up the part that is not here.
            period = self.period_key(report).period
            month = first_archived(self.archived, period.start, period.end)
            if month is not None:
                return _month_archived(report, month)
        for start in self._starts_by_day.get(report.day_key, ()):
            other = self.windows[WindowKey(report.organization_id, start, report.source)].window
            if other != report.window and other.overlaps(report.window):
                detail = (
                    f"{report.source} already reported {other.start.isoformat()} to {other.end.isoformat()};"
                    " overlapping windows would count usage twice"
                )
                return Refusal("overlapping_window", detail, "window_end", subject)
        return None

    def _verdict(self, name: ReportName, content: bytes, *, is_known: bool, changes: Changes) -> Verdict:
        others = self.known_contents.setdefault(name, set())
        is_conflict = bool(others)  # this very content has returned above
        others.add(content)
        if is_conflict:
            return Verdict.CONFLICT
        if changes:
            return Verdict.APPLIED
        return Verdict.NO_CHANGE if is_known else Verdict.SUPERSEDED


def unknown_organization(organization_id: str) -> Refusal:
    """The organization has no customer snapshot yet; its reports wait until one arrives."""
    return Refusal(
        "unknown_organization",
        f"no customer is known for organization {organization_id}; replayed when its first snapshot arrives",
        "organization_id",
        organization_id,
    )


def _refuse_time(report: UsageReport, *, now: datetime) -> Refusal | None:
    """A clock that runs far ahead, and windows that no bill can hold any more."""
    subject = report.organization_id
    if report.window.start.year not in YEARS:
        return Refusal("window_out_of_range", "no billing period can hold this window", "window_start", subject)
    if report.as_of > now + CLOCK_TOLERANCE:
        detail = f"as_of is more than {CLOCK_TOLERANCE.days} days ahead of {now.isoformat()}"
        return Refusal("as_of_in_the_future", detail, "as_of", subject)
    if report.window.start > now + CLOCK_TOLERANCE:
        detail = f"the window begins more than {CLOCK_TOLERANCE.days} days ahead of {now.isoformat()}"
        return Refusal("window_in_the_future", detail, "window_start", subject)
    if report.window.start < now - USAGE_LATE_MAX:
        return usage_too_old("the window begins", "window_start", subject, now=now)
    return None


def usage_too_old(what: str, attribute: str, subject: str, *, now: datetime) -> Refusal:
    """Nobody could be billed for it any more (D6)."""
    detail = (
        f"{attribute}: {what} before {(now - USAGE_LATE_MAX).date().isoformat()}; usage is taken up to"
        f" {USAGE_LATE_MAX.days} days late. Settle older usage by a credit or a manual invoice"
    )
    return Refusal("usage_too_old", detail, attribute, subject)


def _month_archived(report: UsageReport, month: datetime) -> Refusal:
    """Entering it needs cells of a month that is not here (L2)."""
    detail = f"window_start: {MonthArchived(month)}; then replay this report"
    return Refusal(MONTH_ARCHIVED, detail, "window_start", report.organization_id)


def _overflow(report: UsageReport, after: PackedCounters, changes: Changes) -> Refusal:
    """A period total beyond fifteen digits cannot be published or billed; a person must look at the claim."""
    slot = next(slot for slot, *_ in changes if after.complete[slot] + after.partial[slot] > QUANTITY_MAX)
    counter = after.layout.names[slot]
    detail = f"{counter}: the period's total would pass {QUANTITY_MAX}"
    return Refusal("period_overflow", detail, f"counters__{counter}", report.organization_id)
