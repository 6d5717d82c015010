"""The runner behind every consumer: a FastStream batch subscriber whose positions live in Postgres.

FastStream carries the connection, the loop and the AsyncAPI document; acknowledging, isolating, parking and fencing are
done here, under ``AckPolicy.MANUAL``, because its own policies either commit before the work (F1), after a failure (F2)
or only in part (F3, F4).
"""

import asyncio
import time
from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from typing import Any, Generic, TypeVar, cast

import structlog
from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError
from faststream import AckPolicy
from faststream.kafka import KafkaBroker, KafkaMessage
from faststream.kafka.message import KafkaAckableMessage

from quill_runtime import dead_letters, positions
from quill_runtime.clock import Clock
from quill_runtime.consumption import Consumption, FollowUp, Received, Record, Rejected, rejection_of
from quill_runtime.database import Database, Transaction, is_conflict, is_unavailable
from quill_runtime.fetching import PARTIAL_WAIT_MS, hold_whole_fetches
from quill_runtime.offset_hints import OffsetHints
from quill_runtime.outbox import Outbox
from quill_runtime.positions import Fenced, Ownership, Partition
from quill_runtime.record_reading import READ_WAIT_MS, RecordReader
from quill_runtime.telemetry import BATCH_SECONDS, CONSUMED, CONSUMER_LAG, trace_context, tracer

M = TypeVar("M")

BACK_OFF_SECONDS = (0.1, 0.5, 1.0, 2.0, 5.0)
"""Waits after failures of infrastructure; the last one repeats. Far below ``max_poll_interval``."""
ASSIGN_TIMEOUT_SECONDS = 20.0
SESSION_TIMEOUT_MS = 10_000
HEARTBEAT_MS = 1_000
"""How soon a member hears of a rebalance; also how long one takes at the start."""
STOP_TIMEOUT_SECONDS = 20.0
LANE_WAIT_MS = 20
"""How long a lane that has nothing to do waits for records before it looks whether the others still have."""
FETCH_BYTES_MIN = 1024 * 1024
BYTES_A_RECORD = 4 * 1024
"""What a partition is asked for at once: a batch of everyday records even when all of them stand in one partition."""

log = structlog.get_logger(__name__)


