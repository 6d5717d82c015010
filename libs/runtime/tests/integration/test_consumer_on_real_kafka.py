"""Each hazard of reliability.md section 1 that Quill closes, shown on real Kafka and Postgres."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import orjson
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError
from aiokafka.protocol.fetch import FetchRequest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from quill_runtime import dead_letters, positions
from quill_runtime.clock import SystemClock
from quill_runtime.consumer import Consumer
from quill_runtime.consumption import Consumption, FollowUp, Received, Record, Rejected
from quill_runtime.database import Database, Transaction
from quill_runtime.fetching import WHOLE_WAIT_MS
from quill_runtime.outbox import Outbox, OutboxRelay
from quill_runtime.positions import Partition
from quill_runtime.publisher import KafkaPublisher, Outgoing
from quill_runtime.record_reading import READ_WAIT_MS
from quill_runtime.watchdog import EXIT_STUCK, ProgressWatch, Watchdog, ended_task
from sqlalchemy import text

pytestmark = pytest.mark.integration


in_one_lane_and_in_two = pytest.mark.parametrize("lanes", [1, 2])


def decode(record: Record) -> dict[str, Any]:
    value = orjson.loads(record.value or b"")
    if not isinstance(value, dict):
        raise Rejected("not_an_object", "the value must be a JSON object", attribute="value")
    return value


@dataclass
class Effects:
    """Counts how often each number was applied and followed up; fails on request."""

    database: Database
    failures: list[Exception] = field(default_factory=list)
    follow_up_failures: list[Exception] = field(default_factory=list)
    followed_up: list[int] = field(default_factory=list)
    batches: list[list[tuple[int, int]]] = field(default_factory=list)
    before_commit: Callable[[Transaction], Awaitable[None]] | None = None
    lanes: int = 1
    split_at: int = 1

    async def create(self) -> None:
        async with self.database.begin() as transaction:
            await transaction.connection.execute(text("create table effects (number int, applications int)"))
            await transaction.connection.execute(text("create unique index on effects (number)"))

    async def apply(
        self, transaction: Transaction, received: Sequence[Received[dict[str, Any]]], _now: datetime
    ) -> FollowUp:
        self.batches.append([(item.record.partition, item.record.offset) for item in received])
        for item in received:
            if item.message.get("bad"):
                raise Rejected("bad_number", "the number is bad", attribute="number", subject="someone")
            await transaction.connection.execute(
                text(
                    "insert into effects values (:n, 1) on conflict (number)"
                    " do update set applications = effects.applications + 1"
                ),
                {"n": item.message["number"]},
            )
        if self.before_commit is not None:
            await self.before_commit(transaction)
        if self.failures:
            raise self.failures.pop()
        numbers = [item.message["number"] for item in received]

        async def follow_up() -> None:
            if self.follow_up_failures:
                raise self.follow_up_failures.pop()
            self.followed_up.extend(numbers)

        return follow_up

    async def counts(self) -> dict[int, int]:
        async with self.database.begin() as transaction:
            rows = await transaction.connection.execute(text("select number, applications from effects"))
            return {row.number: row.applications for row in rows}

    async def reach(self, total: int) -> dict[int, int]:
        async with asyncio.timeout(90):
            while len(counts := await self.counts()) < total:
                await asyncio.sleep(0.05)
        return counts


@pytest.fixture
async def effects(database: Database) -> Effects:
    made = Effects(database)
    await made.create()
    return made


def consumer_of(effects: Effects, topic: str, bootstrap_servers: str, *, max_records: int = 500) -> Consumer[Any]:
    return Consumer(
        Consumption(
            topic=topic,
            group="test",
            decode=decode,
            apply=effects.apply,
            max_records=max_records,
            lanes=effects.lanes,
            split_at=effects.split_at,
        ),
        bootstrap_servers=bootstrap_servers,
        database=effects.database,
        outbox=Outbox(),
        clock=SystemClock(),
        group_prefix=f"{topic}.",
    )


@asynccontextmanager
async def running(consumer: Consumer[Any]) -> AsyncIterator[Consumer[Any]]:
    await consumer.start()
    try:
        yield consumer
    finally:
        await consumer.stop()


async def produce(
    bootstrap_servers: str,
    topic: str,
    values: Sequence[bytes],
    *,
    headers: Sequence[tuple[str, bytes]] = (),
    partitions: int = 1,
) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap_servers)
    await producer.start()
    try:
        for index, value in enumerate(values):
            await producer.send_and_wait(
                topic, value, key=str(index).encode(), partition=index % partitions, headers=list(headers)
            )
    finally:
        await producer.stop()


async def until_settled(consumer: Consumer[Any], offset: int) -> None:
    """Wait until the position in Postgres says so, without another batch."""
    async with asyncio.timeout(60):
        while True:
            await consumer.settle()
            async with consumer._database.begin() as transaction:
                held = await positions.positions(transaction, group=consumer.group)
            if [each.settled_offset for each in held.values()] == [offset]:
                return
            await asyncio.sleep(0.05)


def numbers(start: int, stop: int) -> list[bytes]:
    return [orjson.dumps({"number": n}) for n in range(start, stop)]


async def test_a_lost_kafka_commit_changes_nothing_since_positions_are_kept_with_the_data(kafka, effects):
    topic = kafka.fresh_topic()
    await produce(kafka.bootstrap_servers, topic, numbers(0, 30))
    async with running(consumer_of(effects, topic, kafka.bootstrap_servers)) as consumer:
        await effects.reach(30)
        await until_settled(consumer, 30)
        group = consumer.kafka_group
    rival = AIOKafkaConsumer(bootstrap_servers=kafka.bootstrap_servers, group_id=group, enable_auto_commit=False)
    await rival.start()
    rival.assign([TopicPartition(topic, 0)])
    await rival.commit({TopicPartition(topic, 0): 0})
    await rival.stop()
    await produce(kafka.bootstrap_servers, topic, numbers(30, 40))
    async with running(consumer_of(effects, topic, kafka.bootstrap_servers)):
        counts = await effects.reach(40)
    assert set(counts.values()) == {1}, "the group's Kafka offset went back to 0, and yet nothing was applied twice"


async def test_records_handed_out_before_the_position_is_taken_up_are_left_for_after_the_seek(kafka, effects):
    """They were once applied a second time: ownership arrived between looking and writing."""
    topic = kafka.fresh_topic()
    await produce(kafka.bootstrap_servers, topic, numbers(0, 1))
    reader = AIOKafkaConsumer(bootstrap_servers=kafka.bootstrap_servers, group_id=None)
    await reader.start()
    reader.assign([TopicPartition(topic, 0)])
    await reader.seek_to_beginning()
    early = (await reader.getmany(timeout_ms=10_000))[TopicPartition(topic, 0)]
    await reader.stop()
    consumer = consumer_of(effects, topic, kafka.bootstrap_servers)
    assert consumer._reader.ours_to_do(early) == [], "its position has not been taken up"
    async with running(consumer):
        await effects.reach(1)
        await until_read(consumer, topic, 1)
        assert consumer._reader.ours_to_do(early) == [], "it is done"


async def test_what_was_read_before_the_seek_and_is_handed_out_after_it_skips_nothing(kafka, effects, monkeypatch):
    """The second record, read early and handed out late, once passed for the next one: the first was lost (L4)."""
    topic = kafka.fresh_topic()
    await produce(kafka.bootstrap_servers, topic, numbers(0, 3))
    consumer = consumer_of(effects, topic, kafka.bootstrap_servers, max_records=1)
    early: list[int] = []
    two_are_read = asyncio.Event()
    take, getmany = positions.take, AIOKafkaConsumer.getmany

    async def take_late(*args, **given):
        await two_are_read.wait()
        return await take(*args, **given)

    async def noted_getmany(self, *args, **given):
        batches = await getmany(self, *args, **given)
        if not consumer._owned:
            early.extend(record.offset for records in batches.values() for record in records)
        return batches

    async def read_and_dawdle(client):
        batch = await consumer._reader.read(client)
        if len(early) == 2:
            two_are_read.set()
            while not consumer._owned:
                await asyncio.sleep(0.01)
        return batch

    monkeypatch.setattr(positions, "take", take_late)
    monkeypatch.setattr(AIOKafkaConsumer, "getmany", noted_getmany)
    monkeypatch.setattr(consumer._subscriber, "get_msg", read_and_dawdle)
    async with running(consumer):
        await until_read(consumer, topic, 3)
    assert early == [0, 1]
    assert await effects.counts() == {0: 1, 1: 1, 2: 1}


async def test_a_trace_goes_on_through_outbox_and_kafka_into_the_readers_work(kafka, effects):
    topic = kafka.fresh_topic()
    trace.set_tracer_provider(TracerProvider())
    seen: list[int] = []

    async def remember(_transaction: Transaction) -> None:
        seen.append(trace.get_current_span().get_span_context().trace_id)

    effects.before_commit = remember
    outbox = Outbox()
    publisher = KafkaPublisher(kafka.bootstrap_servers)
    await publisher.start()
    with trace.get_tracer("test").start_as_current_span("a request") as span:
        async with effects.database.begin() as transaction:
            await outbox.add(transaction, [Outgoing(topic, "k", orjson.dumps({"number": 1}))])
    await OutboxRelay(database=effects.database, outbox=outbox, publisher=publisher).drain()
    with trace.get_tracer("test").start_as_current_span("a batch") as direct:
        await publisher.publish_all([Outgoing(topic, "k", orjson.dumps({"number": 2}))])
    await publisher.stop()
    async with running(consumer_of(effects, topic, kafka.bootstrap_servers, max_records=1)):
        await effects.reach(2)
    assert seen == [span.get_span_context().trace_id, direct.get_span_context().trace_id]


async def test_lanes_work_at_once_and_each_partition_stays_in_order(kafka, effects):
    topic = kafka.fresh_topic(partitions=4)
    effects.lanes = 2
    arrived: list[int] = []

    async def meet(_transaction: Transaction) -> None:
        """Neither lane commits before the other is as far; what hung would fail by the deadline of `reach`."""
        arrived.append(1)
        while len(arrived) < effects.lanes:
            await asyncio.sleep(0.01)

    effects.before_commit = meet
    await produce(kafka.bootstrap_servers, topic, numbers(0, 40), partitions=4)
    async with running(consumer_of(effects, topic, kafka.bootstrap_servers)):
        counts = await effects.reach(40)
    assert set(counts.values()) == {1}
    for batch in effects.batches:
        assert len({partition % 2 for partition, _ in batch}) == 1, "a lane keeps to its partitions"
    for partition in range(4):
        offsets = [offset for batch in effects.batches for held, offset in batch if held == partition]
        assert offsets == sorted(offsets)


async def test_a_lane_goes_on_while_another_is_held_up(kafka, effects):
    """It once waited at the end of each batch for the slowest lane."""
    topic = kafka.fresh_topic(partitions=2)
    effects.lanes = 2
    release = asyncio.Event()
    apply = effects.apply

    async def hold_up_partition_1(transaction, received, now):
        if received[0].record.partition == 1:
            await release.wait()
        return await apply(transaction, received, now)

    effects.apply = hold_up_partition_1
    await produce(kafka.bootstrap_servers, topic, numbers(0, 40), partitions=2)
    async with running(consumer_of(effects, topic, kafka.bootstrap_servers, max_records=4)):
        # All of partition 0, though a batch takes four records and partition 1 has not finished its first.
        assert (await effects.reach(20)).keys() == set(range(0, 40, 2))
        release.set()
        counts = await effects.reach(40)
    assert set(counts.values()) == {1}
    for partition in range(2):
        offsets = [offset for batch in effects.batches for held, offset in batch if held == partition]
        assert offsets == list(range(20))


async def test_a_backlog_of_one_partition_leaves_no_lane_idle(kafka, effects, monkeypatch):
    """A full batch comes from one partition, and what the client holds for the other lane is taken along."""
    topic = kafka.fresh_topic(partitions=2)
    effects.lanes = 2
    await produce(kafka.bootstrap_servers, topic, numbers(0, 40), partitions=2)
    consumer = consumer_of(effects, topic, kafka.bootstrap_servers, max_records=5)
    read: list[set[int]] = []

    async def read_when_both_are_there(client):
        async with asyncio.timeout(60):
            # What is held before both positions are taken up comes again, and is not read now.
            while (len(consumer._owned) < 2 or len(client._fetcher._records) < 2) and not read:
                await asyncio.sleep(0.01)
        batch = await consumer._reader.read(client)
        read.append({record.partition for record in batch})
        return batch

    monkeypatch.setattr(consumer._subscriber, "get_msg", read_when_both_are_there)
    async with running(consumer):
        counts = await effects.reach(40)
    assert set(counts.values()) == {1}
    assert read[0] == {0, 1}


async def test_a_lane_that_cannot_read_on_costs_nothing_that_is_in_hand(kafka, effects, monkeypatch):
    """What had been read for one partition would have been lost with the error of another's."""
    topic = kafka.fresh_topic(partitions=2)
    effects.lanes = 2
    getmany = AIOKafkaConsumer.getmany
    failures: list[int] = []

    async def failing_getmany(self, *partitions, **given):
        if partitions and len(failures) < 5:
            failures.append(1)
            raise KafkaError("not now")
        return await getmany(self, *partitions, **given)

    monkeypatch.setattr(AIOKafkaConsumer, "getmany", failing_getmany)
    await produce(kafka.bootstrap_servers, topic, numbers(0, 40), partitions=2)
    async with running(consumer_of(effects, topic, kafka.bootstrap_servers, max_records=5)):
        counts = await effects.reach(40)
    assert set(counts.values()) == {1}
    assert failures


