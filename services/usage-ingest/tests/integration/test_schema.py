"""The migrations make the tables that the code describes."""

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from quill_runtime.database import Database
from quill_runtime.migrations import migrate, runtime_history, service_history
from quill_runtime.tables import runtime_metadata
from quill_usage_ingest.store.correction_tables import corrections
from quill_usage_ingest.store.run_tables import report_runs
from quill_usage_ingest.store.source_tables import usage_sources
from quill_usage_ingest.store.tables import usage_metadata
from quill_usage_ingest.store.team_tables import team_windows
from sqlalchemy import Connection, text

pytestmark = pytest.mark.integration


def differences(connection: Connection) -> list[object]:
    partitioned = [
        f"{table.name}_"
        for table in usage_metadata.tables.values()
        if table.dialect_options["postgresql"]["partition_by"]
    ]
    options = {
        "compare_server_default": True,
        "include_name": lambda name, kind, _parents: (
            kind != "table" or not name.startswith(("alembic_version", *partitioned))
        ),
    }
    return compare_metadata(MigrationContext.configure(connection, opts=options), [usage_metadata, runtime_metadata])


async def test_the_migrated_schema_equals_the_metadata(database: Database):
    async with database.begin() as transaction:
        assert await transaction.connection.run_sync(differences) == []


def test_the_metadata_holds_the_tables_of_every_module():
    assert team_windows.metadata is usage_metadata
    assert corrections.metadata is usage_metadata
    assert report_runs.metadata is usage_metadata
    assert usage_sources.metadata is usage_metadata


async def test_migrating_again_changes_nothing(migrated_url: str, database: Database):
    await migrate(migrated_url, (runtime_history(), service_history("quill_usage_ingest")))
    async with database.begin() as transaction:
        assert await transaction.connection.scalar(text("select count(*) from alembic_version")) == 1
