"""Letting a month leave the database, and bringing it back.

Whoever reads or writes usage has read `archived_months` before and holds that lock until the end, so each change here
takes the table for itself first: then nobody is in between. Postgres cannot detach concurrently beside a default
partition; the plain way needs the whole table for an instant, which is waited for half a second at a time so that no
batch waits longer.
"""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

import msgspec
import structlog
from quill_runtime.database import Database, Transaction
from sqlalchemy import select, text, update
from sqlalchemy.dialects.postgresql import insert

from quill_usage_ingest.domain.archived_month import MonthStillNeeded, refuse_needed
from quill_usage_ingest.domain.month_archive import MonthArchive, refuse_other_rows
from quill_usage_ingest.domain.usage_month import month_after, month_name
from quill_usage_ingest.store.archive_files import rows_of
from quill_usage_ingest.store.archive_tables import ArchiveState, archived_months
from quill_usage_ingest.store.month_archives import ArchiveRefused, MonthArchives, record_of
from quill_usage_ingest.store.month_rows import Progress, fingerprint_of, insert_rows
from quill_usage_ingest.store.partitions import ARCHIVED, PARTITIONED, exists, month_bounds, partition_name
from quill_usage_ingest.store.schedules import schedules_of
from quill_usage_ingest.store.tables import organizations

