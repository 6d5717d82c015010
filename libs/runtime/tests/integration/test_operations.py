"""Operations on real Postgres: done once whatever crashes (L15), and fenced against a second runner."""

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from prometheus_client import REGISTRY
from quill_runtime import operations
from quill_runtime.clock import SystemClock
from quill_runtime.database import Database
from quill_runtime.operations import LEASE_SECONDS, Operation, OperationRunner, PermanentFailure
from sqlalchemy import text

pytestmark = pytest.mark.integration

NOON = datetime(2026, 10, 1, 12, tzinfo=UTC)
LEASE = timedelta(seconds=LEASE_SECONDS)


class ProcessDied(BaseException):
    """Nothing handles it: the row stays as the attempt left it."""


class Provider:
    """An outside system that recognises a repeated key."""

    def __init__(self) -> None:
        self.effects: dict[str, int] = {}
        self.failures: list[Exception] = []
        self.crash_in_conclude = 0

    async def perform(self, operation: Operation) -> Mapping[str, Any]:
        if self.failures:
            raise self.failures.pop()
        self.effects.setdefault(operation.operation_id, len(self.effects) + 1)
        return {"object": self.effects[operation.operation_id]}

    async def conclude(self, *_arguments: object) -> None:
        if self.crash_in_conclude:
            self.crash_in_conclude -= 1
            raise ProcessDied


def runner(database: Database, provider: Provider) -> OperationRunner:
    return OperationRunner(
        name="r", database=database, clock=SystemClock(), performers={"pay": (provider.perform, provider.conclude)}
    )


async def planned(database: Database, operation_id: str = "op-1") -> bool:
    async with database.begin() as transaction:
        return await operations.plan(
            transaction, operation_id=operation_id, kind="pay", subject="org", request={"amount": 1}, now=NOON
        )


async def found(database: Database) -> Operation:
    async with database.begin() as transaction:
        operation = await operations.find(transaction, "op-1")
    assert operation is not None
    return operation


async def test_an_operation_is_planned_once_and_done_once(database):
    provider = Provider()
    assert await planned(database)
    assert not await planned(database), "the same business operation again is a repeat"
    assert await runner(database, provider).run_due(NOON)
    assert not await runner(database, provider).run_due(NOON)
    assert (await found(database)).result == {"object": 1}


async def test_a_crash_after_the_effect_sends_the_same_key_again(database):
    provider = Provider()
    provider.crash_in_conclude = 1
    await planned(database)
    with pytest.raises(ProcessDied):
        await runner(database, provider).run_due(NOON)
    assert not await runner(database, provider).run_due(NOON), "left alone while the first try may still be under way"
    assert await runner(database, provider).run_due(NOON + LEASE)
    assert (await found(database)).status == "done"
    assert provider.effects == {"op-1": 1}


async def test_a_fault_is_tried_again_later_and_a_refusal_is_not(database):
    provider = Provider()
    provider.failures = [TimeoutError("no answer")]
    await planned(database)
    await runner(database, provider).run_due(NOON)
    assert (await found(database)).status == "planned"
    provider.failures = [PermanentFailure("card refused")]
    await runner(database, provider).run_due(NOON + timedelta(seconds=2))
    operation = await found(database)
    assert (operation.status, operation.error) == ("failed", "card refused")


async def test_an_operation_that_was_given_up_can_be_tried_once_more_by_hand(database):
    provider = Provider()
    provider.failures = [PermanentFailure("card refused")]
    await planned(database)
    await runner(database, provider).run_due(NOON)
    async with database.begin() as transaction:
        assert [o.operation_id for o in await operations.standing(transaction, status="failed")] == ["op-1"]
        await operations.retry(transaction, "op-1", now=NOON)
    assert await runner(database, provider).run_due(NOON)
    assert (await found(database)).status == "done"
    async with database.begin() as transaction:
        with pytest.raises(operations.NotFailed, match="done"):
            await operations.retry(transaction, "op-1", now=NOON)
        with pytest.raises(operations.NoSuchOperation):
            await operations.retry(transaction, "op-2", now=NOON)


class Gate:
    """An outside system whose first answer comes when the test lets it, and our side that counts conclusions."""

    def __init__(self) -> None:
        self.is_called = asyncio.Event()
        self.may_answer = asyncio.Event()
        self.outcome: Exception | None = None
        self.concluded: list[int] = []

    async def perform(self, operation: Operation) -> Mapping[str, Any]:
        if operation.attempts == 1:
            self.is_called.set()
            await self.may_answer.wait()
            if self.outcome is not None:
                raise self.outcome
        return {"attempt": operation.attempts}

    async def conclude(self, _tx: object, operation: Operation, _result: object, _now: object) -> None:
        self.concluded.append(operation.attempts)


def gate_runner(database: Database, gate: Gate, **changed: Any) -> OperationRunner:
    performers = {"pay": (gate.perform, gate.conclude)}
    return OperationRunner(name="g", database=database, clock=SystemClock(), performers=performers, **changed)


