"""Usage over time: exact sums of cells by day, week or month, the newest marked while its source still counts (L6)."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import NamedTuple

from quill_usage_ingest.domain.usage_cells import WindowCells, is_complete
from quill_usage_ingest.domain.usage_report import DAY, WindowKey


class SeriesInterval(StrEnum):
    """How much one point of a series covers. A week begins on Monday; everything is UTC."""

    DAY = "day"
    WEEK = "week"
    MONTH = "month"


class TeamAmount(NamedTuple):
    """What a team used of a counter in one interval, over all sources."""

    start: datetime
    team_id: str
    counter: str
    quantity: int
    is_partial: bool


class Amount(NamedTuple):
    """A quantity at an instant, to be added to a series."""

    at: datetime
    quantity: int
    is_partial: bool


class SeriesPoint(NamedTuple):
    """One interval [``start``, ``end``), cut to the span that was asked for."""

    start: datetime
    end: datetime
    quantity: int
    is_partial: bool


@dataclass(frozen=True, slots=True)
class SeriesSpan:
    """A half-open span of UTC days, in intervals."""

    start: datetime
    end: datetime
    interval: SeriesInterval

    def starts(self) -> list[datetime]:
        """Where each interval begins; the first may begin before the span and is cut to it when shown."""
        found = []
        at = interval_start(self.start, self.interval)
        while at < self.end:
            found.append(at)
            at = next_interval(at, self.interval)
        return found


def interval_start(at: datetime, interval: SeriesInterval) -> datetime:
    """The beginning of the interval that holds this instant."""
    day = datetime(at.year, at.month, at.day, tzinfo=UTC)
    match interval:
        case SeriesInterval.DAY:
            return day
        case SeriesInterval.WEEK:
            return day - timedelta(days=day.weekday())
        case SeriesInterval.MONTH:
            return day.replace(day=1)


def next_interval(start: datetime, interval: SeriesInterval) -> datetime:
    """The beginning of the interval after the one that begins here."""
    match interval:
        case SeriesInterval.DAY:
            return start + DAY
        case SeriesInterval.WEEK:
            return start + 7 * DAY
        case SeriesInterval.MONTH:
            return (start + 31 * DAY).replace(day=1)


def series(span: SeriesSpan, amounts: Iterable[Amount], *, now: datetime) -> list[SeriesPoint]:
    """One point per interval, also where nothing was used; their sum is the sum of the amounts.

    A point is partial while a source still counts in it, or while it is not over (L6).
    """
    quantities: dict[datetime, int] = {}
    partial: set[datetime] = set()
    for amount in amounts:
        start = interval_start(amount.at, span.interval)
        quantities[start] = quantities.get(start, 0) + amount.quantity
        if amount.is_partial:
            partial.add(start)
    return [
        SeriesPoint(
            max(start, span.start),
            min(next_interval(start, span.interval), span.end),
            quantities.get(start, 0),
            start in partial or min(next_interval(start, span.interval), span.end) > now,
        )
        for start in span.starts()
    ]


def amounts_of_windows(
    windows: Sequence[tuple[WindowKey, WindowCells]], counters: frozenset[str]
) -> list[tuple[str, str, Amount]]:
    """Source, counter and amount of every cell of these counters."""
    return [
        (key.source, counter, Amount(key.start, cell.quantity, is_partial=not is_complete(cell.rank)))
        for key, held in windows
        for counter, cell in held.cells.items()
        if counter in counters
    ]
