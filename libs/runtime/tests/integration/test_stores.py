"""Events, inbox, operations and migrations on real Postgres; the event stream also in memory, by one suite."""

import asyncio
import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from quill_runtime import inbox, operations
from quill_runtime.clock import SystemClock
from quill_runtime.database import Database
from quill_runtime.event_store import ConcurrentChange, MemoryEventStream, NewEvent, PostgresEventStream
from quill_runtime.migrations import migrate, runtime_history
from quill_runtime.operations import Operation, OperationRunner, PermanentFailure
from quill_runtime.tables import runtime_metadata
from sqlalchemy import text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.exc import DBAPIError

pytestmark = pytest.mark.integration

NOON = datetime(2026, 10, 1, 12, tzinfo=UTC)


def event(number: int) -> NewEvent:
    return NewEvent("counted", {"number": number}, "someone", NOON + timedelta(hours=number))


@pytest.fixture(params=["memory", "postgres"])
async def streams(request, database: Database):
    """Runs work against a stream store: ``await streams(work)``, one transaction per call on Postgres."""
    memory = MemoryEventStream()

    async def within(work):
        if request.param == "memory":
            return await work(memory)
        async with database.begin() as transaction:
            return await work(PostgresEventStream(transaction))

    return within


async def test_events_come_back_in_order_with_versions_from_one(streams):
    assert await streams(lambda s: s.append("a", expected_version=0, events=[event(1), event(2)])) == 2
    assert await streams(lambda s: s.append("a", expected_version=2, events=[event(3)])) == 3
    stored = await streams(lambda s: s.read("a"))
    assert [(e.version, e.data["number"], e.actor) for e in stored] == [(n, n, "someone") for n in (1, 2, 3)]
    assert await streams(lambda s: s.read("b")) == []


async def test_as_of_reads_only_what_had_happened(streams):
    await streams(lambda s: s.append("a", expected_version=0, events=[event(1), event(2), event(3)]))
    stored = await streams(lambda s: s.read("a", as_of=NOON + timedelta(hours=2)))
    assert [e.version for e in stored] == [1, 2]


async def test_a_writer_with_an_old_version_is_told_so(streams):
    await streams(lambda s: s.append("a", expected_version=0, events=[event(1)]))
    with pytest.raises(ConcurrentChange):
        await streams(lambda s: s.append("a", expected_version=0, events=[event(2)]))


async def test_of_twenty_writers_of_one_version_exactly_one_wins(database):
    async def write() -> bool:
        try:
            async with database.begin() as transaction:
                await PostgresEventStream(transaction).append("a", expected_version=0, events=[event(1)])
        except ConcurrentChange:
            return False
        return True

    assert sum(await asyncio.gather(*(write() for _ in range(20)))) == 1


@pytest.mark.parametrize("statement", ["update events set actor = 'me'", "delete from events"])
async def test_facts_cannot_be_changed_or_removed(database, statement):
    async with database.begin() as transaction:
        await PostgresEventStream(transaction).append("a", expected_version=0, events=[event(1)])
    with pytest.raises(DBAPIError, match="append-only"):
        async with database.begin() as transaction:
            await transaction.connection.execute(text(statement))


async def test_the_inbox_has_three_answers(database):
    async def take(content: bytes) -> inbox.Intake:
        async with database.begin() as transaction:
            return await inbox.take_in(transaction, scope="s", message_id="1", content=content, now=NOON)

    assert (await take(b"a")).verdict == "new"
    async with database.begin() as transaction:
        await inbox.keep_response(transaction, scope="s", message_id="1", response={"answer": 1})
    assert await take(b"a") == inbox.Intake("repeat", {"answer": 1})
    assert (await take(b"b")).verdict == "conflict"


class Provider:
    """An outside system that recognises a repeated key."""

    def __init__(self) -> None:
        self.effects: dict[str, int] = {}
        self.failures: list[Exception] = []
        self.crash_in_conclude = 0

    async def perform(self, operation: Operation) -> Mapping[str, Any]:
        if self.failures:
            raise self.failures.pop()
        self.effects.setdefault(operation.operation_id, len(self.effects) + 1)
        return {"object": self.effects[operation.operation_id]}

    async def conclude(self, *_arguments: object) -> None:
        if self.crash_in_conclude:
            self.crash_in_conclude -= 1
            raise ConnectionError("the process died before the result was saved")


