"""Reports and cells by month: what a batch touches, what is made ahead, and what a migration moves."""

import json
import shutil
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from importlib.resources import as_file, files
from pathlib import Path

import pytest
from quill_runtime.database import Database, Transaction
from quill_runtime.migrations import migrate, runtime_history, service_history
from quill_usage_ingest.domain.usage_book import Verdict
from quill_usage_ingest.domain.usage_month import InvalidMonth, month_after, month_name, month_named, month_of
from quill_usage_ingest.domain.usage_report import UsageWindow
from quill_usage_ingest.ports import ArrivedReport
from quill_usage_ingest.store import statements
from quill_usage_ingest.store.array_text import column_of_instants, column_of_texts
from quill_usage_ingest.store.counter_slots import CounterSlots
from quill_usage_ingest.store.months import RANGES_MAX, of_months
from quill_usage_ingest.store.partitions import MONTHS_AHEAD, PARTITIONED, Partitions, partition_name
from quill_usage_ingest.store.postgres import PostgresUsage
from quill_usage_ingest.usecases.project_customers import project_customers
from quill_usage_ingest.usecases.record_reports import record_reports
from sqlalchemy import text

OCTOBER = datetime(2026, 10, 1, tzinfo=UTC)
NOW = datetime(2026, 10, 20, tzinfo=UTC)
REPEATS = 8
"""Postgres thinks about one plan for all parameters from the sixth execution on."""


@pytest.mark.parametrize(
    ("instant", "month", "next_month"),
    [
        (datetime(2026, 10, 31, 23, 59, tzinfo=UTC), "2026-10", "2026-11"),
        (datetime(2026, 12, 1, tzinfo=UTC), "2026-12", "2027-01"),
        (datetime(2028, 2, 29, tzinfo=UTC), "2028-02", "2028-03"),
    ],
)
def test_months_are_utc_months(instant, month, next_month):
    assert month_name(month_of(instant)) == month
    assert month_named(month) == month_of(instant)
    assert month_name(month_after(month_of(instant))) == next_month
    assert month_after(month_after(month_of(instant), -14), 14) == month_of(instant)


@pytest.mark.parametrize("name", ["2026-13", "2026-1", "march", "2026-10-01", ""])
def test_what_is_no_month_is_refused_in_words(name):
    with pytest.raises(InvalidMonth, match="write it like"):
        month_named(name)


def test_a_statement_names_the_months_it_is_about_and_no_other():
    days = [
        OCTOBER,
        OCTOBER + timedelta(days=40),
        datetime(2025, 1, 31, tzinfo=UTC),
        datetime(9999, 12, 31, tzinfo=UTC),
    ]
    assert str(of_months("{w.window_start}", days)) == (
        "(w.window_start >= timestamptz '2025-01-01 UTC' and w.window_start < timestamptz '2025-02-01 UTC'"
        " or w.window_start >= timestamptz '2026-10-01 UTC' and w.window_start < timestamptz '2026-12-01 UTC'"
        " or w.window_start >= timestamptz '9999-12-01 UTC' and w.window_start < timestamptz '10000-01-01 UTC')"
    )
    every_second = [month_after(OCTOBER, 2 * count) for count in range(RANGES_MAX + 1)]
    assert str(of_months("{w.window_start}", every_second)).count(" or ") == 0


@pytest.mark.integration
async def test_a_batch_about_one_day_touches_the_partition_of_its_month_alone(
    database: Database, arrived: Callable[..., ArrivedReport], organization
):
    await Partitions(database).run(NOW)
    slots = CounterSlots()
    async with database.begin() as transaction:
        await project_customers([organization()], tx=PostgresUsage(transaction, slots))
    for hour in range(REPEATS):
        async with database.begin() as transaction:
            batch = [arrived(day=5, at=hour, events=hour), arrived(day=5, at=hour, source="eu", events=7)]
            verdicts = await record_reports(
                batch, tx=PostgresUsage(transaction, slots), now=NOW, is_publication_due=False
            )
            assert verdicts == [Verdict.APPLIED] * 2
            assert await locked_partitions(transaction) == {"usage_reports_2026_10", "usage_windows_2026_10"}


@pytest.mark.integration
async def test_the_plans_of_reading_a_batch_name_one_partition(database: Database):
    await Partitions(database).run(NOW)
    keys = {"organization_id": column_of_texts(["acme"] * 1_000), "source": column_of_texts(["us"] * 1_000)}
    october = column_of_instants([OCTOBER] * 1_000)
    names = {**keys, "report_id": column_of_texts([str(n) for n in range(1_000)]), "month": october}
    days = {**keys, "day": october}
    async with database.begin() as transaction:
        known = await planned(transaction, statements.KNOWN_CONTENTS, names, [OCTOBER])
        assert known == {"usage_reports_2026_10"}
        assert await planned(transaction, statements.WINDOWS_OF_DAYS, days, [OCTOBER]) == {"usage_windows_2026_10"}
        outside = datetime(1999, 5, 1, tzinfo=UTC)
        assert await planned(transaction, statements.WINDOWS_OF_DAYS, days, [outside]) == {"usage_windows_default"}


