"""The migrations make the tables that the code describes."""

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from quill_runtime.database import Database
from quill_runtime.migrations import migrate, runtime_history, service_history
from quill_runtime.tables import runtime_metadata
from quill_subscriptions.store.tables import metadata
from sqlalchemy import Connection, text

pytestmark = pytest.mark.integration


def differences(connection: Connection) -> list[object]:
    options = {
        "compare_server_default": True,
        "include_name": lambda name, kind, _parents: kind != "table" or not name.startswith("alembic_version"),
    }
    return list(compare_metadata(MigrationContext.configure(connection, opts=options), [metadata, runtime_metadata]))


async def test_the_migrated_schema_equals_the_metadata(database: Database) -> None:
    async with database.begin() as transaction:
        assert await transaction.connection.run_sync(differences) == []


async def test_migrating_again_changes_nothing(migrated_url: str, database: Database) -> None:
    await migrate(migrated_url, (runtime_history(), service_history("quill_subscriptions")))
    async with database.begin() as transaction:
        assert await transaction.connection.scalar(text("select count(*) from alembic_version")) == 1
