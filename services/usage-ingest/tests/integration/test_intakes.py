"""Every intake on real Kafka and Postgres, queues and buckets over HTTP: one day is one day, whichever way it comes."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest
from quill_contracts import topics
from quill_runtime.database import Database
from quill_usage_ingest.domain.usage_cells import is_complete
from quill_usage_ingest.domain.usage_report import DayKey
from quill_usage_ingest.store.counter_slots import CounterSlots
from quill_usage_ingest.store.postgres import PostgresUsage
from quill_usage_ingest.store.teams import PostgresTeams

pytestmark = pytest.mark.integration

TODAY = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
YESTERDAY = TODAY - timedelta(days=1)
NOON = YESTERDAY + timedelta(hours=12)
EVENTS, RECORDINGS, STORAGE = "event_count_in_period", "recording_count_in_period", "dwh_total_storage_in_s3_in_mib"

Cells = dict[str, tuple[int, bool]]


def daily(organization_id: str = "acme", events: int = 120, **changed: Any) -> dict[str, Any]:
    """PostHog's report of yesterday, of two teams."""
    return {
        "organization_id": organization_id,
        "date": YESTERDAY.date().isoformat(),
        EVENTS: events,
        RECORDINGS: 4,
        STORAGE: 1.5,
        "teams": {"1": {EVENTS: events - 20, RECORDINGS: 4}, "2": {EVENTS: 20}},
        **changed,
    }


def native(report: dict[str, Any], *, complete: bool = True, at: datetime = TODAY) -> bytes:
    """The same as Quill's own message."""
    return orjson.dumps(
        {
            "report_id": f"{report['organization_id']}:{report['date']}:{at.isoformat()}",
            "source": "eu",
            "organization_id": report["organization_id"],
            "window_start": YESTERDAY,
            "window_end": TODAY,
            "completeness": "complete" if complete else "partial",
            "as_of": at,
            "counters": {name: report[name] for name in (EVENTS, RECORDINGS)},
            "teams": report["teams"],
        }
    )


async def cells_of(database: Database, organization_id: str) -> Cells:
    """Yesterday's cells: quantity, and whether the day is complete."""
    async with database.begin() as transaction:
        windows = await PostgresUsage(transaction, CounterSlots()).windows_of_days(
            {DayKey(organization_id, YESTERDAY, "eu")}
        )
    return {
        counter: (cell.quantity, is_complete(cell.rank))
        for window in windows.values()
        for counter, cell in window.cells.items()
    }


async def teams_of(database: Database, organization_id: str) -> dict[str, dict[str, int]]:
    async with database.begin() as transaction:
        rows = await PostgresTeams(transaction, CounterSlots()).team_rows_of_days(
            {DayKey(organization_id, YESTERDAY, "eu")}
        )
    return {key.team_id: {name: cell.quantity for name, cell in row.cells.items()} for key, row in rows.items()}


async def through_kafka(running: Any, report: dict[str, Any]) -> None:
    await running.send(topics.USAGE_REPORTS, report["organization_id"], native(report))


async def through_http(running: Any, report: dict[str, Any]) -> None:
    answer = await running.post(report)
    assert answer.status_code == 200, answer.text


async def through_queue(running: Any, report: dict[str, Any]) -> None:
    await running.region.send_v1(report)


async def through_bucket(running: Any, report: dict[str, Any]) -> None:
    pointer = await running.region.write_run(
        f"final-{report['organization_id']}",
        day=YESTERDAY,
        started=TODAY + timedelta(minutes=30),
        chunks=[[daily("somebody-else", events=1 << 20)], [report]],
    )
    await running.region.point(pointer)


INTAKES: dict[str, tuple[str, Callable[[Any, dict[str, Any]], Awaitable[None]]]] = {
    "kafka": ("kafka", through_kafka),
    "http": ("http", through_http),
    "queue-v1": ("queue-v1", through_queue),
    "bucket-v2": ("bucket-v2", through_bucket),
}


async def test_the_same_day_through_each_intake_gives_the_same_cells(intake_settings, platform, database):
    """One organization per intake; all of them end with the same cells, teams, snapshot and explanation."""
    owners = {name: f"by-{name}" for name in INTAKES}
    async with platform(intake_settings) as running:
        await running.customers(*owners.values())
        for name, (_, send) in INTAKES.items():
            for _ in range(2):
                await send(running, daily(owners[name]))
        await running.until(lambda: all(running.events(owner) == (120, 0, 120) for owner in owners.values()))
        await running.drained()
        cells = {name: await cells_of(database, owner) for name, owner in owners.items()}
        assert cells == {name: {EVENTS: (120, True), RECORDINGS: (4, True)} for name in INTAKES}
        teams = {name: await teams_of(database, owner) for name, owner in owners.items()}
        assert teams == {name: {"1": {EVENTS: 100, RECORDINGS: 4}, "2": {EVENTS: 20}} for name in INTAKES}
        for name, owner in owners.items():
            explained = await running.get(f"/v1/usage/{owner}/explain", meter="events")
            assert explained["is_equal"], explained["sentence"]
            intakes = {each["intake"] for each in (await running.get(f"/v1/usage/{owner}/reports"))["results"]}
            assert intakes == {INTAKES[name][0]}