class Consumer(Generic[M]):
    """Runs one `Consumption`."""

    def __init__(
        self,
        consumption: Consumption[M],
        *,
        bootstrap_servers: str,
        database: Database,
        outbox: Outbox,
        clock: Clock,
        group_prefix: str = "",
        instance_id: str | None = None,
    ) -> None:
        self.name = f"consumer:{consumption.topic}"
        self.consumption = consumption
        self.group = group_prefix + consumption.group
        self.kafka_group = f"{self.group}.{consumption.topic}"
        """One Kafka group per topic: members of one group that read different topics would rebalance each other."""
        self._database = database
        self._outbox = outbox
        self._clock = clock
        self._owned: dict[Partition, Ownership] = {}
        self._settled_pending: dict[Partition, int] = {}
        self._reader = RecordReader(
            self.name, self._owned, lanes=consumption.lanes, max_records=consumption.max_records
        )
        self._hints = OffsetHints(self.name, self._owned, lambda: self.kafka)
        self._failures = 0
        self._at_work: set[int] = set()
        """Lanes that have records in hand."""
        self._is_stopping = False
        self._busy = asyncio.Lock()
        self.broker = KafkaBroker(bootstrap_servers, logger=None)
        self._subscriber = self.broker.subscriber(
            consumption.topic,
            batch=True,
            group_id=self.kafka_group,
            group_instance_id=instance_id,
            ack_policy=AckPolicy.MANUAL,
            auto_offset_reset="earliest",
            max_records=consumption.max_records,
            batch_timeout_ms=READ_WAIT_MS,
            fetch_max_wait_ms=PARTIAL_WAIT_MS,
            max_partition_fetch_bytes=max(FETCH_BYTES_MIN, consumption.max_records * BYTES_A_RECORD),
            session_timeout_ms=SESSION_TIMEOUT_MS,
            heartbeat_interval_ms=HEARTBEAT_MS,
            max_poll_interval_ms=300_000,
            parser=self._parse,
            decoder=_no_decoding,
            listener=_Rebalanced(self),
        )
        self._subscriber(self._on_batch)
        self._subscriber.get_msg = self._reader.read  # type: ignore[method-assign]

    # -- lifecycle -------------------------------------------------------------------------------------------------

    @property
    def kafka(self) -> AIOKafkaConsumer | None:
        """The client underneath while running; the watchdog looks at its tasks."""
        return self._subscriber.consumer

    @property
    def is_pausing(self) -> bool:
        """Infrastructure is away and the consumer waits for it, on purpose."""
        return self._failures > 0

    async def start(self) -> None:
        await self.broker.start()
        if self.kafka is not None:
            hold_whole_fetches(self.kafka)

    async def stop(self) -> None:
        """Finish the batch in hand, settle, leave the group; bounded, since correctness never depends on it (A13)."""
        self._is_stopping = True
        try:
            async with asyncio.timeout(STOP_TIMEOUT_SECONDS):
                async with self._busy:
                    await self._flush_settled()
                await self._hints.stop()
                await self.broker.stop()
        except (KafkaError, TimeoutError, OSError) as error:
            log.warning("consumer.stop_failed", consumer=self.name, error=repr(error))

    async def settle(self) -> None:
        """Write down now what is settled, for whoever reads positions; a batch in hand takes it along by itself."""
        if not self._busy.locked():
            async with self._busy:
                await self._flush_settled()

    def lag(self) -> dict[Partition, int]:
        """Records between our reading position and the end of each owned partition, as last heard from the broker."""
        kafka = self.kafka
        if kafka is None:
            return {}
        lags = {}
        for partition, ownership in self._owned.items():
            end = kafka.highwater(TopicPartition(partition.topic, partition.number))
            if end is not None:
                lags[partition] = max(0, end - ownership.applied_offset)
        return lags

    async def ends(self) -> dict[Partition, int]:
        """Where the owned partitions end now, asked of the broker; empty while nothing is owned.

        Raises:
            aiokafka.errors.KafkaError: no answer.
        """
        kafka, owned = self.kafka, list(self._owned)
        if kafka is None or not owned:
            return {}
        ends = await kafka.end_offsets([TopicPartition(partition.topic, partition.number) for partition in owned])
        return {Partition(each.topic, each.partition): end for each, end in ends.items()}

    def applied_offsets(self) -> dict[Partition, int]:
        """Next offset to apply, per owned partition."""
        return {partition: ownership.applied_offset for partition, ownership in self._owned.items()}

    # -- assignment ------------------------------------------------------------------------------------------------

    async def assigned(self, assigned: Iterable[TopicPartition]) -> None:
        """Take ownership in Postgres and seek to where it says, whatever Kafka remembers."""
        kafka = self.kafka
        partitions = [Partition(tp.topic, tp.partition) for tp in assigned]
        if kafka is None or not partitions:
            return
        async with self._database.begin() as transaction:
            taken = await positions.take(transaction, group=self.group, partitions=partitions)
        begins = await kafka.beginning_offsets([TopicPartition(p.topic, p.number) for p in partitions])
        for partition, ownership in taken.items():
            topic_partition = TopicPartition(partition.topic, partition.number)
            start = ownership.settled_offset
            if start < begins[topic_partition]:
                if start > 0:
                    log.error(
                        "consumer.gap",
                        topic=partition.topic,
                        partition=partition.number,
                        expected=start,
                        oldest=begins[topic_partition],
                    )
                start = begins[topic_partition]
            self._owned[partition] = ownership
            kafka.seek(topic_partition, start)

    def revoked(self) -> None:
        """Forget all ownership; a batch in hand will find itself fenced."""
        self._owned.clear()
        self._reader.forget()
        self._settled_pending.clear()
        self._hints.forget()

    # -- one batch -------------------------------------------------------------------------------------------------

    async def _parse(self, records: tuple[ConsumerRecord, ...]) -> KafkaMessage:
        """Build the message without touching header bytes: one that is not UTF-8 must not skip a batch (F6)."""
        return KafkaAckableMessage(
            body=b"",
            headers={},
            batch_headers=[],
            content_type=None,
            raw_message=records,
            message_id=f"{records[0].topic}-{records[0].partition}-{records[0].offset}",
            correlation_id=None,
            reply_to="",
            path={},
            consumer=cast("Any", self.kafka),
        )

    async def _on_batch(self, message: KafkaMessage) -> None:
        async with self._busy:
            records = self._reader.ours_to_do(cast("tuple[ConsumerRecord, ...]", message.raw_message))
            if not records:
                return
            lanes: dict[int, list[Record]] = {0: []}
            if len(records) >= self.consumption.split_at:
                lanes = {lane: [] for lane in range(self.consumption.lanes)}
            for record in records:
                lanes[self._reader.lane_of(record.partition) % len(lanes)].append(record)
            self._at_work = {lane for lane, part in lanes.items() if part}
            if all(await asyncio.gather(*(self._run_lane(lane, part) for lane, part in lanes.items()))):
                self._failures = 0

    async def _run_lane(self, lane: int, records: list[Record]) -> bool:
        """Do a lane's part of a batch, and what comes for it while another lane is at work.

        False when something is to be handed out again.
        """
        while True:
            if records:
                self._at_work.add(lane)
                is_done = await self._drive(records)
                self._at_work.discard(lane)
                if not is_done:
                    return False
            kafka = self.kafka
            if not self._at_work or self._is_stopping or kafka is None:
                return True
            more = await self._reader.read_more(kafka, {lane}, timeout_ms=LANE_WAIT_MS)
            if more is None:
                return True
            records = self._reader.ours_to_do(more)

    async def _drive(self, records: Sequence[Record]) -> bool:
        """One lane's part of a batch; False when it is to be handed out again."""
        started = time.monotonic()
        try:
            await self._apply_and_settle(records)
        except Fenced as fenced:
            log.info("consumer.fenced", consumer=self.name, reason=str(fenced))
            self._seek_back(records)
            return False
        except asyncio.CancelledError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever is away comes back; nothing is skipped meanwhile
            await self._rewind(records, error)
            return False
        BATCH_SECONDS.labels(self.consumption.topic).observe(time.monotonic() - started)
        for partition, lag in self.lag().items():
            CONSUMER_LAG.labels(partition.topic, partition.number).set(lag)
        return True

    async def _apply_and_settle(self, records: Sequence[Record]) -> None:
        now = self._clock.now()
        decoded: list[Received[M]] = []
        refused: list[tuple[Record, Rejected]] = []
        for record in records:
            try:
                decoded.append(Received(self.consumption.decode(record), record))
            except Exception as error:  # noqa: BLE001 - a decoder's failure is the record's, whatever its type
                refused.append((record, rejection_of(error)))
        follow_ups = await self._apply_isolating(decoded, refused, records, now)
        for follow_up in follow_ups:
            await follow_up()
        for record in records:
            partition = Partition(record.topic, record.partition)
            if (ownership := self._owned.get(partition)) is not None:
                ownership.settled_offset = max(ownership.settled_offset, record.offset + 1)
                self._settled_pending[partition] = ownership.settled_offset
        self._hints.soon()

    async def _apply_isolating(
        self,
        decoded: list[Received[M]],
        refused: list[tuple[Record, Rejected]],
        records: Sequence[Record],
        now: datetime,
    ) -> list[FollowUp]:
        """Apply a whole batch in one transaction; when a record spoils it, find the record by halving (L4)."""
        try:
            follow_up = await self._transact(decoded, refused, _ends(records), now)
        except Exception as error:
            if not decoded or not _is_the_records_fault(error):
                raise
            log.warning("consumer.batch_refused", consumer=self.name, records=len(decoded), error=repr(error))
        else:
            return [follow_up] if follow_up else []
        follow_ups, isolated = await self._apply_by_halves(decoded, now)
        await self._transact([], [*refused, *isolated], _ends(records), now)
        return follow_ups

    async def _apply_by_halves(
        self, decoded: list[Received[M]], now: datetime
    ) -> tuple[list[FollowUp], list[tuple[Record, Rejected]]]:
        """Apply what can be applied, in order; what fails alone is at fault. Positions stay until the end."""
        follow_ups: list[FollowUp] = []
        isolated: list[tuple[Record, Rejected]] = []
        stack = [decoded]
        while stack:
            part = stack.pop()
            try:
                follow_up = await self._transact(part, [], {}, now)
            except Exception as error:
                if not _is_the_records_fault(error):
                    raise
                if len(part) == 1:
                    isolated.append((part[0].record, rejection_of(error)))
                else:
                    middle = len(part) // 2
                    stack += [part[middle:], part[:middle]]
            else:
                if follow_up:
                    follow_ups.append(follow_up)
        return follow_ups, isolated

    async def _transact(
        self,
        decoded: Sequence[Received[M]],
        refused: Sequence[tuple[Record, Rejected]],
        applied: dict[Partition, int],
        now: datetime,
    ) -> FollowUp | None:
        # Another lane may be writing the positions of its own partitions.
        is_alone = self.consumption.lanes == 1
        settled = {part: offset for part, offset in self._settled_pending.items() if is_alone or part in applied}
        async with self._database.begin() as transaction:
            follow_up = None
            # Before any effect: it locks the position rows, so that two owners of a partition take turns.
            await positions.advance(transaction, group=self.group, owned=self._owned, applied=applied, settled=settled)
            await self._lock_the_rest(transaction, decoded, {*applied, *settled})
            if decoded:
                with tracer.start_as_current_span(
                    f"apply {self.consumption.topic}", context=trace_context(decoded[0].record.headers)
                ):
                    follow_up = await self.consumption.apply(transaction, decoded, now)
            for record, rejected in refused:
                await dead_letters.park(
                    transaction, outbox=self._outbox, group=self.group, record=record, rejected=rejected, now=now
                )
        for partition, offset in applied.items():
            if (ownership := self._owned.get(partition)) is not None:
                ownership.applied_offset = max(ownership.applied_offset, offset)
        for partition, offset in settled.items():
            if self._settled_pending.get(partition) == offset:
                del self._settled_pending[partition]
        CONSUMED.labels(self.consumption.topic, "applied").inc(len(decoded))
        CONSUMED.labels(self.consumption.topic, "parked").inc(len(refused))
        return follow_up

    async def _lock_the_rest(
        self, transaction: Transaction, decoded: Sequence[Received[M]], held: Collection[Partition]
    ) -> None:
        """A part of a batch moves no position; its rows are locked all the same."""
        touched = {Partition(item.record.topic, item.record.partition) for item in decoded}
        await positions.lock(transaction, group=self.group, owned=self._owned, partitions=touched - set(held))

    async def _flush_settled(self) -> None:
        if not self._settled_pending:
            return
        try:
            async with self._database.begin() as transaction:
                await positions.advance(
                    transaction, group=self.group, owned=self._owned, applied={}, settled=self._settled_pending
                )
            self._settled_pending.clear()
        except Exception as error:  # noqa: BLE001 - it only costs a repeat after the restart
            log.info("consumer.settle_failed", consumer=self.name, error=repr(error))

    async def _rewind(self, records: Sequence[Record], error: Exception) -> None:
        """Wait, then read the same records again, on every partition of the batch (F4)."""
        wait = BACK_OFF_SECONDS[min(self._failures, len(BACK_OFF_SECONDS) - 1)]
        self._failures += 1
        log.warning(
            "consumer.paused",
            consumer=self.name,
            seconds=wait,
            failures=self._failures,
            unavailable=is_unavailable(error),
            error=repr(error),
        )
        await asyncio.sleep(wait)
        self._seek_back(records)

    def _seek_back(self, records: Sequence[Record]) -> None:
        """Have the same records handed out again, on every partition that is still ours."""
        kafka = self.kafka
        if kafka is None:
            return
        starts: dict[Partition, int] = {}
        for record in records:
            partition = Partition(record.topic, record.partition)
            starts[partition] = min(starts.get(partition, record.offset), record.offset)
        for partition, offset in starts.items():
            if partition in self._owned:
                kafka.seek(TopicPartition(partition.topic, partition.number), offset)


