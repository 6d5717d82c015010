"""Usage: what a source claims (a report) and what Quill makes of it (period usage)."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from quill_contracts.identifiers import (
    CounterName,
    Instant,
    LicenseId,
    OrganizationId,
    PeriodTotal,
    Quantity,
    Revision,
    SourceName,
    TeamId,
    UsageKey,
)
from quill_contracts.message import Message, WireModel

WINDOW_SECONDS_MAX = 86_400
CUTS_PER_PERIOD_MAX = 80
"""Persons may cause 64 cuts in a period; what time causes (the end of a trial) comes on top."""

Completeness = Literal["partial", "complete"]
Counters = Annotated[dict[CounterName, Quantity], Field(max_length=1_000)]


class Correction(WireModel):
    """Who lowers a number, and why: the only way a period maximum may fall (L3)."""

    actor: Annotated[str, Field(min_length=1, max_length=200)]
    reason: Annotated[str, Field(min_length=1, max_length=1_000)]


class UsageReport(Message):
    """One source's absolute counts for one organization and window (``usage.reports.v1``).

    Reports of one (organization, window, source) merge by (completeness, as-of), larger quantity between equals (L1);
    so a repeat, a re-send or another order changes nothing.
    """

    report_id: Annotated[str, Field(min_length=1, max_length=200)]
    source: SourceName
    organization_id: OrganizationId
    window_start: Instant
    window_end: Instant
    completeness: Completeness
    as_of: Instant
    counters: Counters
    teams: Annotated[dict[str, Counters], Field(max_length=100_000)] = {}
    correction: Correction | None = None
    license_id: LicenseId | None = None

    @model_validator(mode="after")
    def _window_is_a_utc_day_or_shorter(self) -> "UsageReport":
        seconds = (self.window_end - self.window_start).total_seconds()
        if not 0 < seconds <= WINDOW_SECONDS_MAX:
            raise ValueError("window_end must be after window_start and at most one day later (L1)")
        if (self.window_end - self.window_start.replace(hour=0, minute=0, second=0, microsecond=0)).days > 1 or (
            self.window_end.date() != self.window_start.date()
            and self.window_end.time().replace(tzinfo=None) != self.window_end.min.time()
        ):
            raise ValueError("window_end must fall in the same UTC day as window_start, or at its midnight (L1)")
        return self


class MeterUsage(WireModel):
    """One meter's usage in one billing period.

    ``complete`` and ``partial`` are the sums over days the source calls finished and over days it still counts (L6);
    ``maximum`` is the largest period-to-date value ever published (L3), or the last value of a meter that bills that.
    """

    complete: PeriodTotal
    partial: PeriodTotal
    maximum: PeriodTotal


class UsageCut(WireModel):
    """What every meter had used in the billing period before ``at``: an instant that a bill depends on (L12)."""

    at: Instant
    used: dict[UsageKey, PeriodTotal]
    """The greatest value ever published for the meter at this cut, unless a correction of the meter lowered it (L3)."""


class PeriodUsage(WireModel):
    """All meters of one organization in one billing period [``period_start``, ``period_end``)."""

    period_start: Instant
    period_end: Instant
    as_of: Instant
    """The newest as-of instant among the reports merged so far."""
    customer_revision: Annotated[int, Field(ge=0, strict=True)] = 0
    """The newest customer snapshot that was applied: its cuts inside this period are in ``cuts``."""
    meters: dict[UsageKey, MeterUsage]
    cuts: Annotated[list[UsageCut], Field(max_length=CUTS_PER_PERIOD_MAX)] = []
    """Rising."""


class PeriodUsageSnapshot(Message):
    """The newest periods of one organization, complete, with a revision (``usage.period-usage.v1``).

    Several periods travel together because the topic is compacted by organization: a late report for last month must
    not erase this month, and the other way round.
    """

    organization_id: OrganizationId
    revision: Revision
    periods: Annotated[list[PeriodUsage], Field(max_length=3)]
    sources: list[SourceName] = []
    """Every source that ever reported for this organization, in order: one that was silent for a whole period is named
    all the same, so that its hole can be seen."""


class LateUsage(Message):
    """Changed usage of one billing period that is older than those in the snapshot (``usage.late-usage.v1``).

    Usage is taken up to 400 days late. The record carries the whole period at the organization's usage revision: keep
    the highest revision of each period, whichever topic it came on.
    """

    organization_id: OrganizationId
    revision: Revision
    period: PeriodUsage


class TeamMeterUsage(WireModel):
    """One meter's usage by one team in one billing period, complete and partial days apart (L6).

    There is no maximum: nothing is billed by teams.
    """

    complete: PeriodTotal
    partial: PeriodTotal


class TeamPeriodUsage(WireModel):
    """All meters of one team in one billing period of its organization [``period_start``, ``period_end``)."""

    period_start: Instant
    period_end: Instant
    meters: dict[UsageKey, TeamMeterUsage]


class TeamUsageSnapshot(Message):
    """The newest periods of one team (PostHog's project), newest first, with a revision (``usage.team-usage.v1``).

    One message per team, keyed ``<organization_id>/<team_id>``: an organization may have a hundred thousand of them.
    The revision rises strictly whenever anything in the snapshot changes; a reader keeps the highest. Without periods
    the team used nothing in them any more. Only meters that counters feed are here; meter events name no team.
    """

    organization_id: OrganizationId
    team_id: TeamId
    revision: Revision
    periods: Annotated[list[TeamPeriodUsage], Field(max_length=2)]

    @property
    def key(self) -> str:
        """The record's key; an organization's id holds no slash, so it ends at the first one."""
        return team_usage_key(self.organization_id, self.team_id)


def team_usage_key(organization_id: str, team_id: str) -> str:
    """The key of ``usage.team-usage.v1`` for a team."""
    return f"{organization_id}/{team_id}"
