"""Effects outside (a payment provider, a mail server): written down first, then tried until known to be done (L15).

An operation's id is derived from the business operation, so planning it again is a repeat. The runner marks it ``sent``
before the call; after a crash it is due again and the same key goes out, which the other side recognises.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Literal

import structlog
from sqlalchemy import ColumnElement, Row, select, update
from sqlalchemy.dialects.postgresql import insert

from quill_runtime.background import BackgroundTask
from quill_runtime.clock import Clock
from quill_runtime.database import Database, Transaction
from quill_runtime.tables import operations

Status = Literal["planned", "sent", "done", "failed"]

IN_FLIGHT_SECONDS = 60
"""How long a sent operation is left alone: longer than any call's timeout."""
BACK_OFF_SECONDS = (1, 5, 30, 300, 3_600, 86_400)
ATTEMPTS_MAX = 12
IDLE_SECONDS = 0.3
PAGE_MAX = 500

log = structlog.get_logger(__name__)


class PermanentFailure(Exception):
    """The other side has refused for good; trying again cannot help. A person must look."""


class NoSuchOperation(LookupError):
    """No operation has this id."""


class NotFailed(Exception):
    """Only an operation that was given up can be tried again by hand."""


@dataclass(frozen=True, slots=True)
class Operation:
    """One effect outside; ``operation_id`` is also its idempotency key."""

    operation_id: str
    kind: str
    subject: str
    request: Mapping[str, Any]
    status: Status
    attempts: int
    result: Mapping[str, Any] | None = None
    error: str | None = None


Perform = Callable[[Operation], Awaitable[Mapping[str, Any]]]
"""Does the effect and returns what to remember of it."""
Conclude = Callable[[Transaction, Operation, Mapping[str, Any], datetime], Awaitable[None]]
"""Applies the result in the transaction that marks the operation done."""


async def plan(
    transaction: Transaction,
    *,
    operation_id: str,
    kind: str,
    subject: str,
    request: Mapping[str, Any],
    now: datetime,
    due_at: datetime | None = None,
) -> bool:
    """Write an operation down; False when it was already planned."""
    statement = (
        insert(operations)
        .values(
            operation_id=operation_id,
            kind=kind,
            subject=subject,
            request=dict(request),
            status="planned",
            due_at=due_at or now,
            planned_at=now,
        )
        .on_conflict_do_nothing()
        .returning(operations.c.operation_id)
    )
    return await transaction.connection.scalar(statement) is not None


async def find(transaction: Transaction, operation_id: str) -> Operation | None:
    """An operation as it stands."""
    row = (
        await transaction.connection.execute(select(operations).where(operations.c.operation_id == operation_id))
    ).one_or_none()
    return None if row is None else _from_row(row)


async def standing(
    transaction: Transaction, *, status: Status, subject: str | None = None, limit: int = 100
) -> list[Operation]:
    """Operations with a status, oldest first, at most 500."""
    conditions: list[ColumnElement[bool]] = [operations.c.status == status]
    if subject is not None:
        conditions.append(operations.c.subject == subject)
    rows = await transaction.connection.execute(
        select(operations).where(*conditions).order_by(operations.c.planned_at).limit(min(limit, PAGE_MAX))
    )
    return [_from_row(row) for row in rows]


async def retry(transaction: Transaction, operation_id: str, *, now: datetime) -> Operation:
    """One more try of an operation that was given up. Its attempts go on counting, so its key follows the same rule.

    Raises:
        NoSuchOperation: with the id.
        NotFailed: it is done, or still being tried.
    """
    operation = await find(transaction, operation_id)
    if operation is None:
        raise NoSuchOperation(f"no operation has the id {operation_id}")
    changed = await transaction.connection.execute(
        update(operations)
        .where(operations.c.operation_id == operation_id, operations.c.status == "failed")
        .values(status="planned", due_at=now, finished_at=None)
    )
    if changed.rowcount != 1:
        raise NotFailed(
            f"operation {operation_id} is {operation.status}; only one that was given up can be tried again"
        )
    return replace(operation, status="planned")


