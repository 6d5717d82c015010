"""Ceilings of Postgres for the same cells: nothing but the write, from lists prepared beforehand.

Four ways to write the same reports, each batch a durable transaction of its own: packed rows by COPY; packed rows by
one merging statement, which is what the service does at its core; the same with totals beside; a row per counter.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import asyncpg
from quill_usage_ingest.domain.usage_report import UsageReport

BATCH_CELLS_OF_ROWS: Final = 10_000
TIMEOUT_SECONDS: Final = 60
RANK: Final = 1 << 60

TABLES: Final = """
create table if not exists bare_copied (organization_id text, window_start timestamptz, source text,
    window_end timestamptz, quantities bigint[], ranks bigint[], primary key (organization_id, window_start, source))
    with (fillfactor = 70);
create table if not exists bare_merged (like bare_copied including all) with (fillfactor = 70);
create table if not exists bare_totalled (like bare_copied including all) with (fillfactor = 70);
create table if not exists bare_totals (organization_id text, period_start timestamptz, complete bigint[],
    partial bigint[], maximum bigint[], primary key (organization_id, period_start)) with (fillfactor = 70);
create table if not exists bare_counters (organization_id text, window_start timestamptz, source text, counter int,
    quantity bigint, primary key (organization_id, window_start, source, counter)) with (fillfactor = 70);
"""
MERGE: Final = """
insert into bare_merged as held (organization_id, window_start, source, window_end, quantities, ranks)
select k.organization_id, k.window_start, k.source, k.window_end,
       ($6::bigint[])[(k.place - 1) * $5 + 1 : k.place * $5], ($7::bigint[])[(k.place - 1) * $5 + 1 : k.place * $5]
from unnest($1::text[], $2::timestamptz[], $3::text[], $4::timestamptz[]) with ordinality
         as k(organization_id, window_start, source, window_end, place)
on conflict (organization_id, window_start, source)
do update set quantities = (select array_agg(greatest(a, b) order by place)
                            from unnest(held.quantities, excluded.quantities) with ordinality as u(a, b, place)),
              ranks = (select array_agg(greatest(a, b) order by place)
                       from unnest(held.ranks, excluded.ranks) with ordinality as u(a, b, place))
"""
SAVE_TOTALS: Final = """
insert into bare_totals (organization_id, period_start, complete, partial, maximum)
select k.organization_id, k.period_start, ($4::bigint[])[(k.place - 1) * $3 + 1 : k.place * $3],
       ($5::bigint[])[(k.place - 1) * $3 + 1 : k.place * $3], ($4::bigint[])[(k.place - 1) * $3 + 1 : k.place * $3]
from unnest($1::text[], $2::timestamptz[]) with ordinality as k(organization_id, period_start, place)
on conflict (organization_id, period_start)
do update set complete = excluded.complete, partial = excluded.partial, maximum = excluded.maximum
"""
UPSERT_COUNTERS: Final = """
insert into bare_counters as held (organization_id, window_start, source, counter, quantity)
select * from unnest($1::text[], $2::timestamptz[], $3::text[], $4::int[], $5::bigint[])
on conflict (organization_id, window_start, source, counter)
do update set quantity = excluded.quantity where excluded.quantity > held.quantity
"""
COLUMNS: Final = ("organization_id", "window_start", "source", "window_end", "quantities", "ranks")


@dataclass(frozen=True, slots=True)
class BareSeconds:
    """How long each layout took for the same reports."""

    copied: float
    merged: float
    with_totals: float
    counter_rows: float
    counter_rows_wal: int
    """Bytes of Postgres' log, not seconds."""


class BareWriter:
    """Writes reports without any of the service around it."""

    def __init__(self, connection: Any, *, batch_reports: int) -> None:
        self._connection = connection
        self._batch_reports = batch_reports

    async def prepare(self) -> None:
        """Make the tables."""
        await self._connection.execute(TABLES)

    async def write(self, reports: Sequence[UsageReport]) -> BareSeconds:
        """Write new rows four times over; sorted by key, as the service does."""
        ordered = sorted(reports, key=lambda report: report.window_key)
        batches = [_flat(part) for part in _parts(ordered, self._batch_reports)]
        copied = await self._copy([_row(report) for report in ordered])
        merged = await self._run(MERGE, batches)
        with_totals = await self._run_with_totals(batches)
        wal = await self._wal_bytes()
        rows_a_batch = max(1, BATCH_CELLS_OF_ROWS // len(ordered[0].counters))
        counter_rows = await self._run(UPSERT_COUNTERS, [_cells(part) for part in _parts(ordered, rows_a_batch)])
        return BareSeconds(copied, merged, with_totals, counter_rows, await self._wal_bytes() - wal)

    async def _run_with_totals(self, batches: Sequence[tuple[Any, ...]]) -> float:
        """The same merge and, in its transaction, a packed total per organization."""
        merge = MERGE.replace("bare_merged", "bare_totalled")
        started = time.perf_counter()
        for arguments in batches:
            organizations, starts, _, _, width, quantities, ranks = arguments
            async with self._connection.transaction():
                await self._connection.execute(merge, *arguments, timeout=TIMEOUT_SECONDS)
                await self._connection.execute(
                    SAVE_TOTALS, organizations, starts, width, quantities, ranks, timeout=TIMEOUT_SECONDS
                )
        return time.perf_counter() - started

    async def _wal_bytes(self) -> int:
        end: int = await self._connection.fetchval("select pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::bigint")
        return end

    async def _copy(self, rows: Sequence[tuple[Any, ...]]) -> float:
        parts = list(_parts(rows, self._batch_reports))
        started = time.perf_counter()
        for part in parts:
            await self._connection.copy_records_to_table(
                "bare_copied", records=part, columns=COLUMNS, timeout=TIMEOUT_SECONDS
            )
        return time.perf_counter() - started

    async def _run(self, statement: str, batches: Sequence[tuple[Any, ...]]) -> float:
        started = time.perf_counter()
        for arguments in batches:
            await self._connection.execute(statement, *arguments, timeout=TIMEOUT_SECONDS)
        return time.perf_counter() - started


async def connected(database_url: str) -> Any:
    """A connection; untyped, because asyncpg is."""
    return await asyncpg.connect(database_url, timeout=TIMEOUT_SECONDS)


def _row(report: UsageReport) -> tuple[Any, ...]:
    quantities = list(report.counters.values())
    return (*report.window_key, report.window.end, quantities, [RANK] * len(quantities))


def _flat(reports: Sequence[UsageReport]) -> tuple[Any, ...]:
    width = len(reports[0].counters)
    return (
        [report.organization_id for report in reports],
        [report.window.start for report in reports],
        [report.source for report in reports],
        [report.window.end for report in reports],
        width,
        [quantity for report in reports for quantity in report.counters.values()],
        [RANK] * (width * len(reports)),
    )


def _cells(reports: Sequence[UsageReport]) -> tuple[Any, ...]:
    cells = [
        (report.organization_id, report.window.start, report.source, number, quantity)
        for report in reports
        for number, quantity in enumerate(report.counters.values())
    ]
    return tuple(map(list, zip(*cells, strict=True)))


def _parts(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    for first in range(0, len(items), size):
        yield items[first : first + size]
