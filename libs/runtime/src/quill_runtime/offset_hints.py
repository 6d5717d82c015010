"""Telling Kafka how far a consumer is, for people and tools that look at lag there.

The position that counts stands in Postgres (reliability 1.2). Failing to tell means nothing (F7, A6), and telling with
every batch would cost the broker and us as much as a small batch does; so it is done once a second at most.
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import Final

import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from quill_runtime.positions import Ownership, Partition

HINT_SECONDS: Final = 1.0
"""How long Kafka may hold an older offset than Postgres."""
COMMIT_TIMEOUT_SECONDS: Final = 5.0

log = structlog.get_logger(__name__)


class OffsetHints:
    """Commits to Kafka what is settled.

    Args:
        name: of the consumer, for the log.
        owned: the consumer's partitions as they are at any time.
        kafka: the client, while there is one.
    """

    def __init__(
        self, name: str, owned: Mapping[Partition, Ownership], kafka: Callable[[], AIOKafkaConsumer | None]
    ) -> None:
        self._name = name
        self._owned = owned
        self._kafka = kafka
        self._told: dict[Partition, int] = {}
        self._telling: asyncio.Task[None] | None = None

    def soon(self) -> None:
        """Something was settled: see to it that Kafka hears of it."""
        if self._telling is None or self._telling.done():
            self._telling = asyncio.create_task(self._tell_later(), name=f"{self._name}:hints")

    def forget(self) -> None:
        """Partitions were taken away; another member may have told of them when they come back."""
        self._told.clear()

    async def stop(self) -> None:
        """Leave the newest offsets behind."""
        if self._telling is not None:
            self._telling.cancel()
            await asyncio.wait({self._telling})
        await self._tell()

    async def _tell_later(self) -> None:
        await asyncio.sleep(HINT_SECONDS)
        await self._tell()

    async def _tell(self) -> None:
        kafka = self._kafka()
        news = {p: held.settled_offset for p, held in self._owned.items() if held.settled_offset > self._told.get(p, 0)}
        if kafka is None or not news:
            return
        try:
            async with asyncio.timeout(COMMIT_TIMEOUT_SECONDS):
                await kafka.commit({TopicPartition(p.topic, p.number): offset for p, offset in news.items()})
        except (KafkaError, TimeoutError, ValueError) as error:
            log.info("consumer.hint_failed", consumer=self._name, error=repr(error))
        else:
            self._told |= news
