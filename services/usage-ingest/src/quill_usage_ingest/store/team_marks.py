"""What must be made again of teams, marked together with the change that makes it so (L3).

Windows whose team rows are other ones, teams whose usage is another number, organizations whose teams all are.
"""

from collections.abc import Collection
from typing import Final

from sqlalchemy import TextClause, text
from sqlalchemy.ext.asyncio import AsyncConnection

from quill_usage_ingest.domain.team_usage import TeamName

# An existing mark is locked by whoever works it off, so this waits for him and marks again.
_MARK: Final[TextClause] = text(
    """
    insert into team_rebuilds (organization_id, window_start, source, due_at)
    select distinct r.organization_id, r.window_start, r.source, cast(null as timestamptz)
    from usage_reports as r where r.id = any(cast(:kept_ids as bigint[]))
    order by 1, 2, 3
    on conflict (organization_id, window_start, source) do update set due_at = null
    """
)
_MARK_TEAMS: Final[TextClause] = text(
    """
    insert into team_usage_marks (organization_id, team_id)
    select k.organization_id, k.team_id
    from unnest(cast(:organization_ids as text[]), cast(:team_ids as text[])) as k(organization_id, team_id)
    on conflict (organization_id, team_id) do update set organization_id = excluded.organization_id
    """
)
_SWEEP: Final[TextClause] = text(
    """
    insert into team_usage_sweeps (organization_id, after_team_id)
    select k.organization_id, '' from unnest(cast(:organization_ids as text[])) as k(organization_id)
    on conflict (organization_id) do update set after_team_id = ''
    """
)
_SWEEP_ALL: Final[TextClause] = text(
    """
    insert into team_usage_sweeps (organization_id, after_team_id)
    select organization_id, '' from organizations order by organization_id
    on conflict (organization_id) do update set after_team_id = ''
    """
)


async def mark_team_rebuilds(connection: AsyncConnection, kept_ids: Collection[int]) -> None:
    """Mark the windows of these kept reports, in the transaction that changed whether the reports count."""
    await connection.execute(_MARK, {"kept_ids": sorted(kept_ids)})


async def mark_teams(connection: AsyncConnection, teams: Collection[TeamName]) -> None:
    """Mark teams whose usage must be added up again, in the transaction that changed their rows."""
    if teams:
        ordered = sorted(teams)
        parameters = {
            "organization_ids": [team.organization_id for team in ordered],
            "team_ids": [team.team_id for team in ordered],
        }
        await connection.execute(_MARK_TEAMS, parameters)


async def sweep_organizations(connection: AsyncConnection, organization_ids: Collection[str]) -> None:
    """Have every team of these organizations added up again: their periods are others, or they have some for once."""
    if organization_ids:
        await connection.execute(_SWEEP, {"organization_ids": sorted(organization_ids)})


async def sweep_all_organizations(connection: AsyncConnection) -> None:
    """Have every team of everybody added up again: the catalog is another one."""
    await connection.execute(_SWEEP_ALL)
