"""Which sources ever reported for an organization: kept on its row, so that a snapshot repeats them for nothing."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Final, NamedTuple

from sqlalchemy import TextClause, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from quill_usage_ingest.store.tables import organizations

# Sources only ever join; they stand in order, because snapshots repeat them as they stand.
_ADD_SOURCES: Final[TextClause] = text(
    """
    update organizations as o
    set sources = array(
        select distinct name from unnest(o.sources || cast(:added as varchar[])) as held(name) order by name
    )
    where o.organization_id = :organization_id
    """
)


class Published(NamedTuple):
    """What a snapshot says beside its periods."""

    revision: int
    sources: Sequence[str]
    customer_revision: int
    cuts: Sequence[datetime]


class PostgresOrganizationSources:
    """The part of `UsageTransaction` that knows them."""

    _connection: AsyncConnection

    async def add_sources(self, sources: Mapping[str, Collection[str]]) -> None:
        for organization_id, added in sorted(sources.items()):
            await self._connection.execute(_ADD_SOURCES, {"organization_id": organization_id, "added": sorted(added)})

    async def sources_of(self, organization_id: str) -> frozenset[str]:
        held = await self._connection.scalar(
            select(organizations.c.sources).where(organizations.c.organization_id == organization_id)
        )
        return frozenset(held or ())