def _from_row(row: Row[Any]) -> Operation:
    return Operation(
        row.operation_id, row.kind, row.subject, row.request, row.status, row.attempts, row.result, row.error
    )


class OperationRunner(BackgroundTask):
    """Performs due operations one after another, in the order they were planned."""

    def __init__(
        self, *, name: str, database: Database, clock: Clock, performers: Mapping[str, tuple[Perform, Conclude]]
    ) -> None:
        super().__init__(name)
        self._database = database
        self._clock = clock
        self._performers = performers

    async def _run(self) -> None:
        while True:
            try:
                if not await self.run_due(self._clock.now()):
                    await asyncio.sleep(IDLE_SECONDS)
            except asyncio.CancelledError:
                raise
            except Exception as error:  # noqa: BLE001 - the runner outlives every fault; rows stay due
                log.warning("operations.runner_failed", runner=self.name, error=repr(error))
                await asyncio.sleep(BACK_OFF_SECONDS[0])

    async def run_due(self, now: datetime) -> bool:
        """Perform the next due operation; False when none is due."""
        operation = await self._claim(now)
        if operation is None:
            return False
        perform, conclude = self._performers[operation.kind]
        try:
            result = await perform(operation)
        except PermanentFailure as failure:
            await self._fail(operation, str(failure), now)
        except Exception as error:  # noqa: BLE001 - outcome unknown: the same key goes out again later
            if operation.attempts >= ATTEMPTS_MAX:
                await self._fail(operation, repr(error), now)
            else:
                await self._postpone(operation, repr(error), now)
        else:
            async with self._database.begin() as transaction:
                await conclude(transaction, operation, result, now)
                await transaction.connection.execute(
                    update(operations)
                    .where(operations.c.operation_id == operation.operation_id)
                    .values(status="done", result=dict(result), error=None, finished_at=now)
                )
        return True

    async def _claim(self, now: datetime) -> Operation | None:
        async with self._database.begin() as transaction:
            row = (
                await transaction.connection.execute(
                    select(operations)
                    .where(
                        operations.c.status.in_(["planned", "sent"]),
                        operations.c.due_at <= now,
                        operations.c.kind.in_(list(self._performers)),
                    )
                    .order_by(operations.c.due_at, operations.c.planned_at, operations.c.operation_id)
                    .limit(1)
                    .with_for_update(skip_locked=True)
                )
            ).one_or_none()
            if row is None:
                return None
            await transaction.connection.execute(
                update(operations)
                .where(operations.c.operation_id == row.operation_id)
                .values(status="sent", attempts=row.attempts + 1, due_at=now + timedelta(seconds=IN_FLIGHT_SECONDS))
            )
        return Operation(row.operation_id, row.kind, row.subject, row.request, "sent", row.attempts + 1)

    async def _postpone(self, operation: Operation, error: str, now: datetime) -> None:
        wait = BACK_OFF_SECONDS[min(operation.attempts - 1, len(BACK_OFF_SECONDS) - 1)]
        log.warning("operations.retry", operation=operation.operation_id, error=error, seconds=wait)
        async with self._database.begin() as transaction:
            await transaction.connection.execute(
                update(operations)
                .where(operations.c.operation_id == operation.operation_id)
                .values(status="planned", error=error, due_at=now + timedelta(seconds=wait))
            )

    async def _fail(self, operation: Operation, error: str, now: datetime) -> None:
        log.error("operations.failed", operation=operation.operation_id, kind=operation.kind, error=error)
        async with self._database.begin() as transaction:
            await transaction.connection.execute(
                update(operations)
                .where(operations.c.operation_id == operation.operation_id)
                .values(status="failed", error=error, finished_at=now)
            )
