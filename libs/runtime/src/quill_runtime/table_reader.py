"""A compacted topic as a table in memory: read from the beginning, kept current, ready once caught up.

No group and no offsets: each process reads everything. For small tables (keys, catalogs), not for usage.
"""

import asyncio
from collections.abc import Callable, Mapping

import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from quill_runtime.background import BackgroundTask
from quill_runtime.consumption import Record
from quill_runtime.fetching import PARTIAL_WAIT_MS, hold_whole_fetches
from quill_runtime.shared_question import SharedQuestion

READ_TIMEOUT_MS = 500
RECONNECT_SECONDS = 2.0
CATCH_UP_READ_MS = 50
START_TIMEOUT_SECONDS = 15.0
END_TIMEOUT_SECONDS = 0.5
"""How long a question for the table's present end may take, and the reading up to there."""
LOOK_SECONDS = 0.01

log = structlog.get_logger(__name__)


class NotReadYet(Exception):
    """The table has not been read to its end since the start."""


class TableReader(BackgroundTask):
    """Calls ``on_record`` for every record, oldest first; a record it refuses is logged and passed over."""

    def __init__(self, *, topic: str, bootstrap_servers: str, on_record: Callable[[Record], None]) -> None:
        super().__init__(f"table:{topic}")
        self._topic = topic
        self._bootstrap_servers = bootstrap_servers
        self._on_record = on_record
        self.caught_up = asyncio.Event()
        self._consumer: AIOKafkaConsumer | None = None
        self._positions: dict[TopicPartition, int] = {}
        self._ends = SharedQuestion(self._ask_ends)

    async def check_caught_up(self) -> None:
        """Health check: return once the table was read to its end.

        Raises:
            NotReadYet: it was not.
        """
        if not self.caught_up.is_set():
            raise NotReadYet(f"{self._topic} is still being read")

    async def is_current(self) -> bool:
        """Whether everything that stood in the topic at this call is read, waiting half a second at most.

        False as well while the broker does not answer: what is missing then cannot be known.
        """
        try:
            async with asyncio.timeout(END_TIMEOUT_SECONDS):
                ends = await self._ends.answer()
                while self._consumer is not None:
                    if self._is_read_to(ends):
                        return True
                    await asyncio.sleep(LOOK_SECONDS)
        except (KafkaError, TimeoutError, NotReadYet) as error:
            log.info("table.end_unknown", table=self.name, error=repr(error))
        return False

    async def _ask_ends(self) -> dict[TopicPartition, int]:
        consumer = self._consumer
        if consumer is None:
            raise NotReadYet(f"{self._topic} is not connected")
        async with asyncio.timeout(START_TIMEOUT_SECONDS):
            ends: dict[TopicPartition, int] = await consumer.end_offsets(sorted(consumer.assignment()))
        return ends

    async def _run(self) -> None:
        while True:
            try:
                await self._read()
            except asyncio.CancelledError:
                raise
            except Exception as error:  # noqa: BLE001 - keep what was read, come back when the broker does
                log.warning("table.disconnected", table=self.name, error=repr(error))
                await asyncio.sleep(RECONNECT_SECONDS)

    async def _read(self) -> None:
        # Subscribing in the constructor is the one public way to learn a topic's partitions: `topics()` fills another
        # cluster object than `partitions_for_topic` reads. Without a group every partition is ours.
        consumer = AIOKafkaConsumer(
            self._topic,
            bootstrap_servers=self._bootstrap_servers,
            group_id=None,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            fetch_max_wait_ms=PARTIAL_WAIT_MS,
        )
        try:
            async with asyncio.timeout(START_TIMEOUT_SECONDS):
                await consumer.start()
                hold_whole_fetches(consumer)
                partitions = sorted(consumer.assignment())
                ends = await consumer.end_offsets(partitions)
            self._consumer = consumer
            while True:
                # A position moves on within `getmany`; here, what lies before it has been taken too.
                self._positions = {partition: await consumer.position(partition) for partition in partitions}
                if not self.caught_up.is_set() and self._is_read_to(ends):
                    self.caught_up.set()
                batches = await consumer.getmany(
                    timeout_ms=READ_TIMEOUT_MS if self.caught_up.is_set() else CATCH_UP_READ_MS
                )
                for records in batches.values():
                    for raw in records:
                        self._take(Record(raw.topic, raw.partition, raw.offset, raw.key, raw.value, {}))
        finally:
            self._consumer = None
            try:
                async with asyncio.timeout(START_TIMEOUT_SECONDS):
                    await consumer.stop()
            except (KafkaError, TimeoutError) as error:
                log.warning("table.stop_failed", table=self.name, error=repr(error))

    def _is_read_to(self, ends: Mapping[TopicPartition, int]) -> bool:
        return all(self._positions.get(partition, 0) >= end for partition, end in ends.items())

    def _take(self, record: Record) -> None:
        try:
            self._on_record(record)
        except Exception:
            # One bad row must not hide the others.
            log.exception("table.row_refused", table=self.name, offset=record.offset)
