"""Effects outside (a payment provider, a mail server): written down first, then tried until known to be done (L15).

An operation's id is derived from the business operation, so planning it again is a repeat. The runner marks it ``sent``
before the call; after a crash it is due again and the same key goes out, which the other side recognises.

Each attempt has a lease and a fence. The runner renews the lease while it performs. Every update of an attempt names
its number, so an attempt that lost its lease to another runner writes nothing: its result is dropped.
"""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Literal

import structlog
from sqlalchemy import ColumnElement, Row, func, select, update
from sqlalchemy.dialects.postgresql import insert

from quill_runtime.background import BackgroundTask
from quill_runtime.clock import Clock
from quill_runtime.database import Database, Transaction
from quill_runtime.tables import operations
from quill_runtime.telemetry import FAILED_OPERATIONS

Status = Literal["planned", "sent", "done", "failed"]

LEASE_SECONDS = 60
"""How long a sent operation belongs to its attempt after the last renewal."""
RENEW_SECONDS = 20.0
"""How often a running attempt renews its lease: two renewals may fail before another runner takes over."""
BACK_OFF_SECONDS = (1, 5, 30, 300, 3_600, 86_400)
ATTEMPTS_MAX = 12
IDLE_SECONDS = 0.3
PAGE_MAX = 500
COUNT_FAILED_SECONDS = 15.0
ERROR_LENGTH_MAX = 2_000

log = structlog.get_logger(__name__)


class PermanentFailure(Exception):
    """The other side has refused for good; trying again cannot help. A person must look."""


class LeaseLost(Exception):
    """Another runner has taken the operation over; what this attempt found out is not written down."""


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


async def count_failed(transaction: Transaction) -> dict[str, int]:
    """How many operations were given up and wait for a person, by kind."""
    rows = await transaction.connection.execute(
        select(operations.c.kind, func.count().label("failed"))
        .where(operations.c.status == "failed")
        .group_by(operations.c.kind)
    )
    return {row.kind: row.failed for row in rows}


def _from_row(row: Row[Any]) -> Operation:
    return Operation(
        row.operation_id, row.kind, row.subject, row.request, row.status, row.attempts, row.result, row.error
    )


def _shown(error: BaseException) -> str:
    """An error as a text that Postgres can hold: bounded, valid UTF-8, without NUL."""
    text = str(error) if isinstance(error, PermanentFailure) else repr(error)
    return text.encode(errors="replace").decode().replace("\x00", "\ufffd")[:ERROR_LENGTH_MAX]


