"""Archiving, detaching and bringing back a month, on Postgres: nothing is lost, nothing is taken on trust (L4, L5)."""

import argparse
import asyncio
import gzip
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from quill_runtime import dead_letters
from quill_runtime.command_line import run
from quill_runtime.consumption import Received, Record
from quill_runtime.database import Database
from quill_runtime.outbox import Outbox
from quill_runtime.tables import outbox as outbox_table
from quill_usage_ingest import consumers
from quill_usage_ingest.app import build
from quill_usage_ingest.commands import MONTH_COMMANDS, partitions
from quill_usage_ingest.consumers.teams import report_teams
from quill_usage_ingest.domain.archived_month import MonthArchived, MonthStillNeeded
from quill_usage_ingest.domain.meters import MeteredProduct
from quill_usage_ingest.domain.month_archive import ArchiveMismatch, Fingerprint
from quill_usage_ingest.domain.usage_book import PeriodKey, Verdict
from quill_usage_ingest.jobs import UsageAudit
from quill_usage_ingest.ports import Arrival, ArrivedReport
from quill_usage_ingest.settings import UsageIngestSettings
from quill_usage_ingest.store.archive_files import MANIFEST, ArchiveDamaged
from quill_usage_ingest.store.corrections import PostgresCorrections
from quill_usage_ingest.store.counter_slots import CounterSlots
from quill_usage_ingest.store.generation_marks import mark_comparisons
from quill_usage_ingest.store.generations import PostgresGenerations
from quill_usage_ingest.store.heard_sources import HeardSources
from quill_usage_ingest.store.meter_recounts import CounterRecounts
from quill_usage_ingest.store.month_archives import ArchiveRefused, MonthArchives
from quill_usage_ingest.store.month_detaching import MonthDetaching, detached_name
from quill_usage_ingest.store.parked_reports import replay_archived_reports
from quill_usage_ingest.store.partition_list import months_of_tables
from quill_usage_ingest.store.partitions import ARCHIVED, Partitions, partition_name
from quill_usage_ingest.store.postgres import PostgresUsage
from quill_usage_ingest.usecases.compare_generations import compare_generations
from quill_usage_ingest.usecases.explain_usage import explain_usage
from quill_usage_ingest.usecases.project_customers import project_customers
from quill_usage_ingest.usecases.project_products import project_products
from quill_usage_ingest.usecases.record_reports import record_reports
from quill_usage_ingest.wire.explanation import to_wire_explanation
from sqlalchemy import select, text

OCTOBER = datetime(2026, 10, 1, tzinfo=UTC)
NOVEMBER = datetime(2026, 11, 1, tzinfo=UTC)
NOW = datetime(2028, 2, 15, tzinfo=UTC)
IN_TIME = datetime(2026, 12, 1, tzinfo=UTC)
"""When reports of October and November come; of their months 14 later, `NOW`, nothing is taken any more (D6)."""
DAY = timedelta(days=1)
COUNTER = "event_count_in_period"
SHELL_SECONDS = 240
"""Five processes, each of which imports the whole service."""


@given(st.lists(st.binary(max_size=8), max_size=12), st.randoms())
def test_a_fingerprint_is_of_the_rows_and_not_of_their_order(rows, random):
    def of(given_rows: list[bytes]) -> tuple[int, str]:
        made = Fingerprint()
        for row in given_rows:
            made.add(row)
        return made.rows, made.content

    shuffled = rows.copy()
    random.shuffle(shuffled)
    assert of(shuffled) == of(rows)
    assert of([*rows, b"one more"]) != of(rows)
    if rows:
        assert of([*rows[1:], rows[0] + b"!"]) != of(rows)


