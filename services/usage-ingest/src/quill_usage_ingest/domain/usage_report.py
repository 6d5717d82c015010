"""A usage report: one source's claim of absolute counts for one organization and window."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final, NamedTuple

from quill_usage_ingest.domain.completeness import Completeness
from quill_usage_ingest.domain.usage_month import month_of

QUANTITY_MAX: Final = 10**15 - 1
"""Fifteen digits: the most one cell or one period of a counter may hold, in the counter's own unit."""
DAY: Final = timedelta(days=1)
WINDOWS_REMEMBERED: Final = 4_096


class InvalidWindow(ValueError):
    """The span is not within one UTC day."""


@dataclass(frozen=True, slots=True, order=True)
class UsageWindow:
    """A UTC day or a part of one, half-open (L1)."""

    start: datetime
    end: datetime
    day: datetime = field(init=False, compare=False, repr=False)
    """Midnight at which the window's UTC day begins."""
    month: datetime = field(init=False, compare=False, repr=False)
    """The first instant of its UTC month."""

    def __post_init__(self) -> None:
        """Refuse anything that is not inside one UTC day.

        Raises:
            InvalidWindow: naive, not UTC, empty, backwards or across midnight.
        """
        if self.start.utcoffset() != timedelta(0) or self.end.utcoffset() != timedelta(0):
            raise InvalidWindow("a window's ends must be instants in UTC (L21)")
        start = self.start
        object.__setattr__(self, "day", datetime(start.year, start.month, start.day, tzinfo=UTC))
        object.__setattr__(self, "month", month_of(start))
        if not self.start < self.end <= self.day + DAY:
            raise InvalidWindow("a window must end after its start and within the same UTC day (L1)")

    def overlaps(self, other: "UsageWindow") -> bool:
        return self.start < other.end and other.start < self.end


def window_of(start: datetime, end: datetime) -> UsageWindow:
    """The window between two instants, remembered: reports of a day share theirs.

    Raises:
        InvalidWindow: see `UsageWindow`.
    """
    # Equal instants of two zones are one key to a cache, and only one of them is UTC.
    return _remembered(start, end) if start.tzinfo is UTC and end.tzinfo is UTC else UsageWindow(start, end)


_remembered: Final = lru_cache(maxsize=WINDOWS_REMEMBERED)(UsageWindow)


class WindowKey(NamedTuple):
    """Whose cells, of which window, as counted by which source: one packed row."""

    organization_id: str
    start: datetime
    source: str


class DayKey(NamedTuple):
    """One source's UTC day of one organization; its windows may not overlap."""

    organization_id: str
    day: datetime
    source: str


class ReportName(NamedTuple):
    """What a source calls a report, in the UTC month of its window. Two contents under one name are a conflict.

    The month is part of the name so that a look among kept reports stays in one month, however long the history is.
    """

    organization_id: str
    source: str
    report_id: str
    month: datetime


@dataclass(frozen=True, slots=True)
class Correction:
    """Who lowers a number, and why (L3)."""

    actor: str
    reason: str


@dataclass(frozen=True, slots=True)
class UsageReport:
    """A claim. Counters are absolute for the window, integers in the counter's own unit.

    ``content_hash`` tells two claims under one ``report_id`` apart; it covers everything that was claimed.
    """

    report_id: str
    organization_id: str
    source: str
    window: UsageWindow
    completeness: Completeness
    as_of: datetime
    counters: Mapping[str, int]
    content_hash: bytes
    correction: Correction | None = None

    @property
    def window_key(self) -> WindowKey:
        return WindowKey(self.organization_id, self.window.start, self.source)

    @property
    def day_key(self) -> DayKey:
        return DayKey(self.organization_id, self.window.day, self.source)

    @property
    def name(self) -> ReportName:
        return ReportName(self.organization_id, self.source, self.report_id, self.window.month)
