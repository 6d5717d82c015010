"""A compacted topic as a table, on real Kafka."""

import asyncio

import pytest
from quill_runtime.publisher import KafkaPublisher, Outgoing
from quill_runtime.table_reader import NotReadYet, TableReader

pytestmark = pytest.mark.integration


async def test_a_table_is_ready_once_read_to_its_end_and_stays_current(kafka):
    topic = kafka.fresh_topic(partitions=3)
    publisher = KafkaPublisher(kafka.bootstrap_servers)
    await publisher.start()
    await publisher.publish_all([Outgoing(topic, f"k{n}", b"1") for n in range(50)])
    seen = {}

    def take(record):
        if record.key == b"k7" and record.value == b"bad":
            raise ValueError("this row cannot be read")
        seen[record.key] = record.value

    table = TableReader(topic=topic, bootstrap_servers=kafka.bootstrap_servers, on_record=take)
    with pytest.raises(NotReadYet):
        await table.check_caught_up()
    await table.start()
    try:
        async with asyncio.timeout(60):
            await table.caught_up.wait()
        await table.check_caught_up()
        assert len(seen) == 50
        await publisher.publish_all([Outgoing(topic, "k7", b"bad"), Outgoing(topic, "k8", b"2")])
        async with asyncio.timeout(60):
            while seen[b"k8"] != b"2":
                await asyncio.sleep(0.02)
        assert seen[b"k7"] == b"1", "a row that is refused hides no other"
    finally:
        await table.stop()
        await publisher.stop()


async def test_an_empty_table_is_ready_too(kafka):
    table = TableReader(
        topic=kafka.fresh_topic(), bootstrap_servers=kafka.bootstrap_servers, on_record=lambda record: None
    )
    await table.start()
    try:
        async with asyncio.timeout(60):
            await table.caught_up.wait()
    finally:
        await table.stop()


async def test_a_table_tells_whether_it_has_read_all_that_was_published(kafka):
    """K15: only then is a key that is not in it no key."""
    topic = kafka.fresh_topic(partitions=3)
    seen = set()
    publisher = KafkaPublisher(kafka.bootstrap_servers)
    table = TableReader(
        topic=topic, bootstrap_servers=kafka.bootstrap_servers, on_record=lambda record: seen.add(record.key)
    )
    assert not await table.is_current(), "nothing was read yet"
    await publisher.start()
    await table.start()
    try:
        async with asyncio.timeout(60):
            await table.caught_up.wait()
        for number in range(20):
            await publisher.publish_all([Outgoing(topic, f"k{number}", b"1")])
            assert await table.is_current()
            assert f"k{number}".encode() in seen
    finally:
        await table.stop()
        await publisher.stop()
    assert not await table.is_current(), "nothing is read any more"