@dataclass
class Months:
    """A database with a customer, and what one does with its months."""

    database: Database
    folder: Path
    slots: CounterSlots

    async def take(self, *records: Record, now: datetime = IN_TIME) -> None:
        """What both consumer groups make of these records of ``usage.reports.v1``."""
        totals = consumers.usage_reports(
            "totals", park_as="totals", slots=self.slots, outbox=Outbox(), publication=None, heard=HeardSources()
        )
        teams = report_teams("teams", slots=self.slots, publication=None)
        for consumption in (totals, teams):
            received = [Received(consumption.decode(record), record) for record in records]
            async with self.database.begin() as transaction:
                await consumption.apply(transaction, received, now)

    async def archive(self):
        return await MonthArchives(self.database).archive(OCTOBER, self.folder, now=NOW, progress=quiet)

    async def detach(self, *, drop: bool = False, keep_months: int = 14, now: datetime = NOW) -> None:
        await MonthDetaching(self.database).detach(
            OCTOBER, self.folder, keep_months=keep_months, is_dropped=drop, now=now, progress=quiet
        )

    async def bring_back(self, *, dropped: bool) -> None:
        if dropped:
            await MonthDetaching(self.database).restore(OCTOBER, self.folder, progress=quiet)
        else:
            await MonthDetaching(self.database).attach(OCTOBER)

    async def rows(self) -> dict[str, list[str]]:
        async with self.database.begin() as transaction:
            return {
                table: [
                    row[0]
                    for row in await transaction.connection.execute(
                        text(f"select row_to_json(t)::text from {table} as t order by 1")
                    )
                ]
                for table in ARCHIVED
            }

    async def explained(self) -> dict[str, object]:
        async with self.database.begin() as transaction:
            tx = PostgresUsage(transaction, self.slots)
            known = await tx.organization("acme")
            answer = await explain_usage(
                known,
                known.schedule.period_containing(OCTOBER),
                COUNTER,
                tx=tx,
                corrections=PostgresCorrections(transaction),
            )
        assert answer.is_equal
        return to_wire_explanation(answer, meter="events", at=None, parked=[])

    async def total(self) -> int:
        async with self.database.begin() as transaction:
            tx = PostgresUsage(transaction, self.slots)
            known = await tx.organization("acme")
            key = PeriodKey("acme", known.schedule.period_containing(OCTOBER))
            return (await tx.periods({key}))[key].counters[COUNTER].to_date

    async def audited(self) -> int:
        recounts = CounterRecounts(self.database, self.slots)
        return await UsageAudit(database=self.database, slots=self.slots, recounts=recounts).run(NOW)

    async def state(self) -> set[str]:
        async with self.database.begin() as transaction:
            found = await months_of_tables(transaction)
        return {each.state for each in found if each.month == OCTOBER and each.table in ARCHIVED}


def quiet(_table: str, _done: int, _expected: int) -> None:
    """No progress to show."""


def record(offset: int, day: int, events: int, *, at: int = 1, **changed: object) -> Record:
    start = OCTOBER + (day - 1) * DAY
    report = {
        "report_id": f"r-{day}-{at}",
        "source": "us",
        "organization_id": "acme",
        "window_start": start,
        "window_end": start + DAY,
        "completeness": "complete",
        "as_of": start + DAY + timedelta(hours=at, microseconds=3),
        "counters": {COUNTER: events, f"other_{day}": 2**49 + day},
        "teams": {"17": {COUNTER: events}, 'ü\n"': {COUNTER: 1}},
        **changed,
    }
    return Record("usage.reports.v1", 0, offset, b"acme", orjson.dumps(report), {})


@pytest.fixture
async def months(database: Database, tmp_path: Path, organization) -> AsyncIterator[Months]:
    """acme used 30 events in October 2026, of four reports, one superseded and one in conflict; 5 in November."""
    made = Months(database, tmp_path / "archives", CounterSlots())
    async with database.begin() as transaction:
        tx = PostgresUsage(transaction, made.slots)
        await project_customers([organization()], tx=tx)
        await project_products([MeteredProduct("analytics", 1, "events", COUNTER)], tx=tx)
    await made.take(
        record(1, 1, 10),
        record(2, 1, 9, at=0),
        record(3, 31, 20, correction={"actor": "ada", "reason": "räumte auf"}),
        record(4, 31, 19, counters={COUNTER: 19}),
        record(5, 32, 5),
    )
    assert await made.total() == 30
    return made