def runner(database: Database, provider: Provider) -> OperationRunner:
    return OperationRunner(
        name="r", database=database, clock=SystemClock(), performers={"pay": (provider.perform, provider.conclude)}
    )


async def planned(database: Database, operation_id: str = "op-1") -> bool:
    async with database.begin() as transaction:
        return await operations.plan(
            transaction, operation_id=operation_id, kind="pay", subject="org", request={"amount": 1}, now=NOON
        )


async def found(database: Database) -> Operation:
    async with database.begin() as transaction:
        operation = await operations.find(transaction, "op-1")
    assert operation is not None
    return operation


async def test_an_operation_is_planned_once_and_done_once(database):
    provider = Provider()
    assert await planned(database)
    assert not await planned(database), "the same business operation again is a repeat"
    assert await runner(database, provider).run_due(NOON)
    assert not await runner(database, provider).run_due(NOON)
    assert (await found(database)).result == {"object": 1}


async def test_a_crash_after_the_effect_sends_the_same_key_again(database):
    provider = Provider()
    provider.crash_in_conclude = 1
    await planned(database)
    with pytest.raises(ConnectionError):
        await runner(database, provider).run_due(NOON)
    assert not await runner(database, provider).run_due(NOON), "left alone while the first try may still be under way"
    later = NOON + timedelta(seconds=operations.IN_FLIGHT_SECONDS)
    assert await runner(database, provider).run_due(later)
    assert (await found(database)).status == "done"
    assert provider.effects == {"op-1": 1}


async def test_a_fault_is_tried_again_later_and_a_refusal_is_not(database):
    provider = Provider()
    provider.failures = [TimeoutError("no answer")]
    await planned(database)
    await runner(database, provider).run_due(NOON)
    assert (await found(database)).status == "planned"
    provider.failures = [PermanentFailure("card refused")]
    await runner(database, provider).run_due(NOON + timedelta(seconds=2))
    operation = await found(database)
    assert (operation.status, operation.error) == ("failed", "card refused")


async def test_an_operation_that_was_given_up_can_be_tried_once_more_by_hand(database):
    provider = Provider()
    provider.failures = [PermanentFailure("card refused")]
    await planned(database)
    await runner(database, provider).run_due(NOON)
    async with database.begin() as transaction:
        assert [o.operation_id for o in await operations.standing(transaction, status="failed")] == ["op-1"]
        await operations.retry(transaction, "op-1", now=NOON)
    assert await runner(database, provider).run_due(NOON)
    assert (await found(database)).status == "done"
    async with database.begin() as transaction:
        with pytest.raises(operations.NotFailed, match="done"):
            await operations.retry(transaction, "op-1", now=NOON)
        with pytest.raises(operations.NoSuchOperation):
            await operations.retry(transaction, "op-2", now=NOON)


async def test_the_migrated_schema_is_the_one_the_code_declares(database):
    await migrate(database.url, (runtime_history(),))  # a second run changes nothing

    def differences(connection: Any) -> list[Any]:
        context = MigrationContext.configure(
            connection,
            opts={
                "compare_type": True,
                "include_object": lambda o, name, kind, *_: not str(name).startswith("alembic"),
            },
        )
        return list(compare_metadata(context, runtime_metadata))

    async with database.engine.connect() as connection:
        assert await connection.run_sync(differences) == []


@pytest.mark.parametrize(
    "written",
    [
        '{"a": [1, "ü", null, true, {"b": 1.5}]}',
        "100000000000000000000",
        "-9223372036854775809",
        '"\\ud83d\\ude00"',
        "1e400",
    ],
)
async def test_documents_read_back_as_pythons_own_decoder_reads_them(database: Database, written: str):
    """Long integers above all: a decoder that makes floats of them would change an amount."""
    statement = text("select cast(:written as jsonb) as document, cast(cast(:written as jsonb) as text) as shown")
    async with database.begin() as transaction:
        row = (await transaction.connection.execute(statement.columns(document=JSONB()), {"written": written})).one()
    assert row.document == json.loads(row.shown)
    assert type(row.document) is type(json.loads(row.shown))
