"""What a team used in the newest billing periods of its organization (L2, L6, L10)."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final, NamedTuple

from quill_pricing.period import BillingPeriod
from quill_pricing.schedule_history import Schedules

from quill_usage_ingest.domain.archived_month import first_archived
from quill_usage_ingest.domain.usage_book import CLOCK_TOLERANCE

PERIODS_MAX: Final = 2
"""Newest periods with usage that travel in one snapshot."""
TOTAL_MAX: Final = 2**63 - 1
"""The most a message carries. An organization's own total is refused far below, so only nonsense reaches it."""
_MICROSECOND: Final = timedelta(microseconds=1)


class TeamName(NamedTuple):
    """Which team of which organization."""

    organization_id: str
    team_id: str


class TeamSpan(NamedTuple):
    """A team in one billing period."""

    team: TeamName
    period: BillingPeriod


class TeamMeterUsage(NamedTuple):
    """One meter: sums over windows their source calls finished, and over those it still counts (L6)."""

    complete: int = 0
    partial: int = 0


TeamMeters = Mapping[str, TeamMeterUsage]
"""Usage by meter; one that was never reported is absent."""


@dataclass(frozen=True, slots=True)
class TeamPeriod:
    """All meters of a team in one billing period."""

    period: BillingPeriod
    meters: TeamMeters


@dataclass(frozen=True, slots=True)
class TeamUsage:
    """A team's snapshot: its newest periods with usage, newest first; revision 0 before the first one."""

    revision: int = 0
    periods: tuple[TeamPeriod, ...] = ()

    def counted_anew(self, sums: Mapping[BillingPeriod, TeamMeters | None]) -> "TeamUsage":
        """With what was added up now; this very snapshot when nothing in it is another.

        Args:
            sums: By period, newest first; None for one that cannot be added up any more, which stays as it is.
        """
        held = {known.period: known.meters for known in self.periods}
        counted = [(period, held.get(period, {}) if meters is None else meters) for period, meters in sums.items()]
        periods = tuple(TeamPeriod(period, meters) for period, meters in counted if meters)[:PERIODS_MAX]
        return self if periods == self.periods else replace(self, revision=self.revision + 1, periods=periods)


def periods_to_count(schedules: Schedules, now: datetime) -> list[BillingPeriod]:
    """The open period and the one before it, newest first.

    Windows may begin a little ahead of our clock, so shortly before its beginning the next one is among them.
    """
    latest, open_now = schedules.period_containing(now + CLOCK_TOLERANCE), schedules.period_containing(now)
    previous = schedules.period_containing(open_now.start - _MICROSECOND)
    return list(dict.fromkeys((latest, open_now, previous)))


def is_out_of_reach(period: BillingPeriod, archived: Collection[datetime]) -> bool:
    """Whether some of its cells are in an archive, so that adding up would give less than was used."""
    return first_archived(archived, period.start, period.end) is not None
