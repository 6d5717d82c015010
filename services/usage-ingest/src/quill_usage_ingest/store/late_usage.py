"""Periods older than the snapshot whose usage changed: they wait on their own rows until they are published (D6)."""

from collections.abc import Collection
from typing import Final

from sqlalchemy import TextClause, text
from sqlalchemy.ext.asyncio import AsyncConnection

from quill_usage_ingest.domain.usage_book import PeriodKey
from quill_usage_ingest.store.short_vectors import whole_period
from quill_usage_ingest.store.stored_period import StoredPeriod

_MARK: Final[TextClause] = text(
    """
    update period_usage set is_late_usage_due = true
    where organization_id = :organization_id and period_start = :period_start and period_end = :period_end
    """
)
_MARK_ORGANIZATIONS: Final[TextClause] = text(
    "update organizations set is_publication_due = true where organization_id = any(cast(:organization_ids as text[]))"
)
_DUE: Final[TextClause] = text(
    """
    select organization_id, period_start, period_end, as_of, complete, partial, maximum from period_usage
    where is_late_usage_due and is_in_force and organization_id = any(cast(:organization_ids as text[]))
    order by organization_id, period_start
    """
)
_DONE: Final[TextClause] = text(
    """
    update period_usage set is_late_usage_due = false
    where is_late_usage_due and organization_id = any(cast(:organization_ids as text[]))
    """
)


class PostgresLateUsage:
    """The part of `UsageTransaction` that knows them."""

    _connection: AsyncConnection

    async def mark_late_usage(self, keys: Collection[PeriodKey]) -> None:
        for key in keys:
            parameters = {
                "organization_id": key.organization_id,
                "period_start": key.period.start,
                "period_end": key.period.end,
            }
            await self._connection.execute(_MARK, parameters)
        organization_ids = sorted({key.organization_id for key in keys})
        await self._connection.execute(_MARK_ORGANIZATIONS, {"organization_ids": organization_ids})

    async def packed_late_periods(self, organization_ids: Collection[str]) -> list[StoredPeriod]:
        """Those that wait, oldest first, for publishing without unpacking them."""
        rows = await self._connection.execute(_DUE, {"organization_ids": sorted(organization_ids)})
        return [
            StoredPeriod(name, start, end, as_of, *whole_period(complete, partial, maximum))
            for name, start, end, as_of, complete, partial, maximum in rows
        ]

    async def late_usage_published(self, organization_ids: Collection[str]) -> None:
        await self._connection.execute(_DONE, {"organization_ids": sorted(organization_ids)})