async def test_a_small_batch_is_one_transaction(kafka, effects):
    topic = kafka.fresh_topic(partitions=2)
    effects.lanes, effects.split_at = 2, 11
    await produce(kafka.bootstrap_servers, topic, numbers(0, 10), partitions=2)
    async with running(consumer_of(effects, topic, kafka.bootstrap_servers)):
        counts = await effects.reach(10)
    assert set(counts.values()) == {1}
    assert any({partition for partition, _ in batch} == {0, 1} for batch in effects.batches)


async def test_kafka_hears_how_far_the_group_is(kafka, effects):
    topic = kafka.fresh_topic()
    await produce(kafka.bootstrap_servers, topic, numbers(0, 5))
    asking = AIOKafkaConsumer(bootstrap_servers=kafka.bootstrap_servers, group_id=f"{topic}.test.{topic}")
    await asking.start()
    asking.assign([TopicPartition(topic, 0)])

    async def told() -> int | None:
        return await asking.committed(TopicPartition(topic, 0))

    try:
        async with running(consumer_of(effects, topic, kafka.bootstrap_servers)):
            await effects.reach(5)
            async with asyncio.timeout(60):
                while await told() != 5:
                    await asyncio.sleep(0.05)
            await produce(kafka.bootstrap_servers, topic, numbers(5, 9))
            await effects.reach(9)
        assert await told() == 9, "at its end it leaves the newest behind"
    finally:
        await asking.stop()


