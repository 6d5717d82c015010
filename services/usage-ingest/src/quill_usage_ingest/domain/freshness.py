"""How fresh a total is: from how many of the sources it is expected from, complete through when."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from quill_pricing.period import BillingPeriod

from quill_usage_ingest.domain.usage_source import SourceState, UsageSource


@dataclass(frozen=True, slots=True)
class ParkedGroup:
    """Reports that could not be entered: of which source, whose, of windows that start when.

    A None could not be read, so it may be any: such a report counts wherever it could belong.
    """

    source: str | None
    window_start: datetime | None
    count: int


@dataclass(frozen=True, slots=True)
class SourceFreshness:
    """One source of a total; ``parked`` are its reports for this organization and period."""

    source: UsageSource
    parked: int


@dataclass(frozen=True, slots=True)
class Freshness:
    """Of one organization's usage in one period.

    Attributes:
        sources: Every source it has ever had usage of, and those its licenses report under, by name.
        parked_unread: Parked reports that may be of any source, because theirs could not be read.
        first_parked: When the earliest window of a parked report may begin.
    """

    period: BillingPeriod
    sources: tuple[SourceFreshness, ...]
    parked_unread: int = 0
    first_parked: datetime | None = None

    @property
    def expected(self) -> tuple[SourceFreshness, ...]:
        return tuple(each for each in self.sources if each.source.is_expected)

    @property
    def complete(self) -> tuple[SourceFreshness, ...]:
        """The expected ones whose word reaches into the period; the total is whole up to `complete_through` of them."""
        return tuple(each for each in self.expected if self._reach(each) is not None)

    @property
    def complete_through(self) -> datetime | None:
        """The least of their watermarks, at most the period's end; None when none reaches into it."""
        return min((reach for each in self.complete if (reach := self._reach(each)) is not None), default=None)

    @property
    def parked(self) -> int:
        return sum(each.parked for each in self.sources) + self.parked_unread

    @property
    def known_through(self) -> datetime | None:
        """Up to then a window that nobody reported was zero, not lost; None when nothing can be said.

        Every expected source has told everything before, and nothing is parked that may belong there.
        """
        through = self.complete_through
        if through is None or len(self.complete) < len(self.expected):
            return None
        known = through if self.first_parked is None else min(through, self.first_parked)
        return known if known > self.period.start else None

    @property
    def sentence(self) -> str:
        """For people."""
        expected, complete, through = self.expected, self.complete, self.complete_through
        if not expected:
            said = "No source is expected, so how complete this is cannot be said"
        elif through is None:
            said = f"From 0 of {_sources(len(expected))}: none has said that it is complete in this period"
        else:
            said = f"From {len(complete)} of {_sources(len(expected))}, complete through {_instant(through)}"
        missing = [each.source.source for each in expected if each not in complete]
        if through is not None and missing:
            said += f"; nothing said of this period: {', '.join(missing)}"
        silent = [each.source for each in self.sources if each.source.state is SourceState.SILENT]
        for source in silent:
            since = f" since {_instant(source.silent_since)}" if source.silent_since else ""
            said += f"; {source.source} is silent{since}"
        if self.parked:
            said += f"; {self.parked:,} report{'s' if self.parked != 1 else ''} parked"
        return said + "."

    def _reach(self, each: SourceFreshness) -> datetime | None:
        through = each.source.complete.through
        return None if through is None or through <= self.period.start else min(through, self.period.end)


def freshness_of(
    period: BillingPeriod,
    names: Collection[str],
    *,
    known: Mapping[str, UsageSource],
    parked: Iterable[ParkedGroup],
) -> Freshness:
    """Put together what is known of the sources of one organization; one nobody has declared is not expected."""
    counts = dict.fromkeys(names, 0)
    unread = 0
    starts = []
    for group in parked:
        start = period.start if group.window_start is None else group.window_start
        if not period.start <= start < period.end:
            continue
        starts.append(start)
        if group.source is not None and group.source in counts:
            counts[group.source] += group.count
        else:
            unread += group.count
    sources: Sequence[SourceFreshness] = [
        SourceFreshness(known.get(name, UsageSource(source=name)), count) for name, count in sorted(counts.items())
    ]
    return Freshness(period, tuple(sources), unread, min(starts, default=None))


def _sources(count: int) -> str:
    return f"{count} expected source{'' if count == 1 else 's'}"


def _instant(instant: datetime) -> str:
    return instant.strftime("%Y-%m-%dT%H:%MZ")
