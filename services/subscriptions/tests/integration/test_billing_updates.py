"""Regions hear of their customers: marks, claims and sending, on both stores, with a clock that tests move."""

import asyncio
import json
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import pytest
from quill_runtime.database import Database
from quill_runtime.outbox import Outbox
from quill_runtime.queues import MessageRefused, QueueAway
from quill_subscriptions.domain.billing_update import IN_FLIGHT, UpdatePolicy
from quill_subscriptions.domain.catalog import Catalog
from quill_subscriptions.domain.commands import ChangeNeverDropData
from quill_subscriptions.domain.customer import Customer
from quill_subscriptions.domain.usage import MeterUsage, PeriodUsage, UsageSnapshot
from quill_subscriptions.jobs.billing_updates import BillingUpdateSender
from quill_subscriptions.store.memory import MemorySubscriptions
from quill_subscriptions.store.postgres import PostgresSubscriptions
from quill_subscriptions.usecases.catalog import put_catalog_in_force
from quill_subscriptions.usecases.changes import change_customer, limits_command
from quill_subscriptions.usecases.refreshing import refresh_due_customers
from quill_subscriptions.usecases.registration import Tenant, find_or_register

SECOND = timedelta(seconds=1)
SPACING = 60 * SECOND
POLICY = UpdatePolicy(license_ids=frozenset({"cloud-eu"}), spacing=SPACING)


@pytest.fixture
async def told_memory(catalog: Catalog, now: datetime) -> MemorySubscriptions:
    store = MemorySubscriptions(POLICY)
    await store.run(lambda tx: put_catalog_in_force(catalog, tx=tx, now=now))
    return store


@pytest.fixture
async def told_postgres(database: Database, catalog: Catalog, now: datetime) -> PostgresSubscriptions:
    store = PostgresSubscriptions(database, Outbox(), POLICY)
    await store.run(lambda tx: put_catalog_in_force(catalog, tx=tx, now=now))
    return store


