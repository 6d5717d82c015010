"""Killed in the middle of a chunk, stopped, or two at once: every line arrives, and none counts twice (L1, L4)."""

import asyncio
import collections
import json
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from quill_contracts import topics
from quill_contracts.intakes import DailyReport
from quill_contracts.intakes import ReportRun as WireReportRun
from quill_runtime.clock import SystemClock
from quill_runtime.consumption import Record
from quill_runtime.database import Database
from quill_runtime.publisher import Outgoing
from quill_usage_ingest.consumers.report_runs import RunWorker
from quill_usage_ingest.gateways import bucket
from quill_usage_ingest.store.report_runs import PostgresRuns
from quill_usage_ingest.store.run_tables import report_runs
from quill_usage_ingest.wire.report_runs import from_wire_pointer
from sqlalchemy import func, select, text

pytestmark = [pytest.mark.integration, pytest.mark.timeout(400)]

TODAY = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
YESTERDAY = TODAY - timedelta(days=1)
EVENTS = "event_count_in_period"
LINES = 2_000
"""Of each of two chunks; each line says more than the one before."""


def lines(first: int) -> list[dict[str, Any]]:
    return [
        {"organization_id": "acme", "date": YESTERDAY.date().isoformat(), EVENTS: number}
        for number in range(first, first + LINES)
    ]


async def position(database: Database, run_id: str = "r1") -> Any:
    async with database.begin() as transaction:
        found = await transaction.connection.execute(select(report_runs).where(report_runs.c.run_id == run_id))
        return found.one_or_none()


async def in_the_middle(database: Database, *, chunk: int) -> Any:
    """The saved position, as soon as it lies within this chunk."""
    deadline = time.monotonic() + 90
    while True:
        row = await position(database)
        if row is not None and row.chunk == chunk and row.line > 0:
            return row
        assert row is None or row.state == "due", "it was faster than we looked"
        assert time.monotonic() < deadline
        await asyncio.sleep(0.002)


async def copied(bootstrap_servers: str) -> list[int]:
    """The numbers that came to Kafka, in order."""
    consumer = AIOKafkaConsumer(
        bootstrap_servers=bootstrap_servers, enable_auto_commit=False, auto_offset_reset="earliest"
    )
    await consumer.start()
    try:
        place = TopicPartition(topics.DAILY_REPORTS.name, 0)
        consumer.assign([place])
        (end,) = (await consumer.end_offsets([place])).values()
        found: list[int] = []
        while await consumer.position(place) < end:
            for records in (await consumer.getmany(timeout_ms=500)).values():
                found += [DailyReport.from_bytes(record.value).line or 0 for record in records]
        return found
    finally:
        await consumer.stop()


async def test_killed_in_the_middle_of_a_chunk_another_process_goes_on_at_the_saved_position(
    intake_settings, around, spawn, database, tmp_path
):
    """SIGKILL. The lease runs out five minutes later; the clock of the second process says that they have passed."""
    clock = tmp_path / "clock"
    settings = intake_settings.model_copy(update={"quill_clock_file": clock})
    first = spawn(settings, QUILL_INSTANCE_ID="one")
    async with (
        httpx.AsyncClient(base_url=first.address, timeout=30, trust_env=False) as client,
        around(settings, client) as running,
    ):
        await running.customers("acme")
        pointer = await running.region.write_run(
            "r1", day=YESTERDAY, started=TODAY, chunks=[lines(1), lines(1 + LINES)]
        )
        await running.region.point(pointer)
        killed_at = await in_the_middle(database, chunk=1)
        first.kill()
    left_at = await position(database)
    assert (left_at.state, left_at.chunk) == ("due", 1)
    assert killed_at.line <= left_at.line < LINES, "it was killed within the chunk"

    clock.write_text("360")
    second = spawn(settings, QUILL_INSTANCE_ID="one")
    async with (
        httpx.AsyncClient(base_url=second.address, timeout=30, trust_env=False) as client,
        around(settings, client) as running,
    ):
        highest = 2 * LINES
        await running.until(lambda: running.events() == (highest, 0, highest), seconds=120)
    done = await position(database)
    assert (done.state, done.chunk, done.line, done.lines_sent) == ("done", 2, 0, 2 * LINES)
    arrived = await copied(settings.kafka_bootstrap_servers)
    counts = collections.Counter(arrived)
    assert set(counts) == set(range(1, LINES + 1)), "no line is lost"
    assert 2 * LINES <= len(arrived) <= 2 * LINES + 200, "at most one batch was sent twice"
    async with database.begin() as transaction:
        kept = await transaction.connection.scalar(text("select count(*) from usage_reports"))
    assert kept == 2 * LINES, "each line is kept once"


async def test_a_stopped_worker_gives_its_lease_back_and_the_next_goes_on_at_once(
    intake_settings, platform, region, database
):
    pointer = await region.write_run("r1", day=YESTERDAY, started=TODAY, chunks=[lines(1), lines(1 + LINES)])
    async with platform(intake_settings) as running:
        await running.customers("acme")
        await region.point(pointer)
        await in_the_middle(database, chunk=0)
    left_at = await position(database)
    assert (left_at.state, left_at.reason) == ("due", "its worker was stopped")
    assert left_at.due_at <= datetime.now(UTC), "nobody need wait for the lease"
    async with platform(intake_settings) as running:
        await running.until(lambda: running.events() == (2 * LINES, 0, 2 * LINES), seconds=120)
        done = await position(database)
        assert (done.state, done.lines_sent) == ("done", 2 * LINES)


class CountingPublisher:
    """A log that only counts which line of which run came."""

    def __init__(self) -> None:
        self.lines: collections.Counter[tuple[str | None, int | None]] = collections.Counter()

    async def publish_all(self, messages: Sequence[Outgoing]) -> None:
        await asyncio.sleep(0)
        for message in messages:
            report = DailyReport.from_bytes(message.value or b"")
            self.lines[report.run_id, report.line] += 1


async def test_two_replicas_share_the_runs_and_no_line_is_sent_by_both(region, database):
    runs = [f"r{number}" for number in range(6)]
    for run_id in runs:
        chunk = [{**each, "organization_id": run_id} for each in lines(1)[:900]]
        pointer = await region.write_run(run_id, day=YESTERDAY, started=TODAY, chunks=[chunk])
        run = from_wire_pointer(WireReportRun(source="eu", sent_at=TODAY, body=json.dumps(pointer)))
        async with database.begin() as transaction:
            await PostgresRuns(transaction).take_in(run, pointer=Record("runs", 0, 1, None, b"", {}), now=TODAY)
    publishers = [CountingPublisher(), CountingPublisher()]
    workers = [
        RunWorker(
            database=database,
            outbox=None,  # type: ignore[arg-type] # nothing is parked here
            publisher=publisher,
            clock=SystemClock(),
            open_bucket=lambda: bucket.opened(endpoint_url=region.address, region="us-east-1"),
            buckets={"reports"},
            park_as="test",
        )
        for publisher in publishers
    ]

    async def work(worker: RunWorker) -> int:
        done = 0
        while await worker.run_due():
            done += 1
        return done

    shares = await asyncio.gather(*(work(worker) for worker in workers))
    assert sum(shares) == len(runs)
    assert all(shares), "both had some"
    sent = publishers[0].lines + publishers[1].lines
    assert sent == {(run_id, line): 1 for run_id in runs for line in range(1, 901)}
    async with database.begin() as transaction:
        states = await transaction.connection.execute(
            select(report_runs.c.state, func.count()).group_by(report_runs.c.state)
        )
        assert [tuple(row) for row in states] == [("done", len(runs))]
