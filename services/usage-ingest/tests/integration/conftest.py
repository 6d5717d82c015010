"""A migrated database per test, copied from one that was migrated once."""

from collections.abc import AsyncIterator, Callable

import pytest
from quill_runtime.database import Database
from quill_runtime.migrations import migrate, runtime_history, service_history


@pytest.fixture(scope="session")
def migrated_template() -> dict[str, str]:
    return {}


@pytest.fixture
async def migrated_url(create_database: Callable[..., str], migrated_template: dict[str, str]) -> str:
    if "name" not in migrated_template:
        url = create_database()
        await migrate(url, (runtime_history(), service_history("quill_usage_ingest")))
        migrated_template["name"] = url.rsplit("/", 1)[1].split("?")[0]
    return create_database(template=migrated_template["name"])


@pytest.fixture
async def database(migrated_url: str) -> AsyncIterator[Database]:
    database = Database(migrated_url, pool_size=8)
    yield database
    await database.close()
