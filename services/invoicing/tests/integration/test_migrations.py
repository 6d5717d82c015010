"""The schema that migrations make is the one the code expects."""

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from quill_invoicing.store.tables import metadata
from quill_runtime.database import asyncpg_url
from quill_runtime.migrations import migrate, runtime_history, service_history
from quill_runtime.tables import runtime_metadata
from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import create_async_engine

pytestmark = pytest.mark.integration

VERSION_TABLES = {"alembic_version", "alembic_version_runtime"}


async def test_the_migrated_schema_equals_the_tables(database_url: str) -> None:
    await migrate(database_url, (runtime_history(), service_history("quill_invoicing")))
    await migrate(database_url, (runtime_history(), service_history("quill_invoicing")))  # again: nothing to do

    def differences(connection: Connection) -> list[object]:
        context = MigrationContext.configure(
            connection,
            opts={
                "compare_server_default": True,
                "include_name": lambda name, kind, _: (
                    not (kind == "table" and (name in VERSION_TABLES or name in runtime_metadata.tables))
                ),
            },
        )
        return compare_metadata(context, metadata)

    engine = create_async_engine(asyncpg_url(database_url))
    async with engine.connect() as connection:
        assert await connection.run_sync(differences) == []
    await engine.dispose()