@pytest.mark.integration
@pytest.mark.parametrize("drop", [False, True])
async def test_out_and_back_again_leaves_rows_totals_and_explanations_as_they_were(months: Months, drop):
    rows, explanation = await months.rows(), await months.explained()
    archived = await months.archive()
    assert [(table.table, table.rows) for table in archived.tables] == [
        ("usage_reports", 4),
        ("usage_windows", 2),
        ("team_windows", 4),
    ]
    assert (archived.tables[0].first, archived.tables[0].last) == (OCTOBER, OCTOBER + 30 * DAY)
    assert await months.rows() == rows
    assert await months.state() == {"attached"}
    await months.detach(drop=drop)
    gone = await months.rows()
    assert [len(gone[table]) for table in ARCHIVED] == [1, 1, 2]
    assert await months.state() == {"dropped" if drop else "detached"}
    with pytest.raises(MonthArchived, match="2026-10"):
        await months.explained()
    assert await months.total() == 30
    assert await months.audited() == 0
    assert await Partitions(months.database).run(NOW) >= 0
    assert await months.total() == 30
    await months.bring_back(dropped=drop)
    assert await months.rows() == rows
    assert await months.explained() == explanation
    assert await months.audited() == 0
    await months.detach(drop=drop)
    await months.bring_back(dropped=drop)
    assert await months.rows() == rows


@pytest.mark.integration
async def test_a_month_that_is_back_takes_reports_and_ids_go_on(months: Months):
    await months.archive()
    await months.detach(drop=True)
    await months.bring_back(dropped=True)
    await months.take(record(6, 2, 3), record(1, 1, 10))
    assert await months.total() == 33
    async with months.database.begin() as transaction:
        names = await transaction.connection.execute(
            text("select id, tableoid::regclass::text as place from usage_reports order by id")
        )
        assert [(row.id, row.place) for row in names][-1] == (6, "usage_reports_2026_10")


@pytest.mark.integration
async def test_a_late_report_is_parked_and_entered_when_its_month_is_back(months: Months):
    """L4. It is merged with the cells of its month, which are needed to know what it adds."""
    await months.archive()
    await months.detach()
    late = record(9, 1, 12, at=5)
    await months.take(late, record(10, 33, 1))
    assert await months.total() == 30
    async with months.database.begin() as transaction:
        (letter,) = await dead_letters.waiting(transaction)
    assert (letter.reason_code, letter.attribute, letter.subject) == ("month_archived", "window_start", "acme")
    assert letter.value == late.value
    await months.bring_back(dropped=False)
    async with months.database.begin() as transaction:
        other = await replay_archived_reports(transaction, outbox=Outbox(), month=NOVEMBER, after_id=0, now=NOW)
        assert other == (0, None)
        sent = await replay_archived_reports(transaction, outbox=Outbox(), month=OCTOBER, after_id=0, now=NOW)
        assert sent == (1, None)
        values = [
            row.value for row in await transaction.connection.execute(select(outbox_table)) if row.topic == late.topic
        ]
        assert values == [late.value]
    await months.take(replace(late, offset=11))
    assert await months.total() == 32
    with pytest.raises(ArchiveMismatch, match=r"usage_reports has 5 rows in the database, 4 in its archive; archive"):
        await months.detach()
    await months.archive()
    await months.detach()
    assert sorted(path.name[:14] for path in months.folder.iterdir()) == ["2026-10", "2026-10.until-"]


@pytest.mark.integration
async def test_what_is_not_in_the_archive_does_not_leave(months: Months):
    """One row changed since, equally many: the content tells."""
    await months.archive()
    async with months.database.begin() as transaction:
        await transaction.connection.execute(
            text("update team_windows set quantities[1] = quantities[1] + 1 where team_id = '17'")
        )
    with pytest.raises(ArchiveMismatch, match="team_windows has as many rows in the database as in its archive, but"):
        await months.detach()
    assert await months.state() == {"attached"}
    await months.take(record(6, 2, 3))
    assert await months.total() == 33, "a comparison that failed leaves the month in use"


