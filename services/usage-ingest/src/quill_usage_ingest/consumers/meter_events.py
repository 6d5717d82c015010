"""Meter events from Kafka: kept and counted in batches, one transaction each (L1, L4)."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from quill_contracts.topics import METER_EVENTS
from quill_runtime.consumption import Consumption, FollowUp, Received, Record, Rejected
from quill_runtime.database import Transaction
from quill_runtime.outbox import Outbox

from quill_usage_ingest.consumers.batch_settlement import BatchSettlement, arrival_of
from quill_usage_ingest.domain.meter_event import MeterEvent
from quill_usage_ingest.ports import ArrivedEvent
from quill_usage_ingest.store.counter_slots import CounterSlots
from quill_usage_ingest.store.heard_sources import HeardSources
from quill_usage_ingest.store.meter_events import PostgresEvents
from quill_usage_ingest.store.postgres import PostgresUsage
from quill_usage_ingest.store.publication import SnapshotPublication
from quill_usage_ingest.usecases.record_events import record_events
from quill_usage_ingest.wire.meter_events import InvalidEvent, from_wire_event

BATCH_RECORDS_MAX: Final = 1_000


def meter_events(
    group: str,
    *,
    park_as: str,
    slots: CounterSlots,
    outbox: Outbox,
    publication: SnapshotPublication,
    heard: HeardSources,
) -> Consumption[MeterEvent]:
    """Events in batches; one that cannot be kept is parked in the batch's own transaction, under ``park_as``.

    Afterwards the current snapshot of every organization touched is sent, repeats included: a crash between commit and
    publishing is healed by the redelivery.
    """
    settlement = BatchSettlement(outbox, publication, park_as)

    async def apply(
        transaction: Transaction, received: Sequence[Received[MeterEvent]], now: datetime
    ) -> FollowUp | None:
        outcomes = await record_events(
            [ArrivedEvent(item.message, arrival_of(item.record)) for item in received],
            tx=PostgresUsage(transaction, slots),
            events=PostgresEvents(transaction),
            now=now,
            is_publication_due=False,
        )
        for source in {item.message.source for item in received}:
            heard.note(source, now)
        return await settlement.settle(
            transaction,
            [
                (item.record, item.message.organization_id, outcome)
                for item, outcome in zip(received, outcomes, strict=True)
            ],
            now=now,
        )

    return Consumption(
        topic=METER_EVENTS.name,
        group=group,
        decode=decode_meter_event,
        apply=apply,
        max_records=BATCH_RECORDS_MAX,
    )


def decode_meter_event(record: Record) -> MeterEvent:
    """The event in a record.

    Raises:
        Rejected: naming the attribute.
    """
    if record.value is None:
        raise Rejected("empty_value", "the record has no value")
    try:
        return from_wire_event(record.value)
    except InvalidEvent as error:
        raise Rejected(error.code, str(error), attribute=error.attribute) from error
