"""Keyed publishing and the outbox, on real Kafka and Postgres."""

import asyncio
import random
from collections import defaultdict

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from quill_runtime.outbox import MessageTooLarge, Outbox, OutboxRelay, oldest_age_seconds
from quill_runtime.publisher import KafkaPublisher, Outgoing, PublishFailed
from sqlalchemy import text

pytestmark = pytest.mark.integration


async def read_all(bootstrap_servers: str, topic: str, partitions: int):
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap_servers, group_id=None)
    await consumer.start()
    try:
        assigned = [TopicPartition(topic, n) for n in range(partitions)]
        consumer.assign(assigned)
        await consumer.seek_to_beginning(*assigned)
        ends = await consumer.end_offsets(assigned)
        records = []
        while any([await consumer.position(p) < ends[p] for p in assigned]):
            for batch in (await consumer.getmany(timeout_ms=200)).values():
                records += batch
        return records
    finally:
        await consumer.stop()


async def test_one_key_always_meets_one_partition_and_stays_in_order(kafka):
    topic = kafka.fresh_topic(partitions=4)
    publisher = KafkaPublisher(kafka.bootstrap_servers)
    await publisher.start()
    await publisher.publish_all([Outgoing(topic, f"key-{n % 20}", str(n).encode()) for n in range(400)])
    await publisher.stop()
    seen = defaultdict(list)
    for record in await read_all(kafka.bootstrap_servers, topic, 4):
        seen[record.key].append((record.partition, int(record.value)))
    assert len(seen) == 20
    for key, places in seen.items():
        assert len({partition for partition, _ in places}) == 1, key
        assert [number for _, number in places] == sorted(number for _, number in places)
    assert len({places[0][0] for places in seen.values()}) > 1, "the keys must spread over partitions"


async def test_a_producer_that_died_is_replaced_and_the_messages_can_be_sent_again(kafka):
    topic = kafka.fresh_topic()
    publisher = KafkaPublisher(kafka.bootstrap_servers)
    await publisher.start()
    await publisher._producer.stop()
    with pytest.raises(PublishFailed):
        await publisher.publish_all([Outgoing(topic, "k", b"1")])
    await publisher.publish_all([Outgoing(topic, "k", b"1")])
    await publisher.stop()
    assert [record.value for record in await read_all(kafka.bootstrap_servers, topic, 1)] == [b"1"]


async def test_the_outbox_loses_nothing_when_smaller_ids_commit_later(kafka, database):
    """Twelve writers that commit in another order than they inserted (reliability O1), and a relay that runs meanwhile."""
    topic = kafka.fresh_topic(partitions=2)
    outbox = Outbox()
    publisher = KafkaPublisher(kafka.bootstrap_servers)
    await publisher.start()
    relay = OutboxRelay(database=database, outbox=outbox, publisher=publisher)
    await relay.start()
    randomness = random.Random(7)
    pauses = [randomness.uniform(0, 0.03) for _ in range(240)]

    async def write(writer: int) -> None:
        for n in range(20):
            async with database.begin() as transaction:
                await outbox.add(transaction, [Outgoing(topic, f"w{writer}", f"{writer}:{n}".encode())])
                await asyncio.sleep(pauses[writer * 20 + n])

    await asyncio.gather(*(write(writer) for writer in range(12)))
    async with asyncio.timeout(60):
        while True:
            async with database.begin() as transaction:
                if await transaction.connection.scalar(text("select count(*) from outbox")) == 0:
                    break
            await asyncio.sleep(0.05)
    await relay.stop()
    await publisher.stop()
    values = [record.value.decode() for record in await read_all(kafka.bootstrap_servers, topic, 2)]
    assert sorted(values) == sorted(f"{w}:{n}" for w in range(12) for n in range(20))


async def test_a_rolled_back_transaction_publishes_nothing(kafka, database):
    topic = kafka.fresh_topic()
    outbox = Outbox()

    async def fail() -> None:
        async with database.begin() as transaction:
            await outbox.add(transaction, [Outgoing(topic, "k", b"1")])
            raise RuntimeError("give up")

    with pytest.raises(RuntimeError):
        await fail()
    async with database.begin() as transaction:
        assert await oldest_age_seconds(transaction) == 0
        assert await transaction.connection.scalar(text("select count(*) from outbox")) == 0


async def test_a_message_above_the_brokers_limit_is_refused_before_the_commit(database):
    async with database.begin() as transaction:
        with pytest.raises(MessageTooLarge, match="topic-x key 'k'"):
            await Outbox().add(transaction, [Outgoing("topic-x", "k", b"x" * 600_000)])
