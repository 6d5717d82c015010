"""What the use cases need of a store. Two stores keep it: Postgres and memory, held to one behaviour suite."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple, Protocol

from quill_pricing.schedule_history import Schedules

from quill_usage_ingest.domain.correction import AppliedCorrection
from quill_usage_ingest.domain.counter_layout import CounterLayout
from quill_usage_ingest.domain.event_aggregate import Aggregate
from quill_usage_ingest.domain.event_book import EventPeriodKey, EventWindowKey, Feed, SeenValue
from quill_usage_ingest.domain.event_meter import EventMeter, Group
from quill_usage_ingest.domain.freshness import ParkedGroup
from quill_usage_ingest.domain.meter_event import MeterEvent, Moment
from quill_usage_ingest.domain.meters import MeteredProduct, MeterMap
from quill_usage_ingest.domain.organization import Organization, UsageStanding
from quill_usage_ingest.domain.period_usage import PeriodUsage
from quill_usage_ingest.domain.team_cells import TeamRows
from quill_usage_ingest.domain.team_usage import TeamMeters, TeamName, TeamSpan, TeamUsage
from quill_usage_ingest.domain.usage_book import PeriodKey, Verdict
from quill_usage_ingest.domain.usage_cells import WindowCells
from quill_usage_ingest.domain.usage_report import DayKey, ReportName, UsageReport, WindowKey
from quill_usage_ingest.domain.usage_series import TeamAmount
from quill_usage_ingest.domain.usage_source import SourceEvent, UsageSource
from quill_usage_ingest.domain.watermark import LogEnds, WatermarkClaim

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

    async def set_verdict(self, kept_ids: Collection[int], verdict: Verdict) -> None:
        """Say of kept reports that they count or do not; the caller rebuilds their windows."""
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


@dataclass(frozen=True, slots=True)
class CounterRecount:
    """How far the recount for these dates has come (`DatedCounters.text`): the last organization, None when through."""

    dated: str = ""
    after: str | None = None


class MeterRecounts(Protocol):
    """What is counted anew because the catalog changed."""

    async def hold_meters(self) -> None:
        """For who changes the catalog: nobody else decides by it until the end. Taken before every other lock."""
        ...

    async def share_meters(self) -> None:
        """For who must not miss a change of the catalog: none until the end. Taken before every other lock."""
        ...

    async def counter_recount(self) -> CounterRecount: ...

    async def save_counter_recount(self, recount: CounterRecount) -> None: ...


@dataclass(frozen=True, slots=True)
class ArrivedEvent:
    """An event with its arrival."""

    event: MeterEvent
    arrival: Arrival


@dataclass(frozen=True, slots=True)
class KeptEvent:
    """An event as kept, with the exact bytes it came in."""

    event: MeterEvent
    received_at: datetime
    intake: str
    topic: str | None
    partition: int | None
    offset: int | None
    body: bytes


class EventRecount(NamedTuple):
    """An organization whose kept events are counted anew for a meter; those up to ``reached`` are."""

    organization_id: str
    feed_id: int
    reached: Moment


class EventTransaction(MeterRecounts, Protocol):
    """Reads and writes of meter events in one transaction; writers hold the lock of the organization's row."""

    async def feeds(self) -> list[Feed]:
        """The event meters at work."""
        ...

    async def add_feed(self, meter: EventMeter) -> Feed: ...

    async def retire_feed(self, feed_id: int) -> None:
        """Its aggregates are of no use any more; a job removes them."""
        ...

    async def begin_recounts(self, feed: Feed) -> int:
        """Mark every organization that ever sent events of the feed's type; returns how many."""
        ...

    async def recounts(self, organization_ids: Collection[str]) -> dict[tuple[str, int], Moment]:
        """How far the recounts of these organizations have come, by organization and feed."""
        ...

    async def next_recount(self) -> EventRecount | None: ...

    async def save_recount(self, recount: EventRecount) -> None: ...

    async def finish_recount(self, recount: EventRecount) -> None: ...

    async def claim_names(self, contents: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
        """Take these names, each for a content; returns those that were taken before, with their contents."""
        ...

    async def release_names(self, names: Collection[bytes]) -> None:
        """Give back names claimed in this transaction."""
        ...

    async def contents(self, names: Collection[bytes]) -> dict[bytes, bytes]: ...

    async def keep_events(self, arrived: Sequence[ArrivedEvent], *, now: datetime) -> None: ...

    async def kept_events(
        self,
        organization_id: str,
        start: datetime,
        end: datetime,
        *,
        event_type: str | None = None,
        after: Moment | None = None,
        limit: int,
    ) -> list[KeptEvent]:
        """Events whose time lies in [``start``, ``end``), in the order of their moments, after one of them."""
        ...

    async def events_at(self, organization_id: str, moments: Collection[Moment]) -> dict[Moment, KeptEvent]: ...

    async def count_events(self, organization_id: str, event_type: str, start: datetime, end: datetime) -> int: ...

    async def event_windows(self, keys: Collection[EventWindowKey]) -> dict[EventWindowKey, Aggregate]: ...

    async def event_windows_between(
        self, feed_id: int, organization_id: str, start: datetime, end: datetime, *, limit: int
    ) -> list[tuple[EventWindowKey, Aggregate]]:
        """Windows that start in [``start``, ``end``), wholes and groups, by start."""
        ...

    async def whole_windows(self, feed_id: int, organization_id: str) -> list[tuple[datetime, Aggregate]]:
        """Every window as a whole, without its groups, by start."""
        ...

    async def save_event_windows(self, windows: Mapping[EventWindowKey, Aggregate]) -> None: ...

    async def event_periods(self, keys: Collection[EventPeriodKey]) -> dict[EventPeriodKey, Aggregate]: ...

    async def event_periods_of(self, organization_id: str) -> dict[EventPeriodKey, Aggregate]: ...

    async def save_event_periods(self, periods: Mapping[EventPeriodKey, Aggregate]) -> None: ...

    async def delete_event_periods(self, keys: Collection[EventPeriodKey]) -> None: ...

    async def seen_values(
        self, periods: Mapping[SeenValue, EventPeriodKey | None]
    ) -> tuple[set[SeenValue], set[tuple[EventPeriodKey, bytes]]]:
        """Which of these values their windows have already, and which of those with a period that period has."""
        ...

    async def save_values(self, values: Collection[SeenValue]) -> None: ...

    async def distinct_values(
        self,
        feed_id: int,
        organization_id: str,
        spans: Sequence[tuple[datetime, datetime]],
        buckets: Mapping[Group | None, str],
    ) -> dict[tuple[int, str], int]:
        """How many different values windows starting in each span have, by position of the span and bucket of group."""
        ...


class TeamTransaction(Protocol):
    """Reads and writes of team cells in one transaction, which need and take no lock of the organization's rows."""

    async def hold_teams(self, organization_ids: Collection[str], *, counters: Collection[str]) -> None:
        """Keep other writers of these organizations' team rows out until the end; the counters have slots then.

        Raises:
            TooManyCounters: a new counter name found no slot.
        """
        ...

    async def out_of_count(self, names: Collection[ReportName]) -> set[tuple[object, bytes]]:
        """Which reports of these names do not count (voided, shadowed), with their content hashes."""
        ...

    async def archived_months(self) -> frozenset[datetime]:
        """As of a `UsageTransaction`; read before rows are written."""
        ...

    async def team_rows_of_days(self, days: Collection[DayKey]) -> TeamRows: ...

    async def save_team_rows(self, rows: TeamRows) -> None:
        """Insert or replace packed rows whose counters have slots."""
        ...

    async def forget_team_windows(self, windows: Collection[WindowKey]) -> set[TeamName]:
        """Remove the rows of these windows; returns whose they were."""
        ...

    async def mark_teams(self, teams: Collection[TeamName]) -> None:
        """Have these teams' usage added up again; the last write of the transaction."""
        ...

    async def team_amounts(
        self,
        organization_id: str,
        start: datetime,
        end: datetime,
        *,
        interval: str,
        counters: Collection[str],
        team_ids: Collection[str] | None,
        limit: int,
    ) -> list[TeamAmount]:
        """Sums by interval (day, week, month), team and counter of windows starting in [``start``, ``end``).

        Raises:
            MonthArchived: a part of the span is not here.
        """
        ...

    async def team_ids(self, organization_id: str, start: datetime, end: datetime, *, limit: int) -> list[str]:
        """Teams that have rows in [``start``, ``end``).

        Raises:
            MonthArchived: a part of the span is not here.
        """
        ...


class TeamUsageTransaction(Protocol):
    """Adding up what marked teams used, in one transaction; it takes no lock that a writer of cells waits for long."""

    async def take_marked_teams(
        self, organization_ids: Collection[str] | None, *, limit: int
    ) -> dict[TeamName, TeamUsage]:
        """Unmark the next teams of these organizations, or of all, and hold what is kept of them until the end.

        Whatever is marked from then on waits for the end and marks again. Teams that somebody else holds are left out.
        """
        ...

    async def schedules_of(self, organization_ids: Collection[str]) -> dict[str, Schedules]:
        """What makes the billing periods of the known ones among these."""
        ...

    async def metered_products(self) -> list[MeteredProduct]: ...

    async def archived_months(self) -> frozenset[datetime]:
        """As of a `UsageTransaction`."""
        ...

    async def team_sums(self, spans: Sequence[TeamSpan], meters: MeterMap) -> dict[TeamSpan, TeamMeters]:
        """What team cells whose window starts in each period add up to, by meter; absent where nothing was reported.

        Where a person replaced a counter of the organization's window, nobody knows which team used what is left of it,
        so its team cells do not count.
        """
        ...

    async def save_team_usage(self, usages: Mapping[TeamName, TeamUsage]) -> None:
        """Keep these; a new revision is due for publication, and so every team ever marked is known."""
        ...

    async def sweep_teams(self, *, limit: int) -> int:
        """Mark the next teams of organizations whose teams must all be added up again; 0 when nothing is left."""
        ...

    async def begin_sweeps(self, organization_ids: Collection[str]) -> None:
        """Have every team of these organizations added up again, from the first one on."""
        ...


@dataclass(frozen=True, slots=True)
class Unfenced:
    """What waits to learn where the logs of reports end."""

    claim_ids: tuple[int, ...] = ()
    letter_ids: tuple[int, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.claim_ids or self.letter_ids)


class SourceViews(Protocol):
    """Reading sources, the claims that wait and what is parked."""

    async def sources(self, names: Collection[str] | None = None) -> dict[str, UsageSource]:
        """The known ones among these, or all."""
        ...

    async def sources_as_of(self, names: Collection[str], at: datetime) -> dict[str, UsageSource]:
        """What was known of them at an instant, folded from their events."""
        ...

    async def waiting_claims(self, source: str | None = None) -> list[WatermarkClaim]:
        """Claims of a source, or of all, that do not count yet, oldest first."""
        ...

    async def parked_groups(
        self, organization_id: str, sources: Collection[str], *, at: datetime | None = None
    ) -> list[ParkedGroup]:
        """What is parked, or was at an instant, that may be of this organization."""
        ...


class SourceTransaction(SourceViews, Protocol):
    """Reads and writes of sources, their watermarks and what of them is parked, in one transaction."""

    async def lock_sources(self, names: Collection[str]) -> dict[str, UsageSource]:
        """All of these, locked in the order of their names until the end; one not known yet is there, unheard."""
        ...

    async def known_sources(self) -> int: ...

    async def expected_sources(self) -> dict[str, UsageSource]: ...

    async def save_source(
        self, before: UsageSource, after: UsageSource, events: Sequence[SourceEvent], *, is_announced: bool
    ) -> None:
        """Save the state with its events; ``is_announced`` sends the snapshot with it, under ``after.revision``."""
        ...

    async def add_claims(self, claims: Sequence[WatermarkClaim], *, now: datetime) -> None:
        """Keep claims until what they speak for has been entered."""
        ...

    async def unfenced(self) -> Unfenced:
        """What waits for a fence: claims, and parked reports that were sent again and have left the outbox."""
        ...

    async def put_up_fences(self, waiting: Unfenced, ends: LogEnds) -> None:
        """Note for these where the logs ended. ``ends`` must have been read after ``waiting`` was."""
        ...

    async def passed_claims(self, settled: LogEnds, *, limit: int) -> list[tuple[int, WatermarkClaim]]:
        """Claims whose fence is passed, oldest first, held by this transaction alone."""
        ...

    async def drop_claims(self, claim_ids: Collection[int]) -> None: ...

    async def forget_reentered(self, settled: LogEnds, *, now: datetime) -> int:
        """Parked reports that were sent again and have been read again are parked no longer; returns how many."""
        ...

    async def parked_by_source(self) -> dict[str, int]: ...

    async def miscounted(self, parked: Mapping[str, int]) -> set[str]:
        """Known sources that have another number of parked reports than these."""
        ...
