"""Team cells in memory: the same behaviour as Postgres, for unit tests and simulation."""

from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import datetime

from quill_usage_ingest.domain.archived_month import refuse_archived
from quill_usage_ingest.domain.team_cells import TeamRows
from quill_usage_ingest.domain.team_usage import TeamName
from quill_usage_ingest.domain.usage_cells import is_complete
from quill_usage_ingest.domain.usage_report import DayKey, ReportName, WindowKey
from quill_usage_ingest.domain.usage_series import SeriesInterval, TeamAmount, interval_start
from quill_usage_ingest.ports import TooManyCounters


@dataclass(slots=True)
class MemoryTeams:
    """`TeamTransaction` on dictionaries, one task at a time. ``voided`` stands for the kept reports out of count."""

    counters_max: int = 512
    rows: TeamRows = field(default_factory=dict)
    voided: set[tuple[object, bytes]] = field(default_factory=set)
    counters: set[str] = field(default_factory=set)
    months_out_of_reach: frozenset[datetime] = frozenset()
    marked: set[TeamName] = field(default_factory=set)

    async def hold_teams(self, organization_ids: Collection[str], *, counters: Collection[str]) -> None:
        del organization_ids
        new = set(counters) - self.counters
        free = self.counters_max - len(self.counters)
        if len(new) > free:
            raise TooManyCounters(sorted(new)[max(0, free)], self.counters_max)
        self.counters |= new

    async def out_of_count(self, names: Collection[ReportName]) -> set[tuple[object, bytes]]:
        return {(name, content) for name, content in self.voided if name in names}

    async def archived_months(self) -> frozenset[datetime]:
        return self.months_out_of_reach

    async def team_rows_of_days(self, days: Collection[DayKey]) -> TeamRows:
        return {
            key: row
            for key, row in self.rows.items()
            if DayKey(key.organization_id, row.window.day, key.source) in days
        }

    async def save_team_rows(self, rows: TeamRows) -> None:
        self.rows |= rows

    async def forget_team_windows(self, windows: Collection[WindowKey]) -> set[TeamName]:
        forgotten = {key.team for key in self.rows if key.window_key in windows}
        self.rows = {key: row for key, row in self.rows.items() if key.window_key not in windows}
        return forgotten

    async def mark_teams(self, teams: Collection[TeamName]) -> None:
        self.marked |= set(teams)

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
        refuse_archived(self.months_out_of_reach, start, end)
        sums: dict[tuple[datetime, str, str], tuple[int, bool]] = {}
        for key, row in self.rows.items():
            if key.organization_id != organization_id or not start <= key.start < end:
                continue
            if team_ids is not None and key.team_id not in team_ids:
                continue
            for counter, cell in row.cells.items():
                if counter in counters:
                    place = (interval_start(key.start, SeriesInterval(interval)), key.team_id, counter)
                    quantity, is_partial = sums.get(place, (0, False))
                    sums[place] = (quantity + cell.quantity, is_partial or not is_complete(cell.rank))
        found = [TeamAmount(*place, quantity, is_partial) for place, (quantity, is_partial) in sums.items()]
        return sorted(found)[:limit]

    async def team_ids(self, organization_id: str, start: datetime, end: datetime, *, limit: int) -> list[str]:
        refuse_archived(self.months_out_of_reach, start, end)
        found = {
            key.team_id for key in self.rows if key.organization_id == organization_id and start <= key.start < end
        }
        return sorted(found)[:limit]