@in_one_lane_and_in_two
async def test_a_failure_before_the_commit_of_a_batch_over_two_partitions_loses_neither(kafka, effects, lanes):
    effects.lanes = lanes
    topic = kafka.fresh_topic(partitions=2)
    effects.failures = [ConnectionError("the database went away")]
    await produce(kafka.bootstrap_servers, topic, numbers(0, 40), partitions=2)
    async with running(consumer_of(effects, topic, kafka.bootstrap_servers)):
        counts = await effects.reach(40)
    assert set(counts.values()) == {1}
    first = {partition for batch in effects.batches[:lanes] for partition, _ in batch}
    assert first == {0, 1}, "what was handed out when it failed must have spanned both"


async def test_a_database_that_is_away_pauses_the_consumer_and_parks_nothing(kafka, effects):
    topic = kafka.fresh_topic()
    effects.failures = [ConnectionError("away") for _ in range(3)]
    await produce(kafka.bootstrap_servers, topic, numbers(0, 5))
    async with running(consumer_of(effects, topic, kafka.bootstrap_servers)):
        assert set((await effects.reach(5)).values()) == {1}
    async with effects.database.begin() as transaction:
        assert await dead_letters.waiting(transaction) == []


@in_one_lane_and_in_two
async def test_poison_is_parked_with_its_bytes_and_reason_and_everything_around_it_is_applied(kafka, effects, lanes):
    effects.lanes = lanes
    topic = kafka.fresh_topic()
    dead = topic + ".dead"
    kafka.create_topics({dead: 1})
    values = numbers(0, 60)
    values[10] = b"\xff\xfe not json"
    values[20] = orjson.dumps({"number": 20, "bad": True})
    values[30] = b"[1, 2]"
    values[40] = orjson.dumps({"no_number": 1})
    await produce(kafka.bootstrap_servers, topic, values)
    async with running(consumer_of(effects, topic, kafka.bootstrap_servers)) as consumer:
        counts = await effects.reach(56)
        async with asyncio.timeout(60):
            while True:
                # The position first: what is committed between two looks is in the second alone.
                async with effects.database.begin() as transaction:
                    standing = await positions.positions(transaction, group=consumer.group)
                    parked = await dead_letters.waiting(transaction)
                if standing[Partition(topic, 0)].applied_offset == 60:
                    break
                await asyncio.sleep(0.05)
    assert set(counts.values()) == {1}
    assert {(letter.offset, letter.reason_code) for letter in parked} == {
        (10, "cannot_apply"),
        (20, "bad_number"),
        (30, "not_an_object"),
        (40, "cannot_apply"),
    }
    by_offset = {letter.offset: letter for letter in parked}
    assert by_offset[10].value == values[10]
    assert (by_offset[20].attribute, by_offset[20].subject) == ("number", "someone")
    publisher = KafkaPublisher(kafka.bootstrap_servers)
    await publisher.start()
    relay = OutboxRelay(database=effects.database, outbox=Outbox(), publisher=publisher)
    assert await relay.drain() == 4, "each parked record is announced once on the dead topic"
    await publisher.stop()


