"""Partitions by month of everything that grows with usage, made ahead of time so that nobody lists months by hand.

A row of a month without a partition lies in the default partition: nothing is ever refused for want of one.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Final

import structlog
from quill_runtime.database import Database, Transaction
from sqlalchemy import select, text

from quill_usage_ingest.domain.usage_month import month_after, month_name, month_of
from quill_usage_ingest.store.archive_tables import OUT_OF_REACH, archived_months

_REWRITTEN: Final = " with (fillfactor = 70, toast_tuple_target = 8160)"
"""Rows of cells are rewritten in place, and compressed only when a page cannot hold them (ADR 0026)."""
PARTITIONED: Final[Mapping[str, str]] = MappingProxyType(
    {
        "usage_reports": "",
        "usage_windows": _REWRITTEN,
        "team_windows": _REWRITTEN,
        "meter_events": "",
        "event_values": "",
    }
)
"""Tables in the order they are locked, each with how a partition is stored."""
ARCHIVED: Final = ("usage_reports", "usage_windows", "team_windows")
"""Those of them that leave together when a month is archived; events stay."""
MONTHS_AHEAD: Final = 3
MONTHS_BACK: Final = 120
"""Rows of up to ten years ago that lie in the default partition get a partition of their own; what is older stays."""
LOCK_TIMEOUT: Final = "2s"
STATEMENT_TIMEOUT: Final = "60s"
PARTITIONS_LOCK: Final = 0x5155_494C_4C06

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Partitions:
    """Makes the partitions that are missing."""

    database: Database

    async def run(self, now: datetime) -> int:
        """Make partitions of the present and the coming months, and of months whose rows lie in a default partition.

        Each partition is a transaction of its own; returns how many were made. Safe beside other replicas.

        Raises:
            sqlalchemy.exc.DBAPIError: a lock was not free in time; the next run tries again.
        """
        made = 0
        for table in PARTITIONED:
            async with self.database.begin() as transaction:
                missing = await _missing(transaction, table, now)
            for month in missing:
                made += await self._make(table, month)
        return made

    async def make(self, month: datetime) -> None:
        """Make the partitions of a month that are missing; rows that lie in the default partition move there."""
        for table in PARTITIONED:
            await self._make(table, month)

    async def _make(self, table: str, month: datetime) -> bool:
        async with self.database.begin() as transaction:
            await transaction.connection.execute(text(f"set local lock_timeout = '{LOCK_TIMEOUT}'"))
            await transaction.connection.execute(text(f"set local statement_timeout = '{STATEMENT_TIMEOUT}'"))
            await transaction.connection.execute(text("select pg_advisory_xact_lock(:id)"), {"id": PARTITIONS_LOCK})
            if await exists(transaction, partition_name(table, month)):
                return False
            moved = await _make_from_default(transaction, table, month)
        log.info("partitions.made", table=table, month=month_name(month), moved=moved)
        return True


def partition_name(table: str, month: datetime) -> str:
    """``usage_windows_2026_10``."""
    return f"{table}_{month_name(month).replace('-', '_')}"


def month_bounds(month: datetime) -> str:
    """``from ('2026-10-01…') to ('2026-11-01…')``, as partitions are declared."""
    return f"from ('{month.isoformat()}') to ('{month_after(month).isoformat()}')"


async def exists(transaction: Transaction, relation: str) -> bool:
    """Whether the database has a table of this name."""
    found = await transaction.connection.scalar(text("select to_regclass(:name)::oid"), {"name": relation})
    return found is not None


async def _missing(transaction: Transaction, table: str, now: datetime) -> list[datetime]:
    present = month_of(now)
    ahead = {month_after(present, count) for count in range(MONTHS_AHEAD + 1)}
    rows = await transaction.connection.execute(
        text(
            f"select distinct date_trunc('month', window_start, 'UTC') as month from {table}_default"  # noqa: S608
            " where window_start >= :oldest and window_start < :newest"
        ),
        {"oldest": month_after(present, -MONTHS_BACK), "newest": month_after(present, MONTHS_AHEAD + 1)},
    )
    gone = await transaction.connection.execute(
        select(archived_months.c.month).where(archived_months.c.state.in_(OUT_OF_REACH))
    )
    wanted = sorted((ahead | {row.month for row in rows}) - {row.month for row in gone})
    return [month for month in wanted if not await exists(transaction, partition_name(table, month))]


async def _make_from_default(transaction: Transaction, table: str, month: datetime) -> int:
    """Make a partition and move its rows out of the default one; returns how many there were."""
    name, connection = partition_name(table, month), transaction.connection
    # The whole table first. A statement that was planned without the new partition and waits for the default one would
    # not find the moved rows, and their usage would be counted twice.
    await connection.execute(text(f"lock table only {table} in access exclusive mode"))
    # Nobody may put a row of this month there between the move and the attaching.
    await connection.execute(text(f"lock table {table}_default in access exclusive mode"))
    await connection.execute(text(f"create table {name} (like {table} including all){PARTITIONED[table]}"))
    moved = await connection.execute(
        text(
            f"with moved as (delete from {table}_default where window_start >= :start and window_start < :end"  # noqa: S608
            f" returning *) insert into {name} select * from moved"
        ),
        {"start": month, "end": month_after(month)},
    )
    await connection.execute(text(f"alter table {table} attach partition {name} for values {month_bounds(month)}"))
    return moved.rowcount