@pytest.mark.integration
async def test_reports_are_found_by_id_across_months_and_only_their_owners(
    database: Database, arrived: Callable[..., ArrivedReport], organization
):
    async with database.begin() as transaction:
        usage = PostgresUsage(transaction, CounterSlots())
        await project_customers([organization(), organization("globex")], tx=usage)
        batch = [arrived(day=day, events=day) for day in (40, 1, 20)] + [arrived("globex", day=2, events=1)]
        await record_reports(batch, tx=usage, now=NOW + timedelta(days=30), is_publication_due=False)
        listed = await usage.kept_reports("acme", window_start=None, after_id=0, limit=10)
        assert [report.window_start.day for report in listed] == [9, 1, 20]
        ids = [report.id for report in listed]
        assert await usage.kept_reports("acme", window_start=None, after_id=ids[0], limit=1) == listed[1:2]
        foreign = (await usage.kept_reports("globex", window_start=None, after_id=0, limit=10))[0].id
        found = await usage.kept_reports_of_ids("acme", [*reversed(ids), foreign, 10**9])
        assert found == {report.id: report for report in listed}


@pytest.mark.integration
async def test_months_are_made_ahead_and_rows_that_found_none_move_into_theirs(
    database: Database, arrived: Callable[..., ArrivedReport], organization
):
    slots, partitions = CounterSlots(), Partitions(database)
    now = datetime(2031, 2, 10, tzinfo=UTC)
    async with database.begin() as transaction:
        usage = PostgresUsage(transaction, slots)
        await project_customers([organization()], tx=usage)
        old, older = (
            moved_to(arrived(events=3), datetime(2024, 5, 2, tzinfo=UTC)),
            moved_to(arrived(events=4), datetime(1999, 5, 2, tzinfo=UTC)),
        )
        for each in (old, older):
            in_time = each.report.window.end
            await record_reports([each], tx=usage, now=in_time, is_publication_due=False)
        assert await where_rows_are(transaction, "usage_windows") == ["usage_windows_default"] * 2
    assert await partitions.run(now) > 0
    assert await partitions.run(now) == 0
    async with database.begin() as transaction:
        assert await where_rows_are(transaction, "usage_windows") == ["usage_windows_2024_05", "usage_windows_default"]
        assert await where_rows_are(transaction, "usage_reports") == ["usage_reports_2024_05", "usage_reports_default"]
        for table in PARTITIONED:
            for count in range(MONTHS_AHEAD + 1):
                name = partition_name(table, month_after(month_of(now), count))
                assert await transaction.connection.scalar(text("select to_regclass(:name)::oid"), {"name": name})
        usage = PostgresUsage(transaction, slots)
        assert len(await usage.windows_after("acme", None, limit=1_000)) == 2
        again = await record_reports([old, older], tx=usage, now=now, is_publication_due=False)
        assert again == [Verdict.NO_CHANGE] * 2


@pytest.mark.integration
async def test_one_name_for_two_contents_is_a_conflict_within_a_month_however_batches_are_cut(
    database: Database, arrived: Callable[..., ArrivedReport], organization
):
    reports = [
        arrived(day=1, events=5, report_id="r"),
        arrived(day=2, events=6, report_id="r"),
        arrived(day=40, events=7, report_id="r"),
    ]
    now = datetime(2026, 11, 20, tzinfo=UTC)
    for size in (1, 3):
        async with database.begin() as transaction:
            usage = PostgresUsage(transaction, CounterSlots())
            await project_customers([organization(f"of-{size}")], tx=usage)
            named = [replace(each, report=replace(each.report, organization_id=f"of-{size}")) for each in reports]
            verdicts = []
            for at in range(0, 3, size):
                verdicts += await record_reports(named[at : at + size], tx=usage, now=now, is_publication_due=False)
            assert verdicts == [Verdict.APPLIED, Verdict.CONFLICT, Verdict.APPLIED]