FENCE_TIMEOUT: Final = "500ms"
ORGANIZATIONS_PER_PAGE: Final = 10_000
MONTH_CHECK: Final = "within_its_month"

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class MonthDetaching:
    """Takes months out of reach and puts them back. Every method is about one month, given by its first instant."""

    database: Database

    async def detach(
        self,
        month: datetime,
        folder: Path,
        *,
        keep_months: int,
        is_dropped: bool,
        now: datetime,
        progress: Progress,
    ) -> MonthArchive:
        """Let a month go once its archive is proven to hold exactly what the database holds.

        From the comparison on, reports about the month are parked and questions about it refused; if it fails, all is
        as before. Killed in between, the month stays out of reach until this or `attach` is called again.

        Raises:
            MonthStillNeeded: a billing period needs it, or team rows are still to be made again.
            ArchiveDamaged | ArchiveMismatch: the archive is not good, or not of what is here now.
            ArchiveRefused: the month has left already, or never had partitions.
        """
        archives = MonthArchives(self.database)
        archive = await archives.read(month, folder)
        async with self.database.begin() as transaction:
            await self._refuse_left(transaction, month)
            await self._refuse_needed(transaction, month, keep_months, now)
        archives.check_files(archive, folder, progress=progress)
        await self.database.run(lambda transaction: self._out_of_reach(transaction, archive, folder))
        try:
            async with self.database.begin() as transaction:
                await _refuse_pending(transaction, month)
            await archives.check_rows(archive, progress=progress)
            await self.database.run(
                lambda transaction: self._let_go(transaction, month, is_dropped=is_dropped, now=now)
            )
        except BaseException:
            await self.database.run(lambda transaction: _set_state(transaction, month, ArchiveState.ARCHIVED))
            raise
        log.info("month.detached", month=month_name(month), rows=archive.rows, is_dropped=is_dropped)
        return archive

    async def attach(self, month: datetime) -> None:
        """Put a month back whose tables are still here.

        Raises:
            ArchiveRefused: it has not left, or its tables were dropped.
        """
        async with self.database.begin() as transaction:
            record = await record_of(transaction, month)
            if record is not None and record.state == ArchiveState.DETACHED:
                await _prove_month(transaction, month)

        async def put_back(transaction: Transaction) -> None:
            await _fence(transaction)
            record = await record_of(transaction, month)
            state = record.state if record else None
            if state == ArchiveState.DROPPED:
                raise ArchiveRefused(f"{month_name(month)}: its tables were dropped; use `restore … --from FOLDER`")
            if state not in (ArchiveState.DETACHED, ArchiveState.DETACHING):
                raise ArchiveRefused(f"{month_name(month)} is not detached")
            if state == ArchiveState.DETACHED:
                await _attach(transaction, month, {table: detached_name(table, month) for table in ARCHIVED})
            await _set_state(transaction, month, ArchiveState.ARCHIVED)

        await self.database.run(put_back)
        log.info("month.attached", month=month_name(month))

    async def restore(self, month: datetime, folder: Path, *, progress: Progress) -> MonthArchive:
        """Put a month back from its archive. Nothing is seen of it before all its rows are there and compared.

        Raises:
            ArchiveRefused: it has not left, or its tables are still here.
            ArchiveDamaged | ArchiveMismatch: the archive is not good.
        """
        archives = MonthArchives(self.database)
        archive = await archives.read(month, folder)
        async with self.database.begin() as transaction:
            record = await record_of(transaction, month)
            if record is not None and record.state == ArchiveState.DETACHED:
                raise ArchiveRefused(f"{month_name(month)}: its tables are still here; use `attach`")
            if record is None or record.state != ArchiveState.DROPPED:
                raise ArchiveRefused(f"{month_name(month)} has not left the database")
        archives.check_files(archive, folder, progress=progress)
        for table in archive.tables:
            await self._load(archive, table.table, folder, progress)

        async def put_back(transaction: Transaction) -> None:
            await _fence(transaction)
            await _attach(transaction, month, {table: _loading_name(table, month) for table in ARCHIVED})
            await _set_state(transaction, month, ArchiveState.ARCHIVED)

        await self.database.run(put_back)
        log.info("month.restored", month=month_name(month), rows=archive.rows)
        return archive

    async def _refuse_left(self, transaction: Transaction, month: datetime) -> None:
        record = await record_of(transaction, month)
        if record is not None and record.state in (ArchiveState.DETACHED, ArchiveState.DROPPED):
            raise ArchiveRefused(f"{month_name(month)} has left the database already")
        for table in ARCHIVED:
            if not await exists(transaction, partition_name(table, month)):
                raise ArchiveRefused(f"{month_name(month)}: {table} has no partition of its own; archive it again")

    async def _refuse_needed(self, transaction: Transaction, month: datetime, keep_months: int, now: datetime) -> None:
        await _refuse_pending(transaction, month)
        last = ""
        while True:
            rows = (
                await transaction.connection.execute(
                    select(
                        organizations.c.organization_id,
                        organizations.c.schedule_anchor,
                        organizations.c.schedule_interval,
                        organizations.c.ended_schedules,
                    )
                    .where(organizations.c.organization_id > last)
                    .order_by(organizations.c.organization_id)
                    .limit(ORGANIZATIONS_PER_PAGE)
                )
            ).all()
            schedules = (
                (row.organization_id, schedules_of(row.schedule_anchor, row.schedule_interval, row.ended_schedules))
                for row in rows
            )
            refuse_needed(month, schedules, keep_months=keep_months, now=now)
            if len(rows) < ORGANIZATIONS_PER_PAGE:
                return
            last = rows[-1].organization_id

    async def _out_of_reach(self, transaction: Transaction, archive: MonthArchive, folder: Path) -> None:
        await _fence(transaction)
        await self._refuse_left(transaction, archive.month)
        state = {"state": ArchiveState.DETACHING.value, "folder": str(folder)}
        await transaction.connection.execute(
            insert(archived_months)
            .values(
                month=archive.month,
                rows=archive.rows,
                manifest=msgspec.to_builtins(archive),
                archived_at=archive.made_at,
                **state,
            )
            .on_conflict_do_update(index_elements=["month"], set_=state)
        )

    async def _let_go(self, transaction: Transaction, month: datetime, *, is_dropped: bool, now: datetime) -> None:
        await _fence(transaction)
        record = await record_of(transaction, month)
        if record is None or record.state != ArchiveState.DETACHING:
            raise ArchiveRefused(f"{month_name(month)}: somebody put it back meanwhile; detach it again")
        for table in ARCHIVED:
            name = partition_name(table, month)
            await transaction.connection.execute(text(f"alter table {table} detach partition {name}"))
            if is_dropped:
                await transaction.connection.execute(text(f"drop table {name}"))
            else:
                await transaction.connection.execute(
                    text(f"alter table {name} rename to {detached_name(table, month)}")
                )
        state = ArchiveState.DROPPED if is_dropped else ArchiveState.DETACHED
        await _set_state(transaction, month, state, detached_at=now)

    async def _load(self, archive: MonthArchive, table: str, folder: Path, progress: Progress) -> None:
        """Fill a table of its own, and compare it with the manifest."""
        month, name = archive.month, _loading_name(table, archive.month)
        expected = next(each for each in archive.tables if each.table == table)
        async with self.database.begin() as transaction:
            # What an earlier try has left is begun anew.
            await transaction.connection.execute(text(f"drop table if exists {name}"))
            await transaction.connection.execute(
                text(
                    f"create table {name} (like {table} including all, constraint {MONTH_CHECK} check"
                    f" {_is_of(month)}){PARTITIONED[table]}"
                )
            )
            path = folder / month_name(month) / Path(expected.file).name
            async for done in insert_rows(transaction, name, table, expected.columns, rows_of(path)):
                progress(table, done, expected.rows)
            found = await fingerprint_of(
                transaction, name, table, expected.columns, progress=progress, expected=expected.rows
            )
            fix = "nothing was restored; do not use this archive"
            refuse_other_rows(expected, found, where="the table made of its file", month=month, fix=fix)


