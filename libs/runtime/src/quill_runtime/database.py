"""Postgres: one engine per process, one transaction per use case, failures told apart."""

import asyncio
import json
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import msgspec
from sqlalchemy import Engine, event, text
from sqlalchemy.exc import DBAPIError, InterfaceError, InvalidatePoolError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry

T = TypeVar("T")

STATEMENT_TIMEOUT_MS = 15_000
LOCK_TIMEOUT_MS = 10_000
IDLE_IN_TRANSACTION_TIMEOUT_MS = 30_000
CONNECT_TIMEOUT_SECONDS = 5.0
POOL_TIMEOUT_SECONDS = 5.0
CONFLICT_RETRIES = 8
IDLE_PING_SECONDS = 1.0
_RETURNED_AT = "quill_returned_at"

_UNSTORABLE_TEXT = frozenset({"22021", "22P05"})
_RETRYABLE_SQLSTATES = frozenset({"40001", "40P01", "55P03"})  # serialization failure, deadlock, lock timeout
_UNAVAILABLE_CLASSES = ("08", "53", "57", "58")  # connection, resources, operator intervention, system error


class Conflict(Exception):
    """Another writer was faster; load again, decide again. `Database.run` does that by itself."""


class Transaction:
    """One open transaction. Rows written through it appear together or not at all."""

    def __init__(self, connection: AsyncConnection) -> None:
        self.connection = connection
        self._after_commit: list[Callable[[], None]] = []

    def after_commit(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` once the commit has succeeded; never on rollback. For waking tasks, not for effects."""
        self._after_commit.append(callback)

    def committed(self) -> None:
        """Run the callbacks; called by `Database.begin` alone."""
        for callback in self._after_commit:
            callback()


class Database:
    """A bounded pool of connections to one database.

    ``statement_timeout_ms`` is for one-off commands that move much at once; a service keeps the short one.
    """

    def __init__(
        self,
        url: str,
        *,
        pool_size: int = 8,
        application_name: str = "quill",
        statement_timeout_ms: int = STATEMENT_TIMEOUT_MS,
    ) -> None:
        self.url = url
        self._engine: AsyncEngine = create_async_engine(
            asyncpg_url(url),
            pool_size=pool_size,
            max_overflow=0,
            pool_timeout=POOL_TIMEOUT_SECONDS,
            pool_use_lifo=True,
            isolation_level="READ COMMITTED",
            json_deserializer=_document,
            hide_parameters=True,  # names, addresses and tokens do not belong in logs
            connect_args={
                "timeout": CONNECT_TIMEOUT_SECONDS,
                "command_timeout": statement_timeout_ms / 1000 + 5,
                "server_settings": {
                    "application_name": application_name,
                    "statement_timeout": str(statement_timeout_ms),
                    "lock_timeout": str(LOCK_TIMEOUT_MS),
                    "idle_in_transaction_session_timeout": str(IDLE_IN_TRANSACTION_TIMEOUT_MS),
                    "timezone": "UTC",
                },
            },
        )
        _ping_what_lay_idle(self._engine.sync_engine)

    @property
    def engine(self) -> AsyncEngine:
        return self._engine

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[Transaction]:
        """Open a transaction; commit at the end of the block, roll back on any exception.

        Raises:
            sqlalchemy.exc.DBAPIError: see `is_unavailable` and `is_conflict` for what it means.
        """
        async with self._engine.connect() as connection:
            transaction = Transaction(connection)
            async with connection.begin():
                yield transaction
        transaction.committed()

    async def run(self, work: Callable[[Transaction], Awaitable[T]]) -> T:
        """Run ``work`` in a transaction, again on serialization failures and deadlocks, at most eight times."""
        for attempt in range(CONFLICT_RETRIES):
            try:
                async with self.begin() as transaction:
                    return await work(transaction)
            except (DBAPIError, Conflict) as error:
                if not is_conflict(error) or attempt == CONFLICT_RETRIES - 1:
                    raise
                await asyncio.sleep(random.uniform(0, 0.02 * 2**attempt))  # noqa: S311 - jitter, not secrecy
        raise AssertionError("unreachable: the loop returns or raises")

    async def ping(self) -> None:
        """Answer when the database answers.

        Raises:
            sqlalchemy.exc.DBAPIError | TimeoutError: when it does not within five seconds.
        """
        async with asyncio.timeout(CONNECT_TIMEOUT_SECONDS), self._engine.connect() as connection:
            await connection.execute(text("select 1"))

    async def close(self) -> None:
        await self._engine.dispose()


def asyncpg_url(url: str) -> str:
    """The same address for SQLAlchemy's asyncpg dialect."""
    scheme, rest = url.split("://", 1)
    return url if "+" in scheme else f"postgresql+asyncpg://{rest}"


def sqlstate(error: BaseException) -> str | None:
    """The five-character code Postgres gave, wherever the drivers put it."""
    original: object = error
    for _ in range(4):
        code = getattr(original, "sqlstate", None)
        if isinstance(code, str):
            return code
        original = getattr(original, "orig", None) or getattr(original, "__cause__", None)
        if original is None:
            return None
    return None


def is_conflict(error: BaseException) -> bool:
    """Another transaction was in the way: the same work may be tried again at once."""
    return isinstance(error, Conflict) or (isinstance(error, DBAPIError) and sqlstate(error) in _RETRYABLE_SQLSTATES)


def is_unstorable_text(error: BaseException) -> bool:
    """A text holds a NUL character, which no Postgres text or JSON can keep: the caller's fault, not the database's."""
    return sqlstate(error) in _UNSTORABLE_TEXT


def _ping_what_lay_idle(engine: Engine) -> None:
    """Ask a connection whether it is still there when it was not used for a while, and not before each use.

    Asking takes three round trips. What breaks in between fails one transaction as
    unavailable, which consumers repeat, and its pool is emptied with it.
    """

    def returned(_connection: Any, record: ConnectionPoolEntry) -> None:
        record.info[_RETURNED_AT] = time.monotonic()

    def taken(connection: Any, record: ConnectionPoolEntry, _proxy: Any) -> None:
        if time.monotonic() - record.info.get(_RETURNED_AT, time.monotonic()) < IDLE_PING_SECONDS:
            return
        try:
            engine.dialect.do_ping(connection)
        except Exception as error:
            raise InvalidatePoolError("the connection was closed while it lay idle") from error

    event.listen(engine, "checkin", returned)
    event.listen(engine, "checkout", taken)


def is_unavailable(error: BaseException) -> bool:
    """The database, broker or network is away: wait and try again; the data is not at fault."""
    if isinstance(error, ConnectionError | TimeoutError | OSError | PoolTimeoutError | InterfaceError):
        return True
    if isinstance(error, DBAPIError):
        code = sqlstate(error)
        if code is not None:
            return code.startswith(_UNAVAILABLE_CLASSES) or code in _RETRYABLE_SQLSTATES
        return error.connection_invalidated or isinstance(error, OperationalError)
    return False


def _document(stored: str | bytes) -> Any:
    """A JSON document of a row. Long integers stay exact, which they do not with every fast decoder (L11)."""
    try:
        return msgspec.json.decode(stored)
    except msgspec.ValidationError:  # a number that is valid JSON and beyond every float
        return json.loads(stored)