class _Rebalanced(ConsumerRebalanceListener):  # type: ignore[misc]
    """Flips ownership only (reliability A10); taking it anew is bounded in time and ends the process if it fails."""

    def __init__(self, consumer: Consumer[Any]) -> None:
        self._consumer = consumer

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        del revoked
        self._consumer.revoked()

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        failures = 0
        while True:
            try:
                async with asyncio.timeout(ASSIGN_TIMEOUT_SECONDS):
                    await self._consumer.assigned(assigned)
            except Exception as error:  # noqa: BLE001 - aiokafka would swallow it and read on from the wrong place
                wait = BACK_OFF_SECONDS[min(failures, len(BACK_OFF_SECONDS) - 1)]
                failures += 1
                log.warning("consumer.assign_failed", consumer=self._consumer.name, error=repr(error), seconds=wait)
                await asyncio.sleep(wait)
            else:
                return


def _is_the_records_fault(error: Exception) -> bool:
    """Not the database's, not another writer's, not a lost assignment: then trying again would fail again."""
    return not (is_unavailable(error) or is_conflict(error) or isinstance(error, Fenced))


async def _no_decoding(message: KafkaMessage) -> object:
    return message.raw_message


def _ends(records: Sequence[Record]) -> dict[Partition, int]:
    ends: dict[Partition, int] = {}
    for record in records:
        partition = Partition(record.topic, record.partition)
        ends[partition] = max(ends.get(partition, 0), record.offset + 1)
    return ends