@pytest.mark.parametrize("padding", [0, 900_000], ids=["short", "longer than what we announce"])
async def test_a_replayed_dead_letter_comes_back_with_its_exact_bytes(kafka, effects, padding):
    topic = kafka.fresh_topic()
    kafka.create_topics({topic + ".dead": 1})
    value = orjson.dumps({"number": 7, "bad": True, "padding": "x" * padding})
    await produce(kafka.bootstrap_servers, topic, [value])
    outbox = Outbox()
    publisher = KafkaPublisher(kafka.bootstrap_servers)
    await publisher.start()
    async with running(consumer_of(effects, topic, kafka.bootstrap_servers)):
        async with asyncio.timeout(60):
            while True:
                async with effects.database.begin() as transaction:
                    if letters := await dead_letters.waiting(transaction):
                        await dead_letters.replay(transaction, outbox=outbox, letters=letters, now=SystemClock().now())
                        break
                await asyncio.sleep(0.05)
        await OutboxRelay(database=effects.database, outbox=outbox, publisher=publisher).drain()
        async with asyncio.timeout(60):
            while True:
                async with effects.database.begin() as transaction:
                    letters = await dead_letters.waiting(transaction, include_replayed=True)
                if len(letters) == 2:
                    break
                await asyncio.sleep(0.05)
    await publisher.stop()
    first, second = letters
    assert first.value == second.value == value
    assert first.replays == 1
    assert second.headers["quill-replay-of"] == str(first.id)