@pytest.mark.integration
@pytest.mark.parametrize("harm", ["byte", "cut off", "missing", "rows", "no manifest", "other month", "other table"])
async def test_a_tampered_archive_is_refused(months: Months, harm):
    await months.archive()
    folder = months.folder / "2026-10"
    file = folder / "usage_windows.jsonl.gz"
    manifest = json.loads((folder / MANIFEST).read_text())
    if harm == "byte":
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
    elif harm == "cut off":
        file.write_bytes(file.read_bytes()[:-9])
    elif harm == "missing":
        file.unlink()
    elif harm == "rows":
        # Somebody who makes the manifest fit: only the comparison with the database finds out.
        lines = gzip.decompress(file.read_bytes()).splitlines()
        forged = [line.replace(b'"us"', b'"eu"') for line in lines]
        file.write_bytes(gzip.compress(b"".join(line + b"\n" for line in forged)))
        made = Fingerprint()
        for line in forged:
            made.add(line)
        manifest["tables"][1] |= {
            "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
            "content": made.content,
        }
        (folder / MANIFEST).write_text(json.dumps(manifest))
    elif harm == "no manifest":
        (folder / MANIFEST).unlink()
    elif harm == "other month":
        (folder / MANIFEST).write_text(json.dumps({**manifest, "month": "2026-09-01T00:00:00Z"}))
    else:
        manifest["tables"][0]["table"] = "pg_authid"
        (folder / MANIFEST).write_text(json.dumps(manifest))
    rows = await months.rows()
    with pytest.raises((ArchiveDamaged, ArchiveMismatch)):
        await months.detach(drop=True)
    assert await months.rows() == rows
    assert await months.state() == {"attached"}


@pytest.mark.integration
async def test_a_damaged_archive_restores_nothing(months: Months):
    await months.archive()
    await months.detach(drop=True)
    file = months.folder / "2026-10" / "usage_reports.jsonl.gz"
    whole = file.read_bytes()
    file.write_bytes(whole[:-20])
    with pytest.raises(ArchiveDamaged, match=r"usage_reports\.jsonl\.gz"):
        await months.bring_back(dropped=True)
    assert await months.state() == {"dropped"}
    file.write_bytes(whole)
    await months.bring_back(dropped=True)
    await months.explained()


@pytest.mark.integration
async def test_a_month_stays_while_somebody_needs_it(months: Months, organization):
    async with months.database.begin() as transaction:
        early = datetime(2026, 10, 20, tzinfo=UTC)
        with pytest.raises(ArchiveRefused, match="2026-10 is not over; archive it from 2026-11-01 on"):
            await MonthArchives(months.database).archive(OCTOBER, months.folder, now=early, progress=quiet)
    await months.archive()
    with pytest.raises(MonthStillNeeded, match="2026-11-01 of acme ended less than 16 months ago"):
        await months.detach(keep_months=16)
    async with months.database.begin() as transaction:
        yearly = organization("globex", anchor=datetime(2026, 10, 31, tzinfo=UTC), interval="2 years")
        await project_customers([yearly], tx=PostgresUsage(transaction, months.slots))
    with pytest.raises(MonthStillNeeded, match="2026-10-31 to 2028-10-31 of globex is still open"):
        await months.detach(keep_months=0)
    async with months.database.begin() as transaction:
        await project_customers([organization("globex", revision=2)], tx=PostgresUsage(transaction, months.slots))
        tx = PostgresUsage(transaction, months.slots)
        first = (await tx.kept_reports("acme", window_start=OCTOBER, after_id=0, limit=1))[0]
        await tx.set_verdict([first.id], Verdict(first.verdict))
    with pytest.raises(MonthStillNeeded, match="team rows of 1 corrected windows"):
        await months.detach()
    assert await months.state() == {"attached"}


