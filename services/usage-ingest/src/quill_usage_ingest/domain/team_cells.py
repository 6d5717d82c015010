"""Usage per team (project): the same cells and the same merging as an organization's, one level deeper (L1).

Teams show where usage came from, and limits of their own may be set on them (L10). Nothing is billed by them. They are
entered off the path to the organization's limits, whose numbers never wait for, or fail because of, its teams.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

from quill_usage_ingest.domain.team_usage import TeamName
from quill_usage_ingest.domain.usage_book import CLOCK_TOLERANCE, YEARS
from quill_usage_ingest.domain.usage_cells import Cell, WindowCells, changes_by, join, rank_of
from quill_usage_ingest.domain.usage_report import DayKey, UsageReport, UsageWindow, WindowKey

TeamCounters = Mapping[str, Mapping[str, int]]
"""Counters by team id, absolute for the window."""


class TeamKey(NamedTuple):
    """Whose cells of which team: one packed row."""

    organization_id: str
    start: datetime
    source: str
    team_id: str

    @property
    def window_key(self) -> WindowKey:
        """The organization's row beside it."""
        return WindowKey(self.organization_id, self.start, self.source)

    @property
    def team(self) -> TeamName:
        """Whose row it is."""
        return TeamName(self.organization_id, self.team_id)


@dataclass(frozen=True, slots=True)
class TeamsReport:
    """What a usage report claims of each team. The report gives name, window and rank; its counters are not needed."""

    report: UsageReport
    teams: TeamCounters


TeamRows = dict[TeamKey, WindowCells]


def claimed_team_rows(claim: TeamsReport) -> TeamRows:
    """The rows as this report alone would have them."""
    report = claim.report
    rank = rank_of(report.completeness, report.as_of)
    return {
        TeamKey(report.organization_id, report.window.start, report.source, team_id): WindowCells(
            report.window, {counter: Cell(rank, quantity) for counter, quantity in counters.items()}
        )
        for team_id, counters in claim.teams.items()
    }


def join_claims(claims: Iterable[TeamsReport]) -> TeamRows:
    """The rows that these claims make together, in whatever order: the provenance of team cells (L1, L5)."""
    rows: TeamRows = {}
    for claim in claims:
        for key, row in claimed_team_rows(claim).items():
            held = rows.get(key)
            rows[key] = row if held is None else WindowCells(held.window, join(held.cells, row.cells))
    return rows


@dataclass(slots=True)
class TeamBook:
    """The team rows of some days, and what entering reports makes of them.

    Loaded with every team row of the days the reports touch. A batch is merged here first, because one statement may
    not meet the same row twice.
    """

    rows: TeamRows = field(default_factory=dict)
    changed: set[TeamKey] = field(default_factory=set)
    _windows_by_day: dict[DayKey, set[UsageWindow]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for key, row in self.rows.items():
            self._know(key.window_key, row.window)

    @property
    def changed_rows(self) -> TeamRows:
        """The rows to be written."""
        return {key: self.rows[key] for key in self.changed}

    def enter(self, claim: TeamsReport, *, now: datetime) -> bool:
        """Merge a claim by rank, unless the organization's own rules refuse its report.

        Such a report is parked by those who enter the organization's counters, so it needs no second parking.

        Returns:
            Whether the report can be entered; also True when all it claims was known.
        """
        if not self._is_acceptable(claim.report, now=now):
            return False
        for key, row in claimed_team_rows(claim).items():
            held = self.rows.get(key)
            if held is None:
                self.rows[key] = row
                self.changed.add(key)
                continue
            changes = changes_by(row.cells, to=held.cells)
            if changes:
                cells = {**held.cells, **{counter: change.after for counter, change in changes.items()}}
                self.rows[key] = WindowCells(held.window, cells)
                self.changed.add(key)
        self._know(claim.report.window_key, claim.report.window)
        return True

    def _know(self, key: WindowKey, window: UsageWindow) -> None:
        self._windows_by_day.setdefault(DayKey(key.organization_id, window.day, key.source), set()).add(window)

    def _is_acceptable(self, report: UsageReport, *, now: datetime) -> bool:
        latest = now + CLOCK_TOLERANCE
        if report.window.start.year not in YEARS or report.as_of > latest or report.window.start > latest:
            return False
        known = self._windows_by_day.get(report.day_key, ())
        return not any(window != report.window and window.overlaps(report.window) for window in known)


def counted(claims: Sequence[TeamsReport], out_of_count: set[tuple[object, bytes]]) -> list[TeamsReport]:
    """The claims whose report was not taken out of count; ``out_of_count`` holds report names with their content."""
    return [claim for claim in claims if (claim.report.name, claim.report.content_hash) not in out_of_count]