async def test_a_header_that_is_not_utf8_does_not_skip_its_record(kafka, effects):
    topic = kafka.fresh_topic()
    await produce(kafka.bootstrap_servers, topic, numbers(0, 3), headers=[("trace", b"\xff\xfe"), ("empty", b"")])
    async with running(consumer_of(effects, topic, kafka.bootstrap_servers)):
        assert set((await effects.reach(3)).values()) == {1}


@in_one_lane_and_in_two
async def test_follow_up_work_that_failed_is_repeated_and_never_skipped(kafka, effects, lanes):
    effects.lanes = lanes
    topic = kafka.fresh_topic()
    effects.follow_up_failures = [ConnectionError("kafka is away")]
    await produce(kafka.bootstrap_servers, topic, numbers(0, 5))
    async with running(consumer_of(effects, topic, kafka.bootstrap_servers)):
        async with asyncio.timeout(60):
            while set(effects.followed_up) != set(range(5)):
                await asyncio.sleep(0.05)


async def test_a_crash_between_commit_and_follow_up_is_healed_by_redelivery(kafka, effects):
    topic = kafka.fresh_topic()
    effects.follow_up_failures = [ConnectionError("kafka is away") for _ in range(1000)]
    await produce(kafka.bootstrap_servers, topic, numbers(0, 5))
    async with running(consumer_of(effects, topic, kafka.bootstrap_servers)):
        await effects.reach(5)
    effects.follow_up_failures.clear()
    async with running(consumer_of(effects, topic, kafka.bootstrap_servers)):
        async with asyncio.timeout(60):
            while set(effects.followed_up) != set(range(5)):
                await asyncio.sleep(0.05)