@pytest.fixture(params=["memory", pytest.param("postgres", marks=pytest.mark.integration)])
def told(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue(f"told_{request.param}")


@dataclass
class Queue:
    """A queue that remembers what it was handed, and fails as told."""

    taken: list[dict[str, Any]] = field(default_factory=list)
    bodies: list[str] = field(default_factory=list)
    is_away: bool = False
    refuses: set[str] = field(default_factory=set)

    async def send(self, body: str, *, attributes: dict[str, str], group: str, message_key: str) -> str:
        assert attributes["content_type"] == "application/json"
        await asyncio.sleep(0)
        if self.is_away:
            raise QueueAway("nobody answers")
        if group in self.refuses:
            raise MessageRefused("not as it is")
        self.taken.append(json.loads(body))
        self.bodies.append(body)
        return message_key

    @property
    def names(self) -> list[str]:
        return [each["organization_id"] for each in self.taken]


def sender(store: Any) -> BillingUpdateSender:
    def never_opened() -> AbstractAsyncContextManager[Queue]:
        raise AssertionError("tests hand the queue over themselves")

    def type_of(customer: Customer) -> str:
        return customer.license_type

    return BillingUpdateSender(
        store=store,
        open_queue=never_opened,
        license_ids=["cloud-eu"],
        license_type_of=type_of,
        packed=False,
        every_seconds=0.1,
        clock=None,  # type: ignore[arg-type] - the loop that reads it does not run
    )


async def drain(store: Any, queue: Queue, now: datetime) -> list[str]:
    """Send all that is due; whom the queue was told of."""
    before = len(queue.taken)
    for _ in range(50):
        if not await sender(store).send_due(queue, now=now):
            break
    return queue.names[before:]


async def register(store: Any, now: datetime, name: str = "org-1", license_id: str = "cloud-eu") -> None:
    kind = "cloud" if license_id.startswith("cloud") else "scale"
    who = Tenant(name, "Hedgehog Ltd", license_id, kind, f"license:{license_id}")
    await store.run(lambda tx: find_or_register(who, customer_id=f"c-{name}", tx=tx, now=now))


async def use(
    store: Any, now: datetime, revision: int, *, complete: int = 0, partial: int = 0, name: str = "org-1"
) -> None:
    meters = {"events": MeterUsage(complete, partial, complete + partial)}
    starts = now.replace(hour=0, minute=0, second=0, microsecond=0)
    snapshot = UsageSnapshot(name, revision, (PeriodUsage(starts, meters),))
    await store.run(lambda tx: tx.keep_usage([snapshot], now=now))


async def flip(store: Any, now: datetime, *, to: bool) -> None:
    command = ChangeNeverDropData(never_drop_data=to)
    await store.run(lambda tx: change_customer("org-1", [command], actor="operator:anna", tx=tx, now=now))


async def test_a_region_hears_of_each_change_at_once_and_of_nothing_twice(told: Any, now: datetime) -> None:
    queue = Queue()
    await register(told, now)
    assert await drain(told, queue, now) == ["org-1"]
    assert await drain(told, queue, now + SECOND) == []
    for seconds, value in ((2, True), (3, False)):
        await flip(told, now + seconds * SECOND, to=value)
        assert await drain(told, queue, now + seconds * SECOND) == ["org-1"]
    assert [each["data"]["customer"]["never_drop_data"] for each in queue.taken] == [False, True, False]
    assert {each["type"] for each in queue.taken} == {"billing_customer_update"}


async def test_a_self_hosted_instance_has_no_queue_and_leaves_no_mark(told: Any, now: datetime) -> None:
    await register(told, now, "org-9", "self-1")
    await use(told, now, 1, complete=5, name="org-9")
    await told.run(lambda tx: tx.updates.expect_usage({"org-9": 1, "nobody": 3}, now=now))
    assert await told.run(lambda tx: tx.updates.standing("due", after="", count_max=10)) == []


async def test_without_queues_nothing_is_marked(store: Any, now: datetime) -> None:
    await register(store, now)
    await use(store, now, 1, complete=5)
    await store.run(lambda tx: tx.updates.expect_usage({"org-1": 1}, now=now))
    assert await store.run(lambda tx: tx.updates.standing("due", after="", count_max=10)) == []


async def test_usage_alone_is_told_once_in_a_while_with_the_newest_number(told: Any, now: datetime) -> None:
    queue = Queue()
    await register(told, now)
    await drain(told, queue, now)
    for second in range(1, 130):
        at = now + second * SECOND
        await use(told, at, second, complete=second)
        await drain(told, queue, at)
    told_at = [each["data"]["customer"]["usage_summary"]["events"]["usage"] for each in queue.taken]
    assert told_at == [0, 60, 120], "at most one a minute, each with the usage of its own instant"


async def test_a_change_does_not_wait_for_usage_that_does(told: Any, now: datetime) -> None:
    queue = Queue()
    await register(told, now)
    await drain(told, queue, now)
    await use(told, now + SECOND, 1, complete=7)
    assert await drain(told, queue, now + SECOND) == []
    await flip(told, now + 2 * SECOND, to=True)
    assert await drain(told, queue, now + 2 * SECOND) == ["org-1"]
    assert queue.taken[-1]["data"]["customer"]["usage_summary"]["events"]["usage"] == 7
    assert await drain(told, queue, now + SPACING + SECOND) == [], "the usage went along"


@pytest.mark.parametrize("transition_first", [True, False])
async def test_a_limit_that_changed_is_told_at_once_and_with_the_usage_that_did_it(
    told: Any, now: datetime, transition_first: bool
) -> None:
    queue = Queue()
    await register(told, now)
    await drain(told, queue, now)
    at = now + SECOND

    async def transition() -> None:
        await told.run(lambda tx: tx.updates.expect_usage({"org-1": 4}, now=at))

    if transition_first:
        await use(told, at, 3, complete=10)
        await transition()
        assert await drain(told, queue, at) == [], "the usage that did it is still on its way"
        await use(told, at, 4, complete=999)
    else:
        await use(told, at, 4, complete=999)
        assert await drain(told, queue, at) == []
        await transition()
    assert await drain(told, queue, at) == ["org-1"]
    assert queue.taken[-1]["data"]["customer"]["usage_summary"]["events"]["usage"] == 999


async def test_the_day_that_posthog_still_counts_is_in_no_usage_it_hears(told: Any, now: datetime) -> None:
    """(L6)"""
    queue = Queue()
    await register(told, now)
    await use(told, now, 1, complete=400, partial=73)
    await drain(told, queue, now)
    summary = queue.taken[-1]["data"]["customer"]["usage_summary"]
    assert summary["events"]["usage"] == 400


async def test_a_new_period_is_told_at_its_boundary(told: Any, now: datetime) -> None:
    queue = Queue()
    await register(told, now)
    await drain(told, queue, now)
    later = now + 40 * timedelta(days=1)
    assert await drain(told, queue, later) == []
    await told.run(lambda tx: refresh_due_customers(tx=tx, now=later))
    assert await drain(told, queue, later) == ["org-1"]
    first, second = (each["data"]["customer"]["billing_period"] for each in queue.taken)
    assert second["current_period_start"] == first["current_period_end"]


async def test_what_is_told_is_byte_for_byte_what_get_billing_answers(
    told: Any, now: datetime, catalog: Catalog, calling: Callable[[Any], Any]
) -> None:
    queue = Queue()
    await register(told, now)
    limit = {"product_analytics": 50}

    async def limited(tx: Any) -> Any:
        record = await tx.find("org-1")
        command = limits_command(record.customer, catalog, limit, reset_next_period=False, now=now)
        return await change_customer("org-1", [command], actor="operator:anna", tx=tx, now=now)

    await told.run(limited)
    await use(told, now, 1, complete=1_500_000, partial=20_000)
    await drain(told, queue, now)
    caller = calling(told)
    async with caller.http:
        shown = await caller.http.get("/api/billing", headers=caller.signed())
    assert shown.status_code == 200
    assert queue.bodies[-1].encode() == (
        b'{"type":"billing_customer_update","organization_id":"org-1","data":' + shown.content + b"}"
    )


@dataclass
class DyingQueue(Queue):
    """Takes the message; the process dies before it hears of that."""

    async def send(self, body: str, *, attributes: dict[str, str], group: str, message_key: str) -> str:
        await Queue.send(self, body, attributes=attributes, group=group, message_key=message_key)
        raise asyncio.CancelledError


async def test_a_crash_after_sending_and_before_marking_sends_again_and_loses_nothing(told: Any, now: datetime) -> None:
    """(L15)"""
    dying = DyingQueue()
    await register(told, now)
    with pytest.raises(asyncio.CancelledError):
        await sender(told).send_due(dying, now=now)
    assert dying.names == ["org-1"]
    queue = Queue()
    assert await drain(told, queue, now + IN_FLIGHT - SECOND) == [], "another sender may still be at it"
    assert await drain(told, queue, now + IN_FLIGHT) == ["org-1"]
    assert await drain(told, queue, now + 2 * IN_FLIGHT) == []


async def test_a_change_while_an_update_is_on_its_way_is_told_too(told: Any, now: datetime) -> None:
    queue = Queue()
    await register(told, now)
    (claimed,) = await told.run(lambda tx: tx.updates.claim(["cloud-eu"], now=now, count_max=5))
    await flip(told, now + SECOND, to=True)
    assert await told.run(lambda tx: tx.updates.claim(["cloud-eu"], now=now + SECOND, count_max=5)) == []
    await told.run(lambda tx: tx.updates.conclude(claimed, now=now + SECOND))
    assert await drain(told, queue, now + SECOND) == ["org-1"]
    assert queue.taken[-1]["data"]["customer"]["never_drop_data"] is True


async def test_whose_time_ran_out_settles_nothing(told: Any, now: datetime) -> None:
    await register(told, now)
    claim = lambda at: told.run(lambda tx: tx.updates.claim(["cloud-eu"], now=at, count_max=5))  # noqa: E731
    (slow,) = await claim(now)
    (fresh,) = await claim(now + IN_FLIGHT)
    await told.run(lambda tx: tx.updates.conclude(slow, now=now + IN_FLIGHT))
    (still,) = await told.run(lambda tx: tx.updates.standing("due", after="", count_max=5))
    assert (still.organization_id, still.attempts, fresh.attempts) == ("org-1", 2, 2)


async def test_a_queue_that_is_away_loses_nothing_and_gets_the_newest_state(told: Any, now: datetime) -> None:
    queue = Queue(is_away=True)
    await register(told, now)
    for second in (0, 5, 30):
        with pytest.raises(QueueAway):
            await sender(told).send_due(queue, now=now + second * SECOND)
    await flip(told, now + 31 * SECOND, to=True)
    (due,) = await told.run(lambda tx: tx.updates.standing("due", after="", count_max=5))
    assert (due.attempts, due.sent_at) == (3, None)
    assert "nobody answers" in (due.error or "")
    queue.is_away = False
    assert await drain(told, queue, now + 120 * SECOND) == ["org-1"]
    assert queue.taken[0]["data"]["customer"]["never_drop_data"] is True
    assert await told.run(lambda tx: tx.updates.standing("due", after="", count_max=5)) == []


async def test_one_that_cannot_be_sent_is_shown_as_failed_and_holds_up_nobody(told: Any, now: datetime) -> None:
    queue = Queue(refuses={"org-2"})
    for number in range(1, 8):
        await register(told, now, f"org-{number}")
    assert sorted(await drain(told, queue, now)) == [f"org-{number}" for number in (1, 3, 4, 5, 6, 7)]
    (failed,) = await told.run(lambda tx: tx.updates.standing("failed", after="", count_max=5))
    assert (failed.organization_id, failed.error, failed.due_at) == ("org-2", "not as it is", None)
    queue.refuses.clear()
    await use(told, now + 2 * SPACING, 1, complete=1, name="org-2")
    assert await drain(told, queue, now + 2 * SPACING) == ["org-2"]
    assert await told.run(lambda tx: tx.updates.standing("failed", after="", count_max=5)) == []


async def test_replicas_share_the_work_and_tell_of_each_customer_once(told: Any, now: datetime) -> None:
    queue = Queue()
    for number in range(30):
        await register(told, now, f"org-{number:02}")

    async def replica() -> None:
        mine = sender(told)
        while await mine.send_due(queue, now=now):
            await asyncio.sleep(0)

    await asyncio.gather(replica(), replica(), replica())
    assert sorted(queue.names) == [f"org-{number:02}" for number in range(30)]


async def test_operators_see_what_is_due_and_what_failed(
    told: Any, now: datetime, calling: Callable[[Any], Any]
) -> None:
    queue = Queue(refuses={"org-2"})
    await register(told, now, "org-2")
    await drain(told, queue, now)
    await register(told, now, "org-3")
    caller = calling(told)
    async with caller.http:
        failed = await caller.http.get("/v1/billing-updates", headers=caller.operator)
        due = await caller.http.get("/v1/billing-updates", params={"status": "due"}, headers=caller.operator)
        refused = await caller.http.get("/v1/billing-updates", headers=caller.signed())
    assert [(each["organization_id"], each["error"]) for each in failed.json()["results"]] == [
        ("org-2", "not as it is")
    ]
    assert [each["organization_id"] for each in due.json()["results"]] == ["org-3"]
    assert refused.status_code == 401