class OperationRunner(BackgroundTask):
    """Performs due operations one after another, in the order they were planned.

    Args:
        lease: How long an attempt keeps its operation after the last renewal.
        renew_seconds: How often a running attempt renews its lease, in real seconds.
    """

    def __init__(
        self,
        *,
        name: str,
        database: Database,
        clock: Clock,
        performers: Mapping[str, tuple[Perform, Conclude]],
        lease: timedelta = timedelta(seconds=LEASE_SECONDS),
        renew_seconds: float = RENEW_SECONDS,
    ) -> None:
        super().__init__(name)
        self._database = database
        self._clock = clock
        self._performers = performers
        self._lease = lease
        self._renew_seconds = renew_seconds

    async def _run(self) -> None:
        counted_at = -COUNT_FAILED_SECONDS
        while True:
            try:
                if time.monotonic() - counted_at >= COUNT_FAILED_SECONDS:
                    counted_at = time.monotonic()
                    await self._show_failed()
                if not await self.run_due(self._clock.now()):
                    await asyncio.sleep(IDLE_SECONDS)
            except asyncio.CancelledError:
                raise
            except Exception as error:  # noqa: BLE001 - the runner outlives every fault; rows stay due
                log.warning("operations.runner_failed", runner=self.name, error=repr(error))
                await asyncio.sleep(BACK_OFF_SECONDS[0])

    async def run_due(self, now: datetime) -> bool:
        """Perform the next due operation; False when none is due.

        Failures of the effect and of its conclusion count as attempts; after ``ATTEMPTS_MAX`` of them the operation is
        given up. An attempt that lost its lease writes nothing.
        """
        operation = await self._claim(now)
        if operation is None:
            return False
        try:
            result = await self._perform(operation)
            await self._conclude(operation, result, now)
        except LeaseLost:
            log.warning("operations.lease_lost", operation=operation.operation_id, attempt=operation.attempts)
        except PermanentFailure as failure:
            await self._give_up(operation, _shown(failure), now)
        except Exception as error:  # noqa: BLE001 - outcome unknown: the same key goes out again later
            if operation.attempts >= ATTEMPTS_MAX:
                await self._give_up(operation, _shown(error), now)
            else:
                await self._postpone(operation, _shown(error), now)
        return True

    async def _claim(self, now: datetime) -> Operation | None:
        """Take the next due operation for one attempt; those whose last attempt never reported are given up."""
        while True:
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
                is_used_up = row.status == "sent" and row.attempts >= ATTEMPTS_MAX
                if not is_used_up:
                    await transaction.connection.execute(
                        update(operations)
                        .where(operations.c.operation_id == row.operation_id)
                        .values(status="sent", attempts=row.attempts + 1, due_at=now + self._lease)
                    )
                    return replace(_from_row(row), status="sent", attempts=row.attempts + 1)
            await self._give_up(_from_row(row), f"attempt {row.attempts} ended without a word", now)

    async def _perform(self, operation: Operation) -> Mapping[str, Any]:
        """The effect, under a lease that is renewed until it ends.

        Raises:
            LeaseLost: another runner has the operation; the effect is cancelled here, its outcome is for the other.
        """
        perform, _ = self._performers[operation.kind]
        working = asyncio.ensure_future(perform(operation))
        renewing = asyncio.create_task(self._renew_until_lost(operation))
        try:
            await asyncio.wait({working, renewing}, return_when=asyncio.FIRST_COMPLETED)
            if not working.done():
                raise LeaseLost(operation.operation_id)
            if working.cancelled():
                raise TimeoutError("the effect was cancelled from within")
            return working.result()
        finally:
            for task in (working, renewing):
                task.cancel()
            await asyncio.gather(working, renewing, return_exceptions=True)

    async def _renew_until_lost(self, operation: Operation) -> None:
        while True:
            await asyncio.sleep(self._renew_seconds)
            try:
                async with self._database.begin() as transaction:
                    await self._update_own(transaction, operation, due_at=self._clock.now() + self._lease)
            except LeaseLost:
                return
            except Exception as error:  # noqa: BLE001 - the fence decides at the end; the next renewal may succeed
                log.warning("operations.not_renewed", operation=operation.operation_id, error=repr(error))

    async def _conclude(self, operation: Operation, result: Mapping[str, Any], now: datetime) -> None:
        """Apply the result and mark the operation done, in one transaction that holds its row from the beginning."""
        _, conclude = self._performers[operation.kind]
        async with self._database.begin() as transaction:
            await self._update_own(
                transaction, operation, status="done", result=dict(result), error=None, finished_at=now
            )
            await conclude(transaction, operation, result, now)

    async def _postpone(self, operation: Operation, error: str, now: datetime) -> None:
        wait = BACK_OFF_SECONDS[min(operation.attempts - 1, len(BACK_OFF_SECONDS) - 1)]
        log.warning("operations.retry", operation=operation.operation_id, error=error, seconds=wait)
        await self._report(operation, status="planned", error=error, due_at=now + timedelta(seconds=wait))

    async def _give_up(self, operation: Operation, error: str, now: datetime) -> None:
        log.error("operations.failed", operation=operation.operation_id, kind=operation.kind, error=error)
        await self._report(operation, status="failed", error=error, finished_at=now)

    async def _report(self, operation: Operation, **values: Any) -> None:
        """Write how an attempt ended, unless another runner has the operation."""
        with contextlib.suppress(LeaseLost):
            async with self._database.begin() as transaction:
                await self._update_own(transaction, operation, **values)

    async def _update_own(self, transaction: Transaction, operation: Operation, **values: Any) -> None:
        """Change the row if it still belongs to this attempt.

        Raises:
            LeaseLost: it does not.
        """
        changed = await transaction.connection.execute(
            update(operations)
            .where(
                operations.c.operation_id == operation.operation_id,
                operations.c.status == "sent",
                operations.c.attempts == operation.attempts,
            )
            .values(**values)
        )
        if changed.rowcount != 1:
            raise LeaseLost(operation.operation_id)

    async def _show_failed(self) -> None:
        async with self._database.begin() as transaction:
            failed = await count_failed(transaction)
        for kind in self._performers:
            FAILED_OPERATIONS.labels(kind).set(failed.get(kind, 0))