@pytest.mark.integration
async def test_what_was_done_already_is_said_and_not_done_again(months: Months):
    with pytest.raises(ArchiveDamaged, match="there is no archive; make one with `archive 2026-10`"):
        await months.detach()
    await months.archive()
    for back in (False, True):
        with pytest.raises(ArchiveRefused):
            await months.bring_back(dropped=back)
    await months.detach()
    with pytest.raises(ArchiveRefused, match="has left the database already"):
        await months.detach()
    with pytest.raises(MonthArchived, match="2026-10"):
        await months.archive()
    with pytest.raises(ArchiveRefused, match="use `attach`"):
        await months.bring_back(dropped=True)
    await months.bring_back(dropped=False)


@pytest.mark.integration
async def test_a_batch_on_its_way_is_waited_for_and_found(months: Months):
    """It read that October is here; October does not leave under it, and what it wrote is not lost."""
    await months.archive()
    async with months.database.begin() as transaction:
        tx = PostgresUsage(transaction, months.slots)
        late = consumers.decode_usage_report(record(20, 3, 4))
        arrived = ArrivedReport(late, Arrival("kafka", record(20, 3, 4).value or b""))
        assert await record_reports([arrived], tx=tx, now=IN_TIME, is_publication_due=False) == [Verdict.APPLIED]
        leaving = asyncio.create_task(months.detach())
        done, _ = await asyncio.wait({leaving}, timeout=1.5)
        assert not done
    with pytest.raises(ArchiveMismatch, match="usage_reports has 5 rows in the database, 4 in its archive"):
        await leaving
    assert await months.total() == 34
    assert await months.state() == {"attached"}


@pytest.mark.integration
async def test_killed_in_between_it_goes_on_or_comes_back(months: Months):
    await months.archive()
    async with months.database.begin() as transaction:
        await transaction.connection.execute(text("update archived_months set state = 'detaching'"))
    assert await months.state() == {"detaching"}
    await months.take(record(9, 2, 3))
    assert await months.total() == 30, "out of reach until somebody decides"
    await months.bring_back(dropped=False)
    assert await months.state() == {"attached"}
    async with months.database.begin() as transaction:
        await transaction.connection.execute(text("update archived_months set state = 'detaching'"))
    await months.detach()
    assert await months.state() == {"detached"}
    async with months.database.begin() as transaction:
        for table in ARCHIVED:
            found = await transaction.connection.scalar(
                text("select to_regclass(:name)::text"), {"name": detached_name(table, OCTOBER)}
            )
            assert found == detached_name(table, OCTOBER)


@pytest.mark.integration
async def test_a_report_that_only_looks_on_is_kept_and_joins_its_month_when_that_is_back(months: Months):
    """It is compared with another generation and never counted, so it need not wait."""
    await months.archive()
    await months.detach()
    looking_on = consumers.decode_usage_report(record(30, 4, 8))
    async with months.database.begin() as transaction:
        tx = PostgresUsage(transaction, months.slots)
        arrived = ArrivedReport(looking_on, Arrival("kafka", record(30, 4, 8).value or b""))
        await tx.keep_reports([(arrived, Verdict.SHADOWED)], now=NOW)
        await mark_comparisons(transaction, [looking_on])
        await transaction.connection.execute(
            text("insert into generation_marks (organization_id, day, source) values ('acme', :day, 'us')"),
            {"day": OCTOBER},
        )
        generations = PostgresGenerations(transaction)
        assert await compare_generations(tx=generations, limit=10, now=NOW) == 1
    await months.bring_back(dropped=False)
    assert (await months.explained())["usage"]["to_date"] == await months.total() == 30
    async with months.database.begin() as transaction:
        kept = await PostgresUsage(transaction, months.slots).kept_reports(
            "acme", window_start=looking_on.window.start, after_id=0, limit=10
        )
        assert [each.verdict for each in kept] == ["shadowed"]
        place = "select distinct tableoid::regclass::text from usage_reports where verdict = 'shadowed'"
        assert await transaction.connection.scalar(text(place)) == "usage_reports_2026_10"


