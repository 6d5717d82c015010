"""Reports, cells, periods and corrections: what the use cases need of a store of usage."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from quill_usage_ingest.domain.correction import AppliedCorrection
from quill_usage_ingest.domain.counter_layout import CounterLayout
from quill_usage_ingest.domain.cut_usage import CutKey, CutUsage
from quill_usage_ingest.domain.meters import MeteredProduct
from quill_usage_ingest.domain.organization import Organization, UsageStanding
from quill_usage_ingest.domain.period_usage import PeriodUsage
from quill_usage_ingest.domain.usage_book import PeriodKey, Verdict
from quill_usage_ingest.domain.usage_cells import WindowCells
from quill_usage_ingest.domain.usage_report import DayKey, ReportName, UsageReport, WindowKey

SNAPSHOT_PERIODS = 3
"""Newest periods that travel in one snapshot."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """How a report came in: its exact bytes and where they stood (L4, L5).

    ``intake`` is ``kafka``, ``http``, ``queue-v1``, ``bucket-v2``, ``meter-events``, ``correction`` or ``backfill``;
    the position is empty where there is no log. ``note`` tells what was left out of the cells.
    """

    intake: str
    body: bytes
    topic: str | None = None
    partition: int | None = None
    offset: int | None = None
    note: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class ArrivedReport:
    """A report with its arrival."""

    report: UsageReport
    arrival: Arrival


@dataclass(frozen=True, slots=True)
class KeptReport:
    """A report as kept, for explaining a number (L5)."""

    id: int
    report_id: str
    source: str
    window_start: datetime
    window_end: datetime
    completeness: str
    as_of: datetime
    received_at: datetime
    intake: str
    topic: str | None
    partition: int | None
    offset: int | None
    verdict: str
    correction_actor: str | None
    correction_reason: str | None
    note: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True)
class KeptClaim:
    """A kept report with what it claims, in normal form, and the exact bytes it came in."""

    kept: KeptReport
    report: UsageReport
    body: bytes


class Corrections(Protocol):
    """What people corrected, beside a `UsageTransaction` and under the same row lock."""

    async def of_organization(self, organization_id: str) -> list[AppliedCorrection]:
        """All of them, oldest first, those taken back too."""
        ...

    async def save(self, correction: AppliedCorrection) -> None:
        """Insert, or replace when it was taken back; either is an event of its own (L20)."""
        ...


class TooManyCounters(Exception):
    """The registry of counter names is full; names the counter that found no slot."""

    def __init__(self, counter: str, slots_max: int) -> None:
        super().__init__(f"{counter}: the registry already holds {slots_max} counter names")
        self.counter = counter


class TooManyWindows(Exception):
    """A span holds more windows than one answer may; ask for a shorter one."""


class UsageTransaction(Protocol):
    """Reads and writes of one transaction; they appear together or not at all."""

    async def lock_organizations(self, organization_ids: Collection[str]) -> dict[str, Organization]:
        """The known ones among these, locked in the order of their ids until the end.

        Every writer of an organization's usage holds this lock, so rows below it need none of their own.
        """
        ...

    async def lock_standings(self, organization_ids: Collection[str]) -> dict[str, UsageStanding]:
        """The same lock, read for the hot path: what the customer snapshot says beside stays where it is."""
        ...

    async def organization(self, organization_id: str) -> Organization | None: ...

    async def organizations_after(self, organization_id: str, *, limit: int) -> list[str]:
        """The next ids in order, for going through all organizations page by page."""
        ...

    async def save_customer(self, organization: Organization) -> None:
        """Insert or replace the projection; never touches the usage revision."""
        ...

    async def archived_months(self) -> frozenset[datetime]:
        """First instants of the months whose reports and cells are out of reach; so they stay until the end."""
        ...

    async def windows_of_days(self, days: Collection[DayKey]) -> dict[WindowKey, WindowCells]: ...

    async def windows_between(
        self, organization_id: str, start: datetime, end: datetime
    ) -> list[tuple[WindowKey, WindowCells]]:
        """Windows that start in [``start``, ``end``), in order.

        Raises:
            MonthArchived: a part of the span is not here.
            TooManyWindows: more than one answer may hold.
        """
        ...

    async def windows_after(
        self, organization_id: str, after: WindowKey | None, *, limit: int
    ) -> list[tuple[WindowKey, WindowCells]]:
        """The next windows of an organization in order, for going through all that are not archived."""
        ...

    async def periods(self, keys: Collection[PeriodKey]) -> dict[PeriodKey, PeriodUsage]:
        """Stored usage of these periods, whether on the present schedule or not."""
        ...

    async def periods_in_force(self, organization_id: str, *, newest: int | None) -> list[PeriodUsage]:
        """The newest periods of the present schedule, oldest first; None for all of them."""
        ...

    async def counter_layout(self, counters: Collection[str]) -> CounterLayout:
        """A layout in which these counters have their slots.

        Raises:
            TooManyCounters: a new counter name found no slot.
        """
        ...

    async def known_contents(self, names: Collection[ReportName]) -> dict[ReportName, set[bytes]]: ...

    async def save_windows(self, windows: Mapping[WindowKey, WindowCells]) -> None:
        """Insert or replace packed rows.

        Raises:
            TooManyCounters: a new counter name found no slot.
        """
        ...

    async def delete_windows(self, keys: Collection[WindowKey]) -> None:
        """Forget windows that no report speaks for any more."""
        ...

    async def save_periods(self, periods: Mapping[PeriodKey, PeriodUsage]) -> None:
        """Insert or replace period usage; a saved period is in force."""
        ...

    async def retire_periods_except(self, organization_id: str, in_force: Collection[PeriodKey]) -> int:
        """Take all other periods of the organization out of force; they stay readable. Returns how many it took."""
        ...

    async def mark_late_usage(self, keys: Collection[PeriodKey]) -> None:
        """Let the present state of these periods be published one by one; their organizations become due."""
        ...

    async def cuts(self, keys: Collection[CutKey]) -> dict[CutKey, CutUsage]:
        """What is kept of the time before these cuts."""
        ...

    async def save_cuts(self, cuts: Mapping[CutKey, CutUsage]) -> None:
        """Insert or replace."""
        ...

    async def save_revisions(self, revisions: Mapping[str, int], *, is_publication_due: bool) -> None:
        """Set usage revisions. ``is_publication_due`` when nobody else has promised to publish them."""
        ...

    async def add_sources(self, sources: Mapping[str, Collection[str]]) -> None:
        """Remember, by organization, sources that report for it for the first time."""
        ...

    async def sources_of(self, organization_id: str) -> frozenset[str]:
        """Every source that ever reported for it."""
        ...

    async def keep_reports(self, reports: Sequence[tuple[ArrivedReport, Verdict]], *, now: datetime) -> None:
        """Keep each distinct content once."""
        ...

    async def kept_reports(
        self, organization_id: str, *, window_start: datetime | None, after_id: int, limit: int
    ) -> list[KeptReport]:
        """Kept reports by rising id, of one window or of all that are not archived.

        Raises:
            MonthArchived: the window is not here.
        """
        ...

    async def kept_reports_of_ids(self, organization_id: str, kept_ids: Collection[int]) -> dict[int, KeptReport]:
        """Those of these kept reports that are the organization's and not archived."""
        ...

    async def kept_claims(
        self, organization_id: str, start: datetime, end: datetime, *, source: str | None = None
    ) -> list[KeptClaim]:
        """Every distinct report ever kept for windows that start in [``start``, ``end``), oldest arrival first.

        Raises:
            MonthArchived: a part of the span is not here.
        """
        ...

    async def kept_claims_after(
        self, organization_id: str, start: datetime, end: datetime, *, after_id: int, limit: int
    ) -> list[KeptClaim]:
        """The next of the same by rising id, for reading a whole period page by page.

        Raises:
            MonthArchived: a part of the span is not here.
        """
        ...

    async def set_verdict(self, kept_ids: Collection[int], verdict: Verdict) -> None:
        """Say of kept reports that they count or do not; the caller rebuilds their windows."""
        ...

    async def has_organization(self, license_id: str) -> bool:
        """Whether this license is some organization's own."""
        ...

    async def accounts_of_further_license(self, license_id: str) -> list[str]:
        """Organizations that name this license as a further one of theirs; more than one is a contradiction."""
        ...

    async def save_further_licenses(self, organization_id: str, license_ids: Collection[str]) -> None:
        """Replace the further licenses of an organization."""
        ...

    async def metered_products(self) -> list[MeteredProduct]: ...

    async def save_metered_products(self, products: Collection[MeteredProduct]) -> None:
        """Insert or replace."""
        ...

    async def raise_all_revisions(self) -> int:
        """A new revision, due for publication, for every organization that has one. Returns how many."""
        ...
