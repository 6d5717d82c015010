"""Usage that is entered while the rows of its month move out of the default partition is counted once (L1, L2)."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from quill_runtime.database import Database, Transaction
from quill_usage_ingest.domain.event_meter import Aggregation, EventMeter
from quill_usage_ingest.domain.meters import MeteredProduct
from quill_usage_ingest.domain.usage_report import UsageWindow
from quill_usage_ingest.ports import Arrival, ArrivedEvent, ArrivedReport
from quill_usage_ingest.store.counter_slots import CounterSlots
from quill_usage_ingest.store.meter_events import PostgresEvents
from quill_usage_ingest.store.partitions import Partitions
from quill_usage_ingest.store.postgres import PostgresUsage
from quill_usage_ingest.usecases.project_customers import project_customers
from quill_usage_ingest.usecases.project_products import project_products
from quill_usage_ingest.usecases.record_events import record_events
from quill_usage_ingest.usecases.record_reports import record_reports
from quill_usage_ingest.usecases.recount_events import project_event_meters
from quill_usage_ingest.wire.meter_events import from_wire_event
from sqlalchemy import text

pytestmark = [pytest.mark.integration, pytest.mark.timeout(60)]

MAY = datetime(2024, 5, 1, tzinfo=UTC)
"""A month that has no partition of its own yet."""
NOW = MAY + timedelta(days=3)


async def waiting(database: Database, number: int) -> None:
    """Until as many statements wait for a table."""
    async with asyncio.timeout(10):
        while True:
            async with database.begin() as transaction:
                found = await transaction.connection.scalar(
                    text(
                        "select count(*) from pg_locks where not granted and locktype = 'relation'"
                        " and database = (select oid from pg_database where datname = current_database())"
                    )
                )
            if found == number:
                return
            await asyncio.sleep(0.01)


async def entered_during_the_move(
    database: Database, default: str, enter: Callable[[Transaction, CounterSlots], Awaitable[object]]
) -> None:
    """Somebody reads the default partition; the move waits for that, and what is entered waits for the move."""

    async def entering() -> None:
        async with database.begin() as transaction:
            await enter(transaction, slots)

    slots = CounterSlots()
    async with database.begin() as reader:
        await reader.connection.execute(text(f"select 1 from {default} limit 1"))
        move = asyncio.create_task(Partitions(database).make(MAY))
        await waiting(database, 1)
        entry = asyncio.create_task(entering())
        await waiting(database, 2)
    await asyncio.gather(move, entry)


def in_may(item: ArrivedReport) -> ArrivedReport:
    """The same claim of the month's first day."""
    window = UsageWindow(MAY, MAY + timedelta(days=1))
    report = replace(item.report, window=window, as_of=window.end, report_id="may", content_hash=item.arrival.body)
    return replace(item, report=report)


async def total(database: Database) -> list[int]:
    """Everything complete that the stored periods hold, counter by counter."""
    async with database.begin() as transaction:
        rows = await transaction.connection.execute(text("select complete from period_usage"))
        return [number for row in rows for number in row.complete if number]


async def test_a_newer_report_that_waits_for_the_move_replaces_the_older(
    database: Database, arrived: Callable[..., ArrivedReport], organization
):
    """It was found by a restart on the first of a month: usage of the day before was added to itself."""
    first, second = in_may(arrived(events=800)), in_may(arrived(events=900))

    async def enter(transaction: Transaction, slots: CounterSlots, report: ArrivedReport = second) -> None:
        await record_reports([report], tx=PostgresUsage(transaction, slots), now=NOW, is_publication_due=False)

    async with database.begin() as transaction:
        await project_customers([organization()], tx=PostgresUsage(transaction, CounterSlots()))
        await enter(transaction, CounterSlots(), first)
    await entered_during_the_move(database, "usage_windows_default", enter)
    assert await total(database) == [900]


async def test_a_value_that_waits_for_the_move_is_no_new_one(database: Database, organization):
    """The same kind: a distinct value seen before the move is found after it."""

    def event(event_id: str, user: str) -> ArrivedEvent:
        body = {"specversion": "1.0", "id": event_id, "source": "gateway", "type": "call", "subject": "acme"}
        encoded = json.dumps({**body, "time": MAY.isoformat(), "data": {"user": user}}).encode()
        return ArrivedEvent(from_wire_event(encoded), Arrival("kafka", encoded, "usage.meter-events.v1", 0, 1))

    async def enter(transaction: Transaction, slots: CounterSlots, event_id: str = "2") -> None:
        usage, events = PostgresUsage(transaction, slots), PostgresEvents(transaction)
        await record_events([event(event_id, "ada")], tx=usage, events=events, now=NOW, is_publication_due=False)

    users = EventMeter("users", "call", Aggregation.UNIQUE_COUNT, value="user", group_by=())
    async with database.begin() as transaction:
        usage, events = PostgresUsage(transaction, CounterSlots()), PostgresEvents(transaction)
        await project_customers([organization()], tx=usage)
        await project_products([MeteredProduct("product_users", 1, "users", None, None, users)], tx=usage)
        await project_event_meters(tx=usage, events=events)
    async with database.begin() as transaction:
        await enter(transaction, CounterSlots(), "1")
    await entered_during_the_move(database, "event_values_default", enter)
    async with database.begin() as transaction:
        (held,) = (await PostgresEvents(transaction).event_periods_of("acme")).values()
        assert held.usage.complete == 1
