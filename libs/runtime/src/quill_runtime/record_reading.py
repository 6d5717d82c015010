"""What a consumer takes from Kafka's client, judged by who owned the partition in that very step (reliability A8).

A partition whose position is not taken up yet is about to be sought to it, and what was read of it before comes again.
That has to be seen in the same step in which the records leave the client: a moment later the position may be taken up,
and a batch from further on would pass for the next one and skip what lies between.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Final

import structlog
from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.errors import ConsumerStoppedError, KafkaError

from quill_runtime.consumption import Record
from quill_runtime.positions import Ownership, Partition

READ_WAIT_MS: Final = 200
"""How long an idle read waits before it is begun again; a record ends it at once."""

log = structlog.get_logger(__name__)


class RecordReader:
    """Reads batches, for all lanes together or for some.

    Args:
        name: of the consumer, for the log.
        owned: the consumer's partitions as they are at any time.
        lanes: see `Consumption`; a partition belongs to one of them.
        max_records: the most that one read takes.
    """

    def __init__(self, name: str, owned: Mapping[Partition, Ownership], *, lanes: int, max_records: int) -> None:
        self._name = name
        self._owned = owned
        self._lanes = lanes
        self._max_records = max_records
        self._read_under: dict[Partition, Ownership] = {}
        """Under what each partition's records in hand left the client."""

    def lane_of(self, partition: int) -> int:
        return partition % self._lanes

    async def read(self, consumer: AIOKafkaConsumer) -> tuple[ConsumerRecord, ...]:
        """The next batch, or nothing.

        FastStream's own read is followed by a sleep of the same length when it found nothing: deaf half of the time.

        A full batch is often the backlog of one partition, and the other lanes would have nothing to do; so what the
        client holds for them is taken along.
        """
        records = await self._take(consumer, timeout_ms=READ_WAIT_MS)
        if len(records) < self._max_records or self._lanes == 1:
            return records
        taken = {self.lane_of(record.partition) for record in records}
        others = set(range(self._lanes)) - taken
        return records + (await self.read_more(consumer, others, timeout_ms=0) or ())

    async def read_more(
        self, consumer: AIOKafkaConsumer, lanes: Collection[int], *, timeout_ms: int
    ) -> tuple[ConsumerRecord, ...] | None:
        """What else there is for these lanes; None when nothing can come.

        An error is left to the next read of everything, where it comes again: what is in hand has to be done first.
        """
        partitions = [TopicPartition(p.topic, p.number) for p in self._owned if self.lane_of(p.number) in lanes]
        if not partitions:  # naming none would ask for all
            return None
        try:
            return await self._take(consumer, *partitions, timeout_ms=timeout_ms)
        except (KafkaError, ConsumerStoppedError) as error:
            log.info("consumer.lane_read_failed", consumer=self._name, error=repr(error))
            return None

    def ours_to_do(self, raw_records: Sequence[ConsumerRecord]) -> list[Record]:
        """Without what was read under another ownership than today's, which comes again, and what is settled here."""
        records = []
        for raw in raw_records:
            partition = Partition(raw.topic, raw.partition)
            ownership = self._owned.get(partition)
            if ownership is None or ownership is not self._read_under.get(partition):
                continue
            if raw.offset >= ownership.settled_offset:
                records.append(_record(raw))
        return records

    def forget(self) -> None:
        """Partitions were taken away: what was read of them is nobody's."""
        self._read_under.clear()

    async def _take(
        self, consumer: AIOKafkaConsumer, *partitions: TopicPartition, timeout_ms: int
    ) -> tuple[ConsumerRecord, ...]:
        """Records of these partitions, or of all when none is named."""
        batches = await consumer.getmany(*partitions, timeout_ms=timeout_ms, max_records=self._max_records)
        taken: list[ConsumerRecord] = []
        for tp, records in batches.items():
            partition = Partition(tp.topic, tp.partition)
            ownership = self._owned.get(partition)
            if ownership is not None:
                self._read_under[partition] = ownership
                taken += records
        return tuple(taken)


def _record(raw: ConsumerRecord) -> Record:
    headers = {
        str(name): value.decode("utf-8", "replace") if isinstance(value, bytes) else "" for name, value in raw.headers
    }
    return Record(raw.topic, raw.partition, raw.offset, raw.key, raw.value, headers)