@pytest.mark.parametrize("outcome", [None, TimeoutError("slow"), PermanentFailure("refused")], ids=repr)
async def test_an_attempt_that_lost_its_lease_changes_nothing(database, outcome):
    """A slow attempt turned ``done`` back into ``planned`` or ``failed``, and a third one concluded again (M7)."""
    gate = Gate()
    gate.outcome = outcome
    await planned(database)
    slow = asyncio.create_task(gate_runner(database, gate).run_due(NOON))
    await gate.is_called.wait()
    assert await gate_runner(database, gate).run_due(NOON + LEASE)
    gate.may_answer.set()
    await slow
    operation = await found(database)
    assert (operation.status, operation.result, operation.error) == ("done", {"attempt": 2}, None)
    assert not await gate_runner(database, gate).run_due(NOON + timedelta(days=30))
    assert gate.concluded == [2]


async def test_the_lease_is_renewed_while_the_effect_takes_long(database):
    """The clock stands at noon plus what has passed; a short lease is renewed many times."""
    gate, started = Gate(), datetime.now(UTC)

    class Clock:
        def now(self) -> datetime:
            return NOON + (datetime.now(UTC) - started)

    lease = timedelta(seconds=0.5)
    await planned(database)
    patient = OperationRunner(
        name="p",
        database=database,
        clock=Clock(),
        performers={"pay": (gate.perform, gate.conclude)},
        lease=lease,
        renew_seconds=0.05,
    )
    slow = asyncio.create_task(patient.run_due(Clock().now()))
    await gate.is_called.wait()
    await asyncio.sleep(1.2)
    assert not await gate_runner(database, gate).run_due(Clock().now()), "the lease was renewed"
    gate.may_answer.set()
    assert await slow
    assert gate.concluded == [1]


async def test_an_effect_is_stopped_when_its_lease_is_lost(database):
    """Two attempts must not go on side by side: the first is cancelled at its next renewal."""
    gate = Gate()
    await planned(database)
    slow = asyncio.create_task(gate_runner(database, gate, renew_seconds=0.05).run_due(NOON))
    await gate.is_called.wait()
    assert await gate_runner(database, gate).run_due(NOON + timedelta(days=300))
    async with asyncio.timeout(5):
        assert await slow
    assert gate.concluded == [2]


async def test_what_conclude_wrote_is_undone_when_the_lease_is_lost(database):
    """The fence is taken before the conclusion, in its transaction."""
    gate, written = Gate(), text("insert into inbox values ('s', '1', 'x', null, now())")

    async def conclude(transaction: Any, *_: object) -> None:
        await transaction.connection.execute(written)

    await planned(database)
    performers: Any = {"pay": (gate.perform, conclude)}
    first = OperationRunner(name="1", database=database, clock=SystemClock(), performers=performers)
    slow = asyncio.create_task(first.run_due(NOON))
    await gate.is_called.wait()
    async with database.begin() as transaction:
        await transaction.connection.execute(text("update operations set attempts = 2"))
    gate.may_answer.set()
    await slow
    async with database.begin() as transaction:
        assert await transaction.connection.scalar(text("select count(*) from inbox")) == 0


@pytest.mark.parametrize("error", [KeyError("lines"), ValueError("a\x00b\udc80"), PermanentFailure("gone")], ids=repr)
async def test_failures_of_conclude_count_and_end(database, error):
    """They passed by the greatest number of attempts, and were repeated once a minute without end."""
    performed: list[int] = []

    async def perform(operation: Operation) -> Mapping[str, Any]:
        performed.append(operation.attempts)
        return {}

    async def conclude(*_: object) -> None:
        raise error

    performers: Any = {"pay": (perform, conclude)}
    failing = OperationRunner(name="f", database=database, clock=SystemClock(), performers=performers)
    await planned(database)
    at = NOON
    while await failing.run_due(at):
        at += timedelta(days=2)
    operation = await found(database)
    assert operation.status == "failed"
    assert operation.error is not None
    expected = 1 if isinstance(error, PermanentFailure) else operations.ATTEMPTS_MAX
    assert performed == list(range(1, expected + 1))
    async with database.begin() as transaction:
        assert await operations.count_failed(transaction) == {"pay": 1}


async def test_an_operation_that_kills_its_process_each_time_is_given_up(database):
    async def perform(_operation: Operation) -> Mapping[str, Any]:
        raise ProcessDied

    performers: Any = {"pay": (perform, perform)}
    dying = OperationRunner(name="d", database=database, clock=SystemClock(), performers=performers)
    await planned(database)
    at = NOON
    for _ in range(operations.ATTEMPTS_MAX):
        with pytest.raises(ProcessDied):
            await dying.run_due(at)
        at += LEASE
    assert not await dying.run_due(at)
    operation = await found(database)
    assert (operation.status, operation.attempts) == ("failed", operations.ATTEMPTS_MAX)
    assert "without a word" in (operation.error or "")
    async with database.begin() as transaction:
        await operations.retry(transaction, "op-1", now=at)
    assert await runner(database, Provider()).run_due(at)
    assert (await found(database)).status == "done"


async def test_operations_given_up_are_counted_by_kind(database):
    provider = Provider()
    provider.failures = [PermanentFailure("no")]
    await planned(database)
    running = runner(database, provider)
    await running.run_due(NOON)
    await running.start()

    def shown() -> float | None:
        return REGISTRY.get_sample_value("quill_operations_failed", {"kind": "pay"})

    for _ in range(100):
        if shown() == 1:
            break
        await asyncio.sleep(0.05)
    assert shown() == 1
    await running.stop()