async def test_a_zombie_commits_nothing_once_another_member_owns_the_partition(kafka, effects):
    topic = kafka.fresh_topic()
    consumer = consumer_of(effects, topic, kafka.bootstrap_servers)
    stolen = asyncio.Event()

    async def steal(_transaction: Transaction) -> None:
        if stolen.is_set():
            return
        stolen.set()
        task = asyncio.create_task(take_over())
        await asyncio.sleep(0)
        tasks.append(task)

    async def take_over() -> None:
        async with effects.database.begin() as transaction:
            await positions.take(transaction, group=consumer.group, partitions=[Partition(topic, 0)])

    tasks: list[asyncio.Task[None]] = []
    async with running(consumer):
        await asyncio.sleep(1)
        effects.before_commit = steal
        await produce(kafka.bootstrap_servers, topic, numbers(0, 1))
        await asyncio.wait_for(stolen.wait(), 20)
        await asyncio.gather(*tasks)
        first = await effects.reach(1)
        await produce(kafka.bootstrap_servers, topic, numbers(1, 3))
        await asyncio.sleep(1.5)
        assert await effects.counts() == first, "after the take-over the old owner's batches must not land"


async def test_a_batch_fenced_on_one_partition_is_done_again_on_the_others(kafka, effects, monkeypatch):
    """It once was dropped whole: what belonged to partitions still owned waited for the next restart."""
    topic = kafka.fresh_topic(partitions=2)
    await produce(kafka.bootstrap_servers, topic, numbers(0, 20), partitions=2)
    consumer = consumer_of(effects, topic, kafka.bootstrap_servers)
    fenced: list[set[Partition]] = []
    advance = positions.advance

    async def lose_one_before(transaction, *, applied, **given):
        if len(applied) == 2:
            fenced.append(set(applied))
            consumer._owned.pop(Partition(topic, 1), None)
        await advance(transaction, applied=applied, **given)

    monkeypatch.setattr(positions, "advance", lose_one_before)
    async with running(consumer):
        counts = await effects.reach(10)
        await asyncio.sleep(0.5)
    assert fenced, "the first batch must have spanned both"
    assert counts == await effects.counts() == dict.fromkeys(range(0, 20, 2), 1)


async def test_what_is_revoked_under_a_batch_is_committed_before_the_next_owner_begins(kafka, effects):
    """The position rows are held from the first statement on: a new owner waits for the commit and reads behind it."""
    topic = kafka.fresh_topic()
    consumer = consumer_of(effects, topic, kafka.bootstrap_servers)
    taken: list[asyncio.Task[Any]] = []

    async def take_over() -> Any:
        async with effects.database.begin() as transaction:
            return await positions.take(transaction, group=consumer.group, partitions=[Partition(topic, 0)])

    async def revoke(_transaction: Transaction) -> None:
        if not taken:
            consumer.revoked()
            taken.append(asyncio.create_task(take_over()))
            await asyncio.sleep(0.3)
            assert not taken[0].done()

    effects.before_commit = revoke
    await produce(kafka.bootstrap_servers, topic, numbers(0, 5))
    async with running(consumer):
        counts = await effects.reach(5)
    assert set(counts.values()) == {1}
    (ownership,) = (await taken[0]).values()
    assert ownership.applied_offset == 5