@pytest.mark.integration
async def test_the_migration_moves_every_row_to_its_month_and_ids_go_on_rising(
    create_database: Callable[..., str], tmp_path: Path, arrived: Callable[..., ArrivedReport]
):
    url = create_database()
    with as_file(files("quill_usage_ingest.migrations")) as folder:
        shutil.copytree(folder, tmp_path / "before", ignore=later_than_5)
    before = replace(service_history("quill_usage_ingest"), folder=tmp_path / "before")
    await migrate(url, (runtime_history(), before))
    database, slots = Database(url), CounterSlots()
    days = [datetime(1971, 3, 1, tzinfo=UTC), datetime(2025, 12, 31, tzinfo=UTC), OCTOBER]
    try:
        async with database.begin() as transaction:
            await transaction.connection.execute(text(INSERT_ORGANIZATION), {"anchor": OCTOBER})
            for number, day in enumerate(days):
                report = {"id": 10 + number, "day": day, "end": day + timedelta(days=1), "hash": bytes([number])}
                await transaction.connection.execute(text(INSERT_REPORT), report)
                await transaction.connection.execute(text(INSERT_WINDOW), {"day": day, "end": day + timedelta(days=1)})
        held = [await rows_of(database, table) for table in ("usage_reports", "usage_windows")]
        await migrate(url, (runtime_history(), service_history("quill_usage_ingest")))
        assert [await rows_of(database, table) for table in ("usage_reports", "usage_windows")] == held
        async with database.begin() as transaction:
            usage = PostgresUsage(transaction, slots)
            assert await usage.sources_of("acme") == {"us"}, "who reported before sources were noted is noted"
            await record_reports([arrived(day=3, events=1)], tx=usage, now=NOW, is_publication_due=False)
            kept = await usage.kept_reports("acme", window_start=None, after_id=0, limit=10)
            assert [report.id for report in kept] == [10, 11, 12, 13]
            places = await where_rows_are(transaction, "usage_windows")
            assert places[0] == "usage_windows_2025_12"
            assert "usage_windows_default" in places
    finally:
        await database.close()


def later_than_5(_folder: str, names: list[str]) -> list[str]:
    return [name for name in names if name[:4].isdigit() and name >= "0006"]


INSERT_ORGANIZATION = """
    insert into organizations (organization_id, license_id, customer_revision, schedule_anchor, schedule_interval,
                               customer)
    values ('acme', 'license-1', 1, :anchor, 'month', '{"customer_id": "c", "license_type": "cloud"}')
"""
INSERT_REPORT = """
    insert into usage_reports (id, organization_id, source, report_id, content_hash, window_start, window_end,
                               completeness, as_of, received_at, intake, verdict, body)
    overriding system value
    values (:id, 'acme', 'us', 'r', :hash, :day, :end, 'complete', :end, :end, 'kafka', 'applied', '')
"""
INSERT_WINDOW = """
    insert into usage_windows (organization_id, window_start, source, window_end, quantities, ranks)
    values ('acme', :day, 'us', :end, '{1}', '{1}')
"""


async def rows_of(database: Database, table: str) -> list[str]:
    async with database.begin() as transaction:
        rows = await transaction.connection.execute(text(f"select to_jsonb(t)::text from {table} as t order by 1"))
        return [row[0] for row in rows]


async def locked_partitions(transaction: Transaction) -> set[str]:
    """Partitions of reports and cells that this transaction has touched in any way so far."""
    rows = await transaction.connection.execute(
        text(
            "select distinct c.relname from pg_locks as l join pg_class as c on c.oid = l.relation"
            " where l.pid = pg_backend_pid() and c.relispartition and c.relkind = 'r'"
        )
    )
    return {row.relname for row in rows}


async def planned(
    transaction: Transaction, template: str, parameters: dict[str, list[object]], months: Iterable[datetime]
) -> set[str]:
    """Tables that the plan of a statement reads, when it is planned for all parameters at once."""
    await transaction.connection.execute(text("set local plan_cache_mode = force_generic_plan"))
    statement = text(f"explain (format json) {of_months(template, months)}")
    document = await transaction.connection.scalar(statement, parameters)
    return set(relations(document if isinstance(document, list) else json.loads(document)))


def relations(node: object) -> Iterable[str]:
    if isinstance(node, dict):
        if "Relation Name" in node:
            yield node["Relation Name"]
        for value in node.values():
            yield from relations(value)
    elif isinstance(node, list):
        for value in node:
            yield from relations(value)


async def where_rows_are(transaction: Transaction, table: str) -> list[str]:
    rows = await transaction.connection.execute(
        text(f"select tableoid::regclass::text from {table} order by window_start desc")
    )
    return sorted(row[0] for row in rows)


def moved_to(item: ArrivedReport, day: datetime) -> ArrivedReport:
    """The report for another day, as another content."""
    window = UsageWindow(day, day + timedelta(days=1))
    report = replace(item.report, window=window, as_of=window.end, report_id=f"{day}", content_hash=f"{day}".encode())
    return replace(item, report=report)
