"""``partitions``, ``archive``, ``detach``, ``attach`` and ``restore``: what an operator does with old months."""

import argparse
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Final, TextIO

import msgspec
from quill_runtime.clock import clock_from
from quill_runtime.command_line import Command, CommandRefused
from quill_runtime.database import Database
from quill_runtime.outbox import Outbox

from quill_usage_ingest.domain.archived_month import KEEP_MONTHS, MonthArchived, MonthStillNeeded
from quill_usage_ingest.domain.month_archive import ArchiveMismatch, MonthArchive
from quill_usage_ingest.domain.usage_month import InvalidMonth, month_name, month_named
from quill_usage_ingest.settings import UsageIngestSettings
from quill_usage_ingest.store.archive_files import ArchiveDamaged
from quill_usage_ingest.store.month_archives import STATEMENT_TIMEOUT_MS, ArchiveRefused, MonthArchives
from quill_usage_ingest.store.month_detaching import MonthDetaching
from quill_usage_ingest.store.month_rows import Progress
from quill_usage_ingest.store.parked_reports import replay_archived_reports
from quill_usage_ingest.store.partition_list import MonthOfTable, months_of_tables

APPLICATION_NAME: Final = "usage-ingest-months"
BAR_WIDTH: Final = 30

_REFUSED: Final = (ArchiveRefused, ArchiveDamaged, ArchiveMismatch, MonthArchived, MonthStillNeeded)


async def partitions(settings: UsageIngestSettings, asked: argparse.Namespace) -> str:
    """What there is of every month, as a table or as JSON."""
    async with _opened(settings) as database, database.begin() as transaction:
        found = await months_of_tables(transaction)
    shown = [each for each in found if asked.all or each.rows or each.archived_at]
    return _as_json(shown) if asked.json else _as_table(shown)


async def archive(settings: UsageIngestSettings, asked: argparse.Namespace) -> str:
    """Copy a month to files."""
    now = clock_from(settings.quill_clock_file).now()
    async with _opened(settings) as database:
        made = await MonthArchives(database).archive(asked.month, asked.to, now=now, progress=progress_on(sys.stderr))
    return f"{_told(made)} in {asked.to / month_name(asked.month)}"


async def detach(settings: UsageIngestSettings, asked: argparse.Namespace) -> str:
    """Let a month go, once its archive is proven."""
    now = clock_from(settings.quill_clock_file).now()
    async with _opened(settings) as database:
        gone = await MonthDetaching(database).detach(
            asked.month,
            asked.archive,
            keep_months=asked.keep_months,
            is_dropped=asked.drop,
            now=now,
            progress=progress_on(sys.stderr),
        )
    name = month_name(asked.month)
    back = f"restore {name} --from {asked.archive}" if asked.drop else f"attach {name}"
    return f"{_told(gone)} equal the database and {'were dropped' if asked.drop else 'are detached'}; back with: {back}"


async def attach(settings: UsageIngestSettings, asked: argparse.Namespace) -> str:
    """Put a month back whose tables are still here, and its parked reports after it."""
    async with _opened(settings) as database:
        await MonthDetaching(database).attach(asked.month)
        return f"{month_name(asked.month)} is back; {await _replay(settings, database, asked.month)}"


async def restore(settings: UsageIngestSettings, asked: argparse.Namespace) -> str:
    """Put a month back from its files, and its parked reports after it."""
    async with _opened(settings) as database:
        back = await MonthDetaching(database).restore(asked.month, asked.source, progress=progress_on(sys.stderr))
        return f"{_told(back)} are back; {await _replay(settings, database, asked.month)}"


def _declare_partitions(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="as JSON")
    parser.add_argument("--all", action="store_true", help="also months without rows")


def _declare_archive(parser: argparse.ArgumentParser) -> None:
    _declare_month(parser)
    parser.add_argument("--to", type=Path, required=True, metavar="FOLDER", help="where archives are kept")


