"""Team usage in memory: the same behaviour as Postgres, for unit tests and simulation."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from quill_pricing.schedule_history import Schedules

from quill_usage_ingest.domain.meters import MeteredProduct, MeterMap
from quill_usage_ingest.domain.team_usage import TOTAL_MAX, TeamMeters, TeamMeterUsage, TeamName, TeamSpan, TeamUsage
from quill_usage_ingest.domain.usage_cells import is_complete, is_replaced
from quill_usage_ingest.store.memory import MemoryUsage
from quill_usage_ingest.store.memory_teams import MemoryTeams


@dataclass(slots=True)
class MemoryTeamUsage:
    """`TeamUsageTransaction` on dictionaries, one task at a time, beside the cells and the organizations."""

    teams: MemoryTeams
    usage: MemoryUsage
    held: dict[TeamName, TeamUsage] = field(default_factory=dict)
    due: set[TeamName] = field(default_factory=set)
    sweeps: dict[str, str] = field(default_factory=dict)

    async def take_marked_teams(
        self, organization_ids: Collection[str] | None, *, limit: int
    ) -> dict[TeamName, TeamUsage]:
        wanted = (team for team in self.teams.marked if organization_ids is None or team[0] in organization_ids)
        taken = sorted(wanted)[:limit]
        self.teams.marked.difference_update(taken)
        return {team: self.held.get(team, TeamUsage()) for team in taken}

    async def schedules_of(self, organization_ids: Collection[str]) -> dict[str, Schedules]:
        known = self.usage.held_organizations
        return {key: known[key].schedules for key in organization_ids if key in known}

    async def metered_products(self) -> list[MeteredProduct]:
        return await self.usage.metered_products()

    async def archived_months(self) -> frozenset[datetime]:
        return self.teams.months_out_of_reach

    async def team_sums(self, spans: Sequence[TeamSpan], meters: MeterMap) -> dict[TeamSpan, TeamMeters]:
        found = {span: self._sums(span, meters) for span in spans}
        return {span: sums for span, sums in found.items() if sums}

    def _sums(self, span: TeamSpan, meters: MeterMap) -> TeamMeters:
        sums: dict[str, TeamMeterUsage] = {}
        for key, row in self.teams.rows.items():
            if (key.organization_id, key.team_id) != span.team or key.start not in span.period:
                continue
            beside = self.usage.held_windows.get(key.window_key)
            cells = {} if beside is None else beside.cells
            replaced = {counter for counter, cell in cells.items() if is_replaced(cell.rank)}
            for meter, counter in meters.counter_by_meter.items():
                cell = row.cells.get(counter)
                if cell is None or not meters.counts(meter, key.start) or counter in replaced:
                    continue
                complete, partial = sums.get(meter, TeamMeterUsage())
                if is_complete(cell.rank):
                    complete = min(complete + cell.quantity, TOTAL_MAX)
                else:
                    partial = min(partial + cell.quantity, TOTAL_MAX)
                sums[meter] = TeamMeterUsage(complete, partial)
        return sums

    async def save_team_usage(self, usages: Mapping[TeamName, TeamUsage]) -> None:
        self.due |= {team for team, usage in usages.items() if usage.revision > self.held.get(team, usage).revision}
        self.due |= {team for team, usage in usages.items() if team not in self.held and usage.revision > 0}
        self.held |= usages

    async def sweep_teams(self, *, limit: int) -> int:
        left, finished = limit, 0
        for organization_id, after in sorted(self.sweeps.items()):
            own = sorted(team for team in self.held if team.organization_id == organization_id and team.team_id > after)
            self.teams.marked.update(own[:left])
            if len(own) >= left:
                self.sweeps[organization_id] = own[left - 1].team_id
                return limit + finished
            left -= len(own)
            del self.sweeps[organization_id]
            finished += 1
        return limit - left + finished

    async def begin_sweeps(self, organization_ids: Collection[str]) -> None:
        self.sweeps |= dict.fromkeys(organization_ids, "")