async def test_the_watchdog_ends_the_process_when_the_fetch_task_has_died(kafka, effects):
    topic = kafka.fresh_topic()
    codes: list[int] = []
    async with running(consumer_of(effects, topic, kafka.bootstrap_servers)) as consumer:
        watchdog = Watchdog([consumer], end=codes.append)
        await watchdog.start()
        await asyncio.sleep(0.5)
        assert ended_task(consumer) is None
        consumer.kafka._fetcher._fetch_task.cancel()
        async with asyncio.timeout(10):
            while not codes:
                await asyncio.sleep(0.1)
        await watchdog.stop()
    assert set(codes) == {EXIT_STUCK}


async def test_the_watchdog_notices_records_behind_and_none_handed_out(kafka, effects):
    topic = kafka.fresh_topic()
    await produce(kafka.bootstrap_servers, topic, numbers(0, 3))
    async with running(consumer_of(effects, topic, kafka.bootstrap_servers)) as consumer:
        await effects.reach(3)
        await until_read(consumer, topic, 3)
        watch = ProgressWatch(stuck_seconds=30)
        consumer._owned[Partition(topic, 0)].applied_offset = 1
        assert watch.look(consumer, monotonic_now=100) is None
        assert watch.look(consumer, monotonic_now=129) is None
        assert "2 records behind" in str(watch.look(consumer, monotonic_now=131))


async def test_a_consumer_that_was_idle_for_long_is_not_stuck_when_the_next_record_comes(kafka, effects):
    """It once was: the watchdog counted from the last batch and ended idle services at their next record."""
    topic = kafka.fresh_topic()
    await produce(kafka.bootstrap_servers, topic, numbers(0, 3))
    async with running(consumer_of(effects, topic, kafka.bootstrap_servers)) as consumer:
        await effects.reach(3)
        await until_read(consumer, topic, 3)
        watch = ProgressWatch(stuck_seconds=30)
        assert watch.look(consumer, monotonic_now=100) is None
        consumer._owned[Partition(topic, 0)].applied_offset = 2  # a record is fetched and not applied yet
        assert watch.look(consumer, monotonic_now=5_000) is None
        consumer._owned[Partition(topic, 0)].applied_offset = 3
        assert watch.look(consumer, monotonic_now=5_002) is None


async def test_an_idle_consumer_listens_all_the_time(kafka, effects, monkeypatch):
    """FastStream's own loop slept after every empty read, and a record waited until it woke up."""
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        await asyncio.sleep(seconds)

    monkeypatch.setattr("faststream.kafka.subscriber.usecase.anyio.sleep", sleep)
    topic = kafka.fresh_topic()
    async with running(consumer_of(effects, topic, kafka.bootstrap_servers)) as consumer:
        await asyncio.sleep(4 * READ_WAIT_MS / 1_000)
        await produce(kafka.bootstrap_servers, topic, numbers(0, 3))
        await effects.reach(3)
        await until_read(consumer, topic, 3)
    assert slept == []


async def test_an_idle_consumer_asks_the_broker_now_and_then_and_hears_of_a_record_at_once(kafka, effects):
    """With one short wait for all fetches it asked up to a hundred times a second."""
    topic = kafka.fresh_topic()
    async with running(consumer_of(effects, topic, kafka.bootstrap_servers)) as consumer:
        await produce(kafka.bootstrap_servers, topic, numbers(0, 3))
        await effects.reach(3)
        await until_read(consumer, topic, 3)
        client = consumer.kafka._client
        held: list[int] = []
        send = client.send

        async def counted_send(node, request, **given):
            if isinstance(request, FetchRequest):
                held.append(request._max_wait_ms)
            return await send(node, request, **given)

        client.send = counted_send
        await asyncio.sleep(4 * WHOLE_WAIT_MS / 1_000)
        assert 0 < len(held) <= 6
        assert set(held) == {WHOLE_WAIT_MS}
        await produce(kafka.bootstrap_servers, topic, numbers(3, 6))
        await effects.reach(6)


async def until_read(consumer: Consumer[Any], topic: str, offset: int) -> None:
    async with asyncio.timeout(60):
        while consumer.applied_offsets().get(Partition(topic, 0)) != offset:
            await asyncio.sleep(0.02)
