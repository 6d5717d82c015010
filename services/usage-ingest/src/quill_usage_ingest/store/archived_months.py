"""Which months are out of reach. Reading it is also the fence: none leaves before the reading transaction has ended."""

from datetime import datetime

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from quill_usage_ingest.domain.archived_month import refuse_archived
from quill_usage_ingest.store.archive_tables import OUT_OF_REACH, archived_months


class PostgresArchivedMonths:
    """The part of `UsageTransaction` and `TeamTransaction` that knows them."""

    _connection: AsyncConnection

    async def archived_months(self) -> frozenset[datetime]:
        # The read lock this takes on the table lasts as long as the transaction, and whoever lets a month go or brings
        # it back first takes the table for himself: what is read here stays true until the commit.
        rows = await self._connection.execute(
            select(archived_months.c.month).where(archived_months.c.state.in_(OUT_OF_REACH))
        )
        return frozenset(row.month for row in rows)

    async def _refuse_archived(self, start: datetime, end: datetime) -> None:
        refuse_archived(await self.archived_months(), start, end)
