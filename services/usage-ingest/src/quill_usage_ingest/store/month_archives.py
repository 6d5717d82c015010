"""Copying a month to files, and comparing files with what the database holds now."""

import os
import shutil
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

import msgspec
from quill_runtime.database import Database, Transaction
from sqlalchemy import Row, select, text
from sqlalchemy.dialects.postgresql import insert

from quill_usage_ingest.domain.archived_month import MonthArchived
from quill_usage_ingest.domain.month_archive import MonthArchive, TableArchive, refuse_other_rows
from quill_usage_ingest.domain.usage_month import month_after, month_name
from quill_usage_ingest.store.archive_files import ArchiveDamaged, TableFile, check_file, read_manifest, write_manifest
from quill_usage_ingest.store.archive_tables import OUT_OF_REACH, ArchiveState, archived_months
from quill_usage_ingest.store.counter_slots import SLOTS_MAX, CounterSlots
from quill_usage_ingest.store.month_rows import ROWS_PER_PAGE, Progress, columns_of, fingerprint_of, read_rows
from quill_usage_ingest.store.partitions import ARCHIVED, Partitions, partition_name

STATEMENT_TIMEOUT_MS: Final = 30 * 60 * 1_000
"""Of one statement of an archiving command; each moves a page, and only checks of whole tables take long."""


class ArchiveRefused(Exception):
    """What was asked of a month cannot be done as it stands; says what to do instead."""


@dataclass(frozen=True, slots=True)
class MonthArchives:
    """Archives of one database. Every method is about one month, given by its first instant."""

    database: Database

    async def archive(self, month: datetime, folder: Path, *, now: datetime, progress: Progress) -> MonthArchive:
        """Copy all rows of the month to ``folder``/``2025-03``; nothing in the database changes.

        The rows are those of one instant, read a page at a time. The folder takes its name when all of it is on disk;
        an older archive of the month is kept beside it.

        Raises:
            ArchiveRefused: the month is not over.
            MonthArchived: its rows are not here.
        """
        name = month_name(month)
        if now < month_after(month):
            raise ArchiveRefused(f"{name} is not over; archive it from {month_after(month).date()} on")
        async with self.database.begin() as transaction:
            await refuse_out_of_reach(transaction, month)
        await Partitions(self.database).make(month)
        partial = folder / f"{name}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        async with self.database.begin() as transaction:
            await transaction.connection.execute(text("set transaction isolation level repeatable read, read only"))
            counters = (await CounterSlots().of(transaction).reaching(SLOTS_MAX)).names
            tables = [await _write_table(transaction, partial, table, month, progress) for table in ARCHIVED]
        archive = MonthArchive(month, now, counters, tuple(tables))
        write_manifest(partial, archive)
        final = folder / name
        if final.exists():
            older = read_manifest(final, month_of_folder=name)
            final.rename(folder / f"{name}.until-{older.made_at:%Y%m%dT%H%M%S}-{now:%Y%m%dT%H%M%S}")
        partial.rename(final)
        _sync_folder(folder)
        await self._remember(archive, folder)
        return archive

    async def read(self, month: datetime, folder: Path) -> MonthArchive:
        """The manifest of the month's archive in ``folder``, which names only what this database knows.

        Raises:
            ArchiveDamaged: missing, unreadable, or of other tables, columns or counters.
        """
        archive = read_manifest(folder / month_name(month), month_of_folder=month_name(month))
        if [table.table for table in archive.tables] != list(ARCHIVED):
            raise ArchiveDamaged(f"{folder}: the manifest must name {', '.join(ARCHIVED)}")
        for table in archive.tables:
            unknown = set(table.columns) - set(columns_of(table.table))
            if unknown:
                raise ArchiveDamaged(f"{folder}: {table.table} has no column {min(unknown)}")
        async with self.database.begin() as transaction:
            counters = (await CounterSlots().of(transaction).reaching(SLOTS_MAX)).names
        if counters[: len(archive.counters)] != archive.counters:
            raise ArchiveDamaged(f"{folder}: was made of another database: its counters have other places there")
        return archive

    def check_files(self, archive: MonthArchive, folder: Path, *, progress: Progress) -> None:
        """Compare every file with the manifest.

        Raises:
            ArchiveDamaged | ArchiveMismatch: naming the file.
        """
        for table in archive.tables:
            check_file(folder / month_name(archive.month), archive, table)
            progress(table.file, table.rows, table.rows)

    async def check_rows(self, archive: MonthArchive, *, progress: Progress) -> None:
        """Compare what the month's partitions hold now with the manifest.

        Raises:
            ArchiveMismatch: rows have come, gone or changed since.
        """
        month = archive.month
        async with self.database.begin() as transaction:
            await transaction.connection.execute(text("set transaction isolation level repeatable read, read only"))
            for table in archive.tables:
                found = await fingerprint_of(
                    transaction,
                    partition_name(table.table, month),
                    table.table,
                    table.columns,
                    progress=progress,
                    expected=table.rows,
                )
                fix = f"archive {month_name(month)} again"
                refuse_other_rows(table, found, where="the database", month=month, fix=fix)

    async def _remember(self, archive: MonthArchive, folder: Path) -> None:
        row = {
            "state": ArchiveState.ARCHIVED.value,
            "folder": str(folder),
            "rows": archive.rows,
            "manifest": msgspec.to_builtins(archive),
            "archived_at": archive.made_at,
        }
        async with self.database.begin() as transaction:
            await transaction.connection.execute(
                insert(archived_months)
                .values(month=archive.month, **row)
                .on_conflict_do_update(
                    index_elements=["month"],
                    set_=row,
                    where=archived_months.c.state == ArchiveState.ARCHIVED.value,
                )
            )


async def record_of(transaction: Transaction, month: datetime) -> Row[tuple[object, ...]] | None:
    """What is remembered of the month; None when it was never archived."""
    found = await transaction.connection.execute(select(archived_months).where(archived_months.c.month == month))
    return found.one_or_none()


async def refuse_out_of_reach(transaction: Transaction, month: datetime) -> None:
    """Refuse what needs the month's rows.

    Raises:
        MonthArchived: they are not here.
    """
    record = await record_of(transaction, month)
    if record is not None and record.state in OUT_OF_REACH:
        raise MonthArchived(month)


async def _write_table(
    transaction: Transaction, folder: Path, table: str, month: datetime, progress: Progress
) -> TableArchive:
    relation, columns = partition_name(table, month), columns_of(table)
    expected = await transaction.connection.scalar(text(f"select count(*) from {relation}")) or 0  # noqa: S608
    first: datetime | None = None
    last: datetime | None = None
    with TableFile(folder / f"{table}.jsonl.gz") as file:
        async for row, start in read_rows(transaction, relation, table, columns):
            file.add(row)
            first, last = min(first or start, start), max(last or start, start)
            if file.fingerprint.rows % ROWS_PER_PAGE == 0:
                progress(table, file.fingerprint.rows, expected)
    found = file.fingerprint
    progress(table, found.rows, expected)
    return TableArchive(table, file.path.name, columns, found.rows, found.content, file.bytes, file.sha256, first, last)


def _sync_folder(folder: Path) -> None:
    """Bring the new name to disk, not only the bytes."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
