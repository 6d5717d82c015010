"""A topic seen from outside: filling it, where it ends, how far a group has come."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Final

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from quill_runtime.publisher import KafkaPublisher, Outgoing

REQUEST_MS: Final = 10_000
READ_SECONDS: Final = 60.0
RECORDS_PER_READ: Final = 500
PUBLISH_AT_ONCE: Final = 2_000

Offsets = Mapping[TopicPartition, int]


class TopicLog:
    """One topic on one broker."""

    def __init__(self, topic: str, consumer: AIOKafkaConsumer, publisher: KafkaPublisher) -> None:
        self._topic = topic
        self._consumer = consumer
        self._publisher = publisher

    async def publish(self, messages: Sequence[Outgoing]) -> None:
        """Return when all of them are confirmed. Messages for other topics are welcome too.

        Raises:
            quill_runtime.publisher.PublishFailed: the broker did not confirm.
        """
        for first in range(0, len(messages), PUBLISH_AT_ONCE):
            await self._publisher.publish_all(messages[first : first + PUBLISH_AT_ONCE])

    async def ends(self) -> Offsets:
        """The offset behind the newest record of each partition."""
        ends: Offsets = await self._consumer.end_offsets(self._consumer.assignment())
        return ends

    async def read(self, start: Offsets, end: Offsets, take: Callable[[ConsumerRecord], object]) -> int:
        """Give every record between two sets of offsets to ``take``, and none beyond; returns how many.

        Raises:
            TimeoutError: they did not come within a minute.
        """
        for partition, offset in start.items():
            self._consumer.seek(partition, offset)
        # Each partition has its own end: what one has written since must not stand in for what another still lacks.
        missing = {partition for partition, offset in start.items() if offset < end[partition]}
        count = 0
        async with asyncio.timeout(READ_SECONDS):
            while missing:
                batches = await self._consumer.getmany(*missing, timeout_ms=200, max_records=RECORDS_PER_READ)
                for partition, records in batches.items():
                    for record in records:
                        if record.offset < end[partition]:
                            take(record)
                            count += 1
                    if records[-1].offset + 1 >= end[partition]:
                        missing.discard(partition)
        return count


@asynccontextmanager
async def opened_log(topic: str, partitions: int, bootstrap_servers: str) -> AsyncIterator[TopicLog]:
    """A topic, read without a group, and a publisher that waits for the broker's confirmation."""
    consumer = AIOKafkaConsumer(
        bootstrap_servers=bootstrap_servers,
        group_id=None,
        enable_auto_commit=False,
        fetch_max_wait_ms=10,
        request_timeout_ms=REQUEST_MS,
    )
    publisher = KafkaPublisher(bootstrap_servers, client_id="quill-benchmark", linger_ms=5)
    await consumer.start()
    try:
        consumer.assign([TopicPartition(topic, number) for number in range(partitions)])
        await publisher.start()
        try:
            yield TopicLog(topic, consumer, publisher)
        finally:
            await publisher.stop()
    finally:
        await consumer.stop()