def _declare_detach(parser: argparse.ArgumentParser) -> None:
    _declare_month(parser)
    parser.add_argument("--archive", type=Path, required=True, metavar="FOLDER", help="where its archive is kept")
    parser.add_argument(
        "--keep-months",
        type=_months,
        default=KEEP_MONTHS,
        metavar="N",
        help=f"refuse unless every billing period in it ended so long ago (default {KEEP_MONTHS})",
    )
    parser.add_argument("--drop", action="store_true", help="drop its tables; the archive is all that stays")


def _declare_restore(parser: argparse.ArgumentParser) -> None:
    _declare_month(parser)
    parser.add_argument(
        "--from", dest="source", type=Path, required=True, metavar="FOLDER", help="where its archive is kept"
    )


def _declare_month(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("month", type=_month, help="like 2025-03")


def _month(text: str) -> datetime:
    try:
        return month_named(text)
    except InvalidMonth as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _months(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of months")
    return int(text)


MONTH_COMMANDS: Final = {
    "partitions": Command("show rows, bytes and archives of every month", partitions, _declare_partitions),
    "archive": Command("copy a month to files; nothing changes here", archive, _declare_archive),
    "detach": Command("let a month go that its archive holds exactly", detach, _declare_detach),
    "attach": Command("bring a detached month back", attach, _declare_month),
    "restore": Command("bring a dropped month back from its archive", restore, _declare_restore),
}


def progress_on(stream: TextIO) -> Progress:
    """A bar on a terminal; silence elsewhere."""

    def show(table: str, done: int, expected: int) -> None:
        if not stream.isatty():
            return
        share = min(1, done / expected) if expected else 1
        bar = "█" * int(share * BAR_WIDTH)
        stream.write(f"\r{table:<24} {bar:<{BAR_WIDTH}} {done:>15,} of {expected:,}\033[K")
        if done >= expected:
            stream.write("\n")
        stream.flush()

    return show


@asynccontextmanager
async def _opened(settings: UsageIngestSettings) -> AsyncIterator[Database]:
    database = Database(
        settings.database_url,
        pool_size=2,
        application_name=APPLICATION_NAME,
        statement_timeout_ms=STATEMENT_TIMEOUT_MS,
    )
    try:
        yield database
    except _REFUSED as error:
        raise CommandRefused(str(error)) from error
    finally:
        await database.close()


async def _replay(settings: UsageIngestSettings, database: Database, month: datetime) -> str:
    """Have reports that waited for the month entered by the running service."""
    now = clock_from(settings.quill_clock_file).now()
    replayed, after_id = 0, 0
    outbox = Outbox()
    while True:
        async with database.begin() as transaction:
            count, go_on = await replay_archived_reports(
                transaction, outbox=outbox, month=month, after_id=after_id, now=now
            )
        replayed += count
        if go_on is None:
            return f"{replayed:,} reports that waited for it are entered now"
        after_id = go_on


def _told(archived: MonthArchive) -> str:
    return f"{month_name(archived.month)}: {archived.rows:,} rows, {archived.bytes:,} bytes"


def _as_json(found: Sequence[MonthOfTable]) -> str:
    rows = [
        {
            "month": each.month_text,
            "table": each.table,
            "rows": each.rows,
            "bytes": each.bytes,
            "state": each.state,
            "archived_at": each.archived_at,
        }
        for each in found
    ]
    return msgspec.json.format(msgspec.json.encode(rows), indent=2).decode()


def _as_table(found: Sequence[MonthOfTable]) -> str:
    head = ("month", "table", "rows", "bytes", "state", "archived")
    body = [
        (
            each.month_text,
            each.table,
            f"{each.rows:,}",
            f"{each.bytes:,}",
            each.state,
            each.archived_at.date().isoformat() if each.archived_at else "no",
        )
        for each in found
    ]
    widths = [max(len(row[column]) for row in (head, *body)) for column in range(len(head))]
    is_number = (False, False, True, True, False, False)
    return "\n".join(
        "  ".join(
            cell.rjust(width) if number else cell.ljust(width)
            for cell, width, number in zip(row, widths, is_number, strict=True)
        ).rstrip()
        for row in (head, *body)
    )
