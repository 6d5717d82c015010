"""Bringing a database to the schema of the code: the runtime's tables first, then the service's own.

Each has its own Alembic history and version table. An advisory lock lets several replicas start at once; lock and
statement timeouts keep a migration from holding up a running system.
"""

from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.operations import Operations
from alembic.runtime.environment import EnvironmentContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from quill_runtime.database import asyncpg_url

MIGRATION_LOCK = 0x5155_494C_4C02
LOCK_TIMEOUT = "5s"
STATEMENT_TIMEOUT = "60s"

__all__ = ["History", "Operations", "command", "migrate", "runtime_history"]


@dataclass(frozen=True, slots=True)
class History:
    """One line of migrations: a folder with ``versions/`` and the table that remembers how far it has come."""

    folder: Path
    version_table: str


def runtime_history() -> History:
    return History(Path(str(files("quill_runtime.migrations"))), "alembic_version_runtime")


def service_history(package: str) -> History:
    """The history in ``<package>/migrations``."""
    return History(Path(str(files(f"{package}.migrations"))), "alembic_version")


async def migrate(database_url: str, histories: tuple[History, ...]) -> None:
    """Apply what is missing, each history in one transaction.

    Raises:
        sqlalchemy.exc.DBAPIError: a migration failed and nothing of its history was changed.
    """
    engine = create_async_engine(asyncpg_url(database_url), poolclass=NullPool, hide_parameters=True)
    try:
        for history in histories:
            async with engine.begin() as connection:
                await connection.execute(text(f"set local lock_timeout = '{LOCK_TIMEOUT}'"))
                await connection.execute(text(f"set local statement_timeout = '{STATEMENT_TIMEOUT}'"))
                await connection.execute(text("select pg_advisory_xact_lock(:id)").bindparams(id=MIGRATION_LOCK))
                await connection.run_sync(_upgrade, history)
    finally:
        await engine.dispose()


def _upgrade(connection: Connection, history: History) -> None:
    config = Config()
    config.set_main_option("script_location", str(history.folder))
    config.set_main_option("path_separator", "os")
    script = ScriptDirectory.from_config(config)

    def steps(revision: str | tuple[str, ...], _context: MigrationContext) -> object:
        return script._upgrade_revs("head", revision)  # type: ignore[arg-type]  # noqa: SLF001 - as alembic.command does

    with EnvironmentContext(config, script, fn=steps) as environment:
        environment.configure(
            connection=connection,
            version_table=history.version_table,
            transactional_ddl=True,
            transaction_per_migration=False,
        )
        environment.run_migrations()
