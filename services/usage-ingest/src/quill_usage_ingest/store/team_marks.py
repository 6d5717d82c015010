"""Which windows' team rows must be made again, marked together with the change of what counts (L3)."""

from collections.abc import Collection
from typing import Final

from sqlalchemy import TextClause, text
from sqlalchemy.ext.asyncio import AsyncConnection

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


async def mark_team_rebuilds(connection: AsyncConnection, kept_ids: Collection[int]) -> None:
    """Mark the windows of these kept reports, in the transaction that changed whether the reports count."""
    await connection.execute(_MARK, {"kept_ids": sorted(kept_ids)})
