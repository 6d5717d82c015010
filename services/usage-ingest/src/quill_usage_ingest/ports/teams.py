"""Teams: what the use cases need of a store of their cells and of what they add up to."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Protocol

from quill_pricing.schedule_history import Schedules

from quill_usage_ingest.domain.meters import MeteredProduct, MeterMap
from quill_usage_ingest.domain.team_cells import TeamRows
from quill_usage_ingest.domain.team_usage import TeamMeters, TeamName, TeamSpan, TeamUsage
from quill_usage_ingest.domain.usage_report import DayKey, ReportName, WindowKey
from quill_usage_ingest.domain.usage_series import TeamAmount


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
