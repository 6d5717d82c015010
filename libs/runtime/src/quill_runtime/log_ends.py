"""Where Kafka's logs end."""

import asyncio
from collections.abc import Sequence
from typing import Final

import structlog
from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaError

from quill_runtime.positions import Partition

TIMEOUT_SECONDS: Final = 15.0
STOP_TIMEOUT_SECONDS: Final = 5.0

log = structlog.get_logger(__name__)


async def read_log_ends(topics: Sequence[str], *, bootstrap_servers: str) -> dict[Partition, int]:
    """The next offset of every partition of these topics that holds records; none is left out but empty ones.

    For rare questions: it keeps no connection.

    Raises:
        aiokafka.errors.KafkaError | TimeoutError: no answer in time.
    """
    # Subscribing in the constructor is the one public way to learn a topic's partitions; without a group all are ours.
    consumer = AIOKafkaConsumer(*topics, bootstrap_servers=bootstrap_servers, group_id=None, enable_auto_commit=False)
    try:
        async with asyncio.timeout(TIMEOUT_SECONDS):
            await consumer.start()
            partitions = list(consumer.assignment())
            begins = await consumer.beginning_offsets(partitions)
            ends = await consumer.end_offsets(partitions)
    finally:
        await _stop(consumer)
    # Records that retention has taken will never be read; waiting for them would be waiting for ever.
    return {Partition(each.topic, each.partition): end for each, end in ends.items() if end > begins[each]}


async def _stop(consumer: AIOKafkaConsumer) -> None:
    try:
        async with asyncio.timeout(STOP_TIMEOUT_SECONDS):
            await consumer.stop()
    except (KafkaError, TimeoutError) as error:
        log.warning("log_ends.stop_failed", error=repr(error))
