"""A migrated database per test, copied from one that was migrated once."""

from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from quill_contracts import topics
from quill_contracts.limits import ThresholdReached
from quill_quota_limiter.store.memory import MemoryLimits
from quill_quota_limiter.store.postgres import PostgresLimits
from quill_quota_limiter.store.redis import RedisBoard
from quill_runtime.database import Database
from quill_runtime.migrations import migrate, runtime_history, service_history
from quill_runtime.outbox import Outbox
from quill_runtime.tables import outbox as outbox_table
from sqlalchemy import select


@pytest.fixture(scope="session")
def migrated_template() -> dict[str, str]:
    return {}


@pytest.fixture
async def migrated_url(create_database: Callable[..., str], migrated_template: dict[str, str]) -> str:
    if "name" not in migrated_template:
        url = create_database()
        await migrate(url, (runtime_history(), service_history("quill_quota_limiter")))
        migrated_template["name"] = url.rsplit("/", 1)[1].split("?")[0]
    return create_database(template=migrated_template["name"])


@pytest.fixture
async def database(migrated_url: str) -> AsyncIterator[Database]:
    database = Database(migrated_url, pool_size=8)
    yield database
    await database.close()


@pytest.fixture
async def redis_board(redis_url: str) -> AsyncIterator[RedisBoard]:
    board = RedisBoard(redis_url)
    yield board
    await board.stop()


@pytest.fixture(params=["memory", "postgres"])
def store(request: pytest.FixtureRequest) -> MemoryLimits | PostgresLimits:
    """Both stores, one after the other; a module that needs another one has its own."""
    if request.param == "memory":
        return MemoryLimits()
    return PostgresLimits(request.getfixturevalue("database"), Outbox())


@pytest.fixture
def threshold_messages(
    store: MemoryLimits | PostgresLimits, request: pytest.FixtureRequest
) -> Callable[[], Awaitable[list[ThresholdReached]]]:
    """What was told so far, oldest first; no fact twice."""

    async def read() -> list[ThresholdReached]:
        if isinstance(store, MemoryLimits):
            values = [m.value for m in store.published if m.topic == topics.LIMIT_THRESHOLDS.name]
        else:
            async with request.getfixturevalue("database").begin() as transaction:
                rows = await transaction.connection.execute(
                    select(outbox_table.c.value)
                    .where(outbox_table.c.topic == topics.LIMIT_THRESHOLDS.name)
                    .order_by(outbox_table.c.id)
                )
                values = [row.value for row in rows]
        messages = [ThresholdReached.from_bytes(value) for value in values]
        assert len({message.reached_id for message in messages}) == len(messages)
        return messages

    return read