def detached_name(table: str, month: datetime) -> str:
    """``usage_windows_detached_2025_03``."""
    return f"{table}_detached_{month_name(month).replace('-', '_')}"


def _loading_name(table: str, month: datetime) -> str:
    return f"{table}_restoring_{month_name(month).replace('-', '_')}"


async def _fence(transaction: Transaction) -> None:
    """Have everybody who has read which months are here finish, and nobody begin, until this transaction ends."""
    await transaction.connection.execute(text(f"set local lock_timeout = '{FENCE_TIMEOUT}'"))
    await transaction.connection.execute(text("lock table archived_months in access exclusive mode"))


async def _attach(transaction: Transaction, month: datetime, relations: dict[str, str]) -> None:
    """Make these tables the month's partitions."""
    connection = transaction.connection
    for table, relation in relations.items():
        name = partition_name(table, month)
        await connection.execute(text(f"alter table {relation} rename to {name}"))
        # Reports that only look on are kept whether or not their month is here.
        await connection.execute(
            text(
                f"with kept as (delete from {table}_default where window_start >= :start and window_start < :end"  # noqa: S608
                f" returning *) insert into {name} select * from kept on conflict do nothing"
            ),
            {"start": month, "end": month_after(month)},
        )
        await connection.execute(text(f"alter table {table} attach partition {name} for values {month_bounds(month)}"))
        await connection.execute(text(f"alter table {name} drop constraint {MONTH_CHECK}"))


async def _prove_month(transaction: Transaction, month: datetime) -> None:
    """Have Postgres read detached tables now, while nobody waits, and not when they are attached."""
    for table in ARCHIVED:
        name = detached_name(table, month)
        await transaction.connection.execute(text(f"alter table {name} drop constraint if exists {MONTH_CHECK}"))
        await transaction.connection.execute(
            text(f"alter table {name} add constraint {MONTH_CHECK} check {_is_of(month)}")
        )


def _is_of(month: datetime) -> str:
    return f"(window_start >= '{month.isoformat()}' and window_start < '{month_after(month).isoformat()}')"


async def _set_state(
    transaction: Transaction, month: datetime, state: ArchiveState, *, detached_at: datetime | None = None
) -> None:
    await _fence(transaction)
    await transaction.connection.execute(
        update(archived_months)
        .where(archived_months.c.month == month)
        .values(state=state.value, detached_at=detached_at)
    )


async def _refuse_pending(transaction: Transaction, month: datetime) -> None:
    """Team rows that a correction left to be made again, and days to be compared, need the month's reports."""
    for table, column, what in (
        ("team_rebuilds", "window_start", "the team rows of {:,} corrected windows are still being made again"),
        ("generation_marks", "day", "{:,} days are still to be compared between report generations"),
    ):
        pending = await transaction.connection.scalar(
            text(f"select count(*) from {table} where {column} >= :start and {column} < :end"),  # noqa: S608
            {"start": month, "end": month_after(month)},
        )
        if pending:
            raise MonthStillNeeded(f"{month_name(month)}: {what.format(pending)}; wait a few minutes")
