"""Events, inbox and migrations on real Postgres; the event stream also in memory, by one suite."""

import asyncio
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from quill_runtime import inbox
from quill_runtime.database import Database
from quill_runtime.event_store import ConcurrentChange, MemoryEventStream, NewEvent, PostgresEventStream
from quill_runtime.migrations import migrate, runtime_history
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
