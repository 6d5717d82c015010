"""Waiting until what a consumer keeps includes everything that stands in its topic now."""

import asyncio
from typing import Any, Final

import structlog
from aiokafka import TopicPartition
from aiokafka.errors import KafkaConnectionError, KafkaError
from sqlalchemy.exc import DBAPIError

from quill_runtime import positions
from quill_runtime.consumer import Consumer
from quill_runtime.database import Database
from quill_runtime.positions import Partition
from quill_runtime.shared_question import SharedQuestion

WAIT_SECONDS: Final = 0.25
ASK_SECONDS: Final = 5.0
OWN_LOOK_SECONDS: Final = 0.005
OTHERS_LOOK_SECONDS: Final = 0.025
"""Between looks at the positions of other replicas, which stand in Postgres."""

log = structlog.get_logger(__name__)


class ReadUpToNow:
    """Makes an answer include what Kafka confirmed before the question (D16).

    Everybody who asks at the same time shares one request for the topic's end offsets. Partitions that another replica
    of the service reads are included: their positions are in the same database as the data.
    """

    def __init__(self, consumer: Consumer[Any], database: Database) -> None:
        self._consumer = consumer
        self._database = database
        self._ends = SharedQuestion(self._ask)

    async def wait(self) -> bool:
        """Return once everything that stood in the topic at this call is applied, or after `WAIT_SECONDS`.

        Never raises: a caller serves what there is while Kafka is away.

        Returns:
            Whether everything is applied.
        """
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                ends = await self._ends.answer()
                while (look_again := await self._look_again_after(ends)) is not None:  # noqa: ASYNC110 - stands in Postgres too
                    await asyncio.sleep(look_again)
        except (KafkaError, TimeoutError, DBAPIError, OSError) as error:
            log.debug("read_up_to_now.gave_up", topic=self._consumer.consumption.topic, error=repr(error))
            return False
        return True

    async def _ask(self) -> dict[Partition, int]:
        """Where all partitions of the topic end now, also those that other replicas read."""
        kafka, topic = self._consumer.kafka, self._consumer.consumption.topic
        numbers = kafka.partitions_for_topic(topic) if kafka is not None else None
        if kafka is None or not numbers:
            raise KafkaConnectionError(f"{self._consumer.name} is not connected")
        async with asyncio.timeout(ASK_SECONDS):
            ends = await kafka.end_offsets([TopicPartition(topic, number) for number in sorted(numbers)])
        return {Partition(each.topic, each.partition): end for each, end in ends.items()}

    async def _look_again_after(self, ends: dict[Partition, int]) -> float | None:
        """Seconds to wait before the next look, or None when everything up to ``ends`` is applied."""
        own = self._consumer.applied_offsets()
        if any(own[partition] < end for partition, end in ends.items() if partition in own):
            return OWN_LOOK_SECONDS
        others = {partition: end for partition, end in ends.items() if partition not in own and end > 0}
        if not others:
            return None
        async with self._database.begin() as transaction:
            known = await positions.positions(transaction, group=self._consumer.group)
        if all(partition in known and known[partition].applied_offset >= end for partition, end in others.items()):
            return None
        return OTHERS_LOOK_SECONDS
