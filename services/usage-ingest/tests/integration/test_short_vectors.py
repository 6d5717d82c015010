"""Packed rows in Postgres, short and in full: each form says the same, to Python and to SQL (ADR 0026)."""

from datetime import UTC, datetime

import pytest
from quill_runtime.database import Database
from quill_usage_ingest.domain.packed_counters import NEVER_REPORTED_MAXIMUM
from quill_usage_ingest.store.counter_slots import CounterSlots
from quill_usage_ingest.store.postgres import PostgresUsage
from quill_usage_ingest.store.short_vectors import maximum_in, partial_in, rank_in, whole_period, whole_ranks
from quill_usage_ingest.usecases.project_customers import project_customers
from quill_usage_ingest.usecases.record_reports import record_reports
from sqlalchemy import text

OCTOBER = datetime(2026, 10, 1, tzinfo=UTC)
NOW = datetime(2026, 11, 5, tzinfo=UTC)

pytestmark = pytest.mark.integration


@pytest.mark.parametrize(
    ("quantities", "ranks"), [([], []), ([5], [7]), ([5, 6, 0], [7]), ([5, 6, 0], [7, 8, 0]), ([5, 6], [7, 7])]
)
async def test_sql_reads_a_rank_as_python_does(database: Database, quantities, ranks):
    whole = whole_ranks(ranks, quantities)
    async with database.begin() as transaction:
        found = await transaction.connection.execute(
            text(
                f"select {rank_in('w', 's')} from generate_series(0, 3) as s, (select cast(:quantities as bigint[])"
                " as quantities, cast(:ranks as bigint[]) as ranks) as w order by s"
            ),
            {"quantities": quantities, "ranks": ranks},
        )
        assert [rank for (rank,) in found] == [*whole, *([None] * (4 - len(whole)))]


@pytest.mark.parametrize(
    ("complete", "partial", "maximum"),
    [
        ([], [], []),
        ([5, 6], [], []),
        ([5, 6], [1, 0], []),
        ([5, 6], [], [9, NEVER_REPORTED_MAXIMUM]),
        ([5, 6], [1, 2], [9, 8]),
    ],
)
async def test_sql_reads_a_period_as_python_does(database: Database, complete, partial, maximum):
    _, whole_partial, whole_maximum = whole_period(complete, partial, maximum)
    async with database.begin() as transaction:
        found = await transaction.connection.execute(
            text(
                f"select {partial_in('p', 's')}, {maximum_in('p', 's')} from generate_series(0, 3) as s,"
                " (select cast(:complete as bigint[]) as complete, cast(:partial as bigint[]) as partial,"
                " cast(:maximum as bigint[]) as maximum) as p order by s"
            ),
            {"complete": complete, "partial": partial, "maximum": maximum},
        )
        missing = 4 - len(complete)
        expected = [*zip(whole_partial, whole_maximum, strict=True), *([(0, None)] * missing)]
        assert [tuple(row) for row in found] == expected


async def test_rows_in_full_are_read_and_written_short_when_they_change(database: Database, arrived, organization):
    """Those of before the short form: nobody rewrites them, so both stand side by side for years."""
    slots = CounterSlots()

    async def record(*reports):
        async with database.begin() as transaction:
            await record_reports(reports, tx=PostgresUsage(transaction, slots), now=NOW, is_publication_due=False)

    async def seen():
        async with database.begin() as transaction:
            usage = PostgresUsage(transaction, slots)
            windows = await usage.windows_between("acme", OCTOBER, NOW)
            (period,) = await usage.periods_in_force("acme", newest=None)
            (packed,) = await usage.packed_newest_periods(["acme"], newest=3)
            forms = await transaction.connection.execute(
                text(
                    "select cardinality(ranks), (select cardinality(partial) from period_usage),"
                    " (select cardinality(maximum) from period_usage) from usage_windows order by window_start"
                )
            )
            cells = [(key, dict(window.cells)) for key, window in windows]
            arrays = [list(each) for each in (packed.complete, packed.partial, packed.maximum)]
            return (cells, dict(period.counters), arrays), [tuple(row) for row in forms]

    async with database.begin() as transaction:
        await project_customers([organization()], tx=PostgresUsage(transaction, slots))
    await record(arrived(day=1, a=5, b=6, c=0), arrived(day=2, complete=False, a=1, b=1, c=1))
    said, forms = await seen()
    assert forms == [(1, 3, 0), (1, 3, 0)], "all partial of the second day, and at its maximum"
    async with database.begin() as transaction:
        await transaction.connection.execute(
            text("update usage_windows set ranks = array_fill(ranks[1], array[cardinality(quantities)])")
        )
        await transaction.connection.execute(
            text("update period_usage set maximum = array[complete[1] + partial[1], complete[2] + partial[2], 1]")
        )
    said_in_full, forms = await seen()
    assert forms == [(3, 3, 3), (3, 3, 3)]
    assert said_in_full == said
    await record(arrived(day=2, at=1, a=1, b=1, c=1))
    _, forms = await seen()
    assert forms == [(3, 0, 0), (1, 0, 0)], "what did not change stays as it was"