async def test_all_intakes_of_one_source_meet_in_one_cell_and_the_newest_complete_word_holds(
    intake_settings, platform, database
):
    """A region that moves from one way to the next never counts a day twice, however old words come after new ones."""
    async with platform(intake_settings) as running:
        await running.customers("acme")
        region = running.region
        for number, events in enumerate((30, 60)):
            started = NOON + timedelta(hours=number)
            chunks = [[daily(events=events)]]
            pointer = await region.write_run(
                f"partial-{number}", day=YESTERDAY, started=started, chunks=chunks, completeness="partial"
            )
            await region.point(pointer)
        await running.send(topics.USAGE_REPORTS, "acme", native(daily(events=50), complete=False, at=NOON))
        await running.until(lambda: running.events() == (0, 60, 60))
        await running.send(topics.USAGE_REPORTS, "acme", native(daily(events=110)))
        await running.until(lambda: running.events() == (110, 0, 110))
        final = await region.write_run(
            "final", day=YESTERDAY, started=TODAY + timedelta(seconds=1), chunks=[[daily(events=118)]]
        )
        await region.point(final)
        await running.until(lambda: running.events() == (118, 0, 118))
        await region.send_v1(daily(events=119))
        await running.until(lambda: running.events() == (119, 0, 119))
        assert (await running.post(daily(events=121))).status_code == 200
        # Old words again: both partial runs, the final one, and the native report.
        for run_id in ("partial-0", "partial-1"):
            await region.point({**final, "run_id": run_id})
        await region.point(final)
        await running.send(topics.USAGE_REPORTS, "acme", native(daily(events=50), complete=False, at=NOON))
        await running.drained()
        assert await cells_of(database, "acme") == {EVENTS: (121, True), RECORDINGS: (4, True)}
        await running.until(lambda: running.events() == (121, 0, 121))
        explained = await running.get("/v1/usage/acme/explain", meter="events")
        assert explained["is_equal"], explained["sentence"]
        kept = (await running.get("/v1/usage/acme/reports"))["results"]
        assert sorted(each["intake"] for each in kept) == ["bucket-v2"] * 3 + ["http", "kafka", "kafka", "queue-v1"]


async def test_runs_of_a_day_in_any_order_and_repeated_end_with_the_final_word(intake_settings, platform, database):
    """Half-hourly runs overtake each other; the pointer of each comes twice; a partial one comes after the final."""
    async with platform(intake_settings) as running:
        await running.customers("acme", "globex")
        region = running.region
        pointers = {}
        for number in range(6):
            chunks = [[daily(events=30 + number)], [daily("globex", events=60 + number)]]
            pointers[f"r{number}"] = await region.write_run(
                f"r{number}",
                day=YESTERDAY,
                started=YESTERDAY + timedelta(hours=3 * number + 1),
                chunks=chunks,
                completeness="partial",
            )
        pointers["final"] = await region.write_run(
            "final",
            day=YESTERDAY,
            started=TODAY + timedelta(minutes=30),
            chunks=[[daily(events=99)], [daily("globex", events=98)]],
        )
        for run_id in ("r4", "r0", "final", "r5", "r1", "r1", "final", "r3", "r2", "r5"):
            await region.point(pointers[run_id])
        await running.until(lambda: running.events() == (99, 0, 99) and running.events("globex") == (98, 0, 98))
        await running.drained()
        assert (await cells_of(database, "acme"))[EVENTS] == (99, True)
        assert (await cells_of(database, "globex"))[EVENTS] == (98, True)
        shown = (await running.get("/v1/report-runs"))["results"]
        assert {run["run_id"]: (run["state"], run["lines_sent"]) for run in shown} == dict.fromkeys(
            pointers, ("done", 2)
        )
        kept = (await running.get("/v1/usage/acme/reports"))["results"]
        assert len(kept) == 7, "each run's claim is kept once"


async def test_a_message_whose_visibility_ran_out_comes_again_and_counts_once(intake_settings, platform, database):
    """Somebody received it, was slow, and never deleted it: the queue hands it out again with the same instant."""
    region_settings = intake_settings
    async with platform(region_settings) as running:
        await running.customers("acme")
        await running.drained()
        sqs, url = running.region.sqs, running.region.v1
        # A slow reader beside ours: whatever it grabs it does not delete, and a second later it is visible again.
        await running.region.send_v1(daily(events=77))
        for _ in range(3):
            await sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10, VisibilityTimeout=1)
            await asyncio.sleep(0.2)
        await running.until(lambda: running.events() == (77, 0, 77))
        await running.drained()
        assert await cells_of(database, "acme") == {EVENTS: (77, True), RECORDINGS: (4, True)}
        assert len((await running.get("/v1/usage/acme/reports"))["results"]) == 1