@pytest.mark.integration
async def test_rows_without_a_partition_are_archived_with_their_month(months: Months):
    async with months.database.begin() as transaction:
        for table in ARCHIVED:
            name = partition_name(table, OCTOBER)
            if await transaction.connection.scalar(text("select to_regclass(:name)::oid"), {"name": name}):
                await transaction.connection.execute(text(f"alter table {table} detach partition {name}"))
                await transaction.connection.execute(text(f"insert into {table} select * from {name}"))
                await transaction.connection.execute(text(f"drop table {name}"))
    rows = await months.rows()
    archived = await months.archive()
    assert archived.rows == 10
    assert await months.rows() == rows
    await months.detach()


@pytest.mark.timeout(SHELL_SECONDS)
@pytest.mark.integration
async def test_the_commands_do_it_from_a_shell(months: Months, migrated_url: str):
    def called(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-W", "error", "-m", "quill_usage_ingest", *arguments],
            capture_output=True,
            text=True,
            check=False,
            env={
                **os.environ,
                "DATABASE_URL": migrated_url,
                "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1",
                "QUILL_SEALING_KEYS": "k1:" + "A" * 43 + "=",
                "QUILL_CLOCK_FILE": str(clock),
            },
        )

    clock = months.folder.with_name("clock")
    clock.write_text(str((NOW - datetime.now(UTC)).total_seconds()))
    said = await asyncio.to_thread(called, "archive", "2026-10", "--to", str(months.folder))
    assert said.returncode == 0, said.stderr
    assert said.stdout.startswith("2026-10: 10 rows, ")
    month = {("2026-10", table) for table in ARCHIVED}
    listed = await asyncio.to_thread(called, "partitions", "--json")
    held = [each for each in msgspec.json.decode(listed.stdout) if (each["month"], each["table"]) in month]
    assert [(each["table"], each["state"]) for each in held] == [(table, "attached") for table in ARCHIVED]
    assert all(each["archived_at"] and each["bytes"] > 0 for each in held)
    refused = await asyncio.to_thread(
        called, "detach", "2026-10", "--archive", str(months.folder), "--keep-months", "99"
    )
    assert refused.returncode == 1
    assert refused.stderr.startswith("detach: 2026-10: the billing period 2026-10-01 to 2026-11-01 of acme ended less")
    said = await asyncio.to_thread(called, "detach", "2026-10", "--archive", str(months.folder), "--drop")
    assert "were dropped; back with: restore 2026-10 --from" in said.stdout, said.stderr
    await months.take(record(9, 2, 3))
    said = await asyncio.to_thread(called, "restore", "2026-10", "--from", str(months.folder))
    assert said.stdout.endswith("are back; 1 reports that waited for it are entered now\n"), said.stderr


@pytest.mark.integration
async def test_the_list_of_months_is_a_table(months: Months, migrated_url: str):
    await months.archive()
    await months.detach(drop=True)
    settings = UsageIngestSettings(
        database_url=migrated_url, kafka_bootstrap_servers="127.0.0.1:1", quill_sealing_keys="k1:" + "A" * 43 + "="
    )
    head, *lines = (await partitions(settings, argparse.Namespace(all=True, json=False))).splitlines()
    assert head.split() == ["month", "table", "rows", "bytes", "state", "archived"]
    october = [line.split() for line in lines if line.startswith("2026-10") and "event" not in line]
    assert october == [
        ["2026-10", "usage_reports", "4", "0", "dropped", "2028-02-15"],
        ["2026-10", "usage_windows", "2", "0", "dropped", "2028-02-15"],
        ["2026-10", "team_windows", "4", "0", "dropped", "2028-02-15"],
    ]
    assert ["other", "usage_reports"] in [line.split()[:2] for line in lines]


def test_a_month_that_is_none_is_refused_in_words(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as stopped:
        run(
            package="quill_usage_ingest",
            settings_type=UsageIngestSettings,
            build=build,
            commands=MONTH_COMMANDS,
            arguments=["archive", "2026-13", "--to", "x"],
        )
    assert stopped.value.code == 2
    assert "'2026-13' is not a month; write it like 2025-03" in capsys.readouterr().err
