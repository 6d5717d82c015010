"""Usage over time, read from cells: by organization, source or team (L5)."""

from collections.abc import Collection
from datetime import datetime
from typing import Protocol

from quill_usage_ingest.domain.usage_cells import WindowCells
from quill_usage_ingest.domain.usage_report import WindowKey
from quill_usage_ingest.domain.usage_series import Amount, SeriesSpan, TeamAmount, amounts_of_windows
from quill_usage_ingest.ports import TeamTransaction

TEAM_ROWS_MAX = 200_000
"""Sums by interval, team and counter that one answer may be made of."""
TEAMS_LISTED_MAX = 10_000


class BreakdownTooLarge(Exception):
    """More rows than one answer may be made of; says how to ask for less."""


class Windows(Protocol):
    """What a series needs of the organization's own cells."""

    async def windows_between(
        self, organization_id: str, start: datetime, end: datetime
    ) -> list[tuple[WindowKey, WindowCells]]: ...


async def read_team_amounts(
    organization_id: str,
    span: SeriesSpan,
    *,
    counters: Collection[str],
    team_ids: Collection[str] | None,
    tx: TeamTransaction,
) -> list[TeamAmount]:
    """What each team used, by interval and counter.

    Raises:
        BreakdownTooLarge: more rows than `TEAM_ROWS_MAX`.
    """
    if not counters:
        return []
    amounts = await tx.team_amounts(
        organization_id,
        span.start,
        span.end,
        interval=span.interval.value,
        counters=counters,
        team_ids=team_ids,
        limit=TEAM_ROWS_MAX + 1,
    )
    if len(amounts) > TEAM_ROWS_MAX:
        raise BreakdownTooLarge(
            f"the breakdown has more than {TEAM_ROWS_MAX:,} rows; ask for fewer projects, types or days, or a longer"
            " interval"
        )
    return amounts


async def read_source_amounts(
    organization_id: str, span: SeriesSpan, *, counters: frozenset[str], tx: Windows
) -> list[tuple[str, str, Amount]]:
    """Source, counter and amount of the organization's own cells in the span."""
    return amounts_of_windows(await tx.windows_between(organization_id, span.start, span.end), counters)


def amount_of(amount: TeamAmount, span: SeriesSpan) -> Amount:
    """A team's sum as a part of a series."""
    return Amount(max(amount.start, span.start), amount.quantity, is_partial=amount.is_partial)
