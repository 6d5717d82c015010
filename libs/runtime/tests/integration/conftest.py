"""A migrated database per test, copied from one that was migrated once."""

from collections.abc import AsyncIterator, Callable

import pytest
from quill_runtime.database import Database
from quill_runtime.migrations import migrate, runtime_history


@pytest.fixture(scope="session")
def migrated_template() -> dict[str, str]:
    return {}


@pytest.fixture
async def database(create_database: Callable[..., str], migrated_template: dict[str, str]) -> AsyncIterator[Database]:
    if "name" not in migrated_template:
        url = create_database()
        await migrate(url, (runtime_history(),))
        migrated_template["name"] = url.rsplit("/", 1)[1].split("?")[0]
    database = Database(create_database(template=migrated_template["name"]), pool_size=16)
    yield database
    await database.close()
