"""Connections that break: noticed before use where they lay idle, told as unavailable where they did not."""

import pytest
from quill_runtime import database as database_module
from quill_runtime.database import Database, Transaction, is_unavailable
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

pytestmark = pytest.mark.integration


async def backend(transaction: Transaction) -> int:
    return await transaction.connection.scalar(text("select pg_backend_pid()"))


@pytest.fixture
async def one(database: Database):
    """The same database with a single connection."""
    single = Database(database.url, pool_size=1)
    yield single
    await single.close()


async def pid_of(one: Database) -> int:
    async with one.begin() as transaction:
        return await backend(transaction)


async def end(database: Database, pid: int) -> None:
    async with database.begin() as transaction:
        await transaction.connection.execute(text("select pg_terminate_backend(:pid, 5000)"), {"pid": pid})


async def test_a_connection_that_was_closed_while_it_lay_idle_is_replaced_before_use(database, one, monkeypatch):
    pid = await pid_of(one)
    await end(database, pid)
    monkeypatch.setattr(database_module, "IDLE_PING_SECONDS", 0.0)
    assert await pid_of(one) != pid


async def test_one_that_was_closed_a_moment_ago_fails_once_as_unavailable(database, one, monkeypatch):
    monkeypatch.setattr(database_module, "IDLE_PING_SECONDS", 60.0)
    pid = await pid_of(one)
    await end(database, pid)
    with pytest.raises(DBAPIError) as failed:
        await pid_of(one)
    assert is_unavailable(failed.value)
    assert await pid_of(one) != pid


async def test_a_connection_in_use_is_not_asked_before_each_transaction(one, monkeypatch):
    asked: list[int] = []
    dialect = one.engine.sync_engine.dialect
    ping = dialect.do_ping
    monkeypatch.setattr(dialect, "do_ping", lambda connection: asked.append(1) or ping(connection))
    monkeypatch.setattr(database_module, "IDLE_PING_SECONDS", 60.0)
    for _ in range(3):
        await pid_of(one)
    assert asked == []
    monkeypatch.setattr(database_module, "IDLE_PING_SECONDS", 0.0)
    await pid_of(one)
    assert asked == [1]


async def test_a_failed_statement_does_not_tell_its_parameters(one):
    """K13: names, addresses and tokens of a failed statement stood in the log."""
    with pytest.raises(DBAPIError) as failed:
        async with one.begin() as transaction:
            await transaction.connection.execute(text("select cast(:name as text) from nowhere"), {"name": "a secret"})
    assert "secret" not in f"{failed.value!r} {failed.value}"
