"""Daily reports that came through a queue or a bucket: entered like every other report (L1, L4)."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from quill_contracts.intakes import DailyReport
from quill_contracts.topics import DAILY_REPORTS
from quill_runtime.consumption import Consumption, FollowUp, Received, Record, Rejected
from quill_runtime.database import Transaction
from quill_runtime.outbox import Outbox

from quill_usage_ingest.consumers.batch_settlement import BatchSettlement
from quill_usage_ingest.domain.generation import Generation, ShadowedGenerations
from quill_usage_ingest.domain.meters import MeterMap
from quill_usage_ingest.domain.usage_book import Refusal, Verdict
from quill_usage_ingest.ports import Arrival, ArrivedReport, TooManyCounters
from quill_usage_ingest.store.counter_slots import CounterSlots
from quill_usage_ingest.store.generation_marks import mark_comparisons
from quill_usage_ingest.store.heard_sources import HeardSources
from quill_usage_ingest.store.postgres import PostgresUsage
from quill_usage_ingest.store.publication import SnapshotPublication
from quill_usage_ingest.usecases.record_reports import record_reports
from quill_usage_ingest.wire.daily_reports import InvalidDailyReport
from quill_usage_ingest.wire.queued_reports import INTAKES, read_queued_report

BATCH_RECORDS_MAX: Final = 200
"""A report of many teams opens to megabytes."""


def daily_reports(
    group: str,
    *,
    park_as: str,
    slots: CounterSlots,
    outbox: Outbox,
    publication: SnapshotPublication,
    shadowed: ShadowedGenerations,
    heard: HeardSources,
) -> Consumption[DailyReport]:
    """Reports in batches; one that cannot be read or entered is parked in the batch's own transaction.

    One of a shadowed generation is kept, so that it can be compared, and changes nothing else.
    """
    settlement = BatchSettlement(outbox, publication, park_as)

    async def apply(
        transaction: Transaction, received: Sequence[Received[DailyReport]], now: datetime
    ) -> FollowUp | None:
        usage = PostgresUsage(transaction, slots)
        metered = MeterMap.of(await usage.metered_products()).counters
        for source in {item.message.source for item in received}:
            heard.note(source, now)
        read = _read_batch(received, metered, shadowed)
        try:
            outcomes = await record_reports(read.counting, tx=usage, now=now, is_publication_due=False)
        except TooManyCounters as error:
            raise Rejected("too_many_counters", str(error), attribute=error.counter) from error
        await usage.keep_reports([(entry, Verdict.SHADOWED) for entry in read.looking_on], now=now)
        kept = [entry.report for entry in read.looking_on]
        kept += [
            entered.report
            for entered, outcome in zip(read.counting, outcomes, strict=True)
            if not isinstance(outcome, Refusal)
        ]
        await mark_comparisons(transaction, kept)
        for record, rejected in read.parked:
            await settlement.park(transaction, record, rejected, now=now)
        return await settlement.settle(
            transaction,
            [
                (record, entered.report.organization_id, outcome)
                for entered, record, outcome in zip(read.counting, read.records, outcomes, strict=True)
            ],
            now=now,
        )

    return Consumption(
        topic=DAILY_REPORTS.name,
        group=group,
        decode=_decode,
        apply=apply,
        max_records=BATCH_RECORDS_MAX,
    )


@dataclass(slots=True)
class _Batch:
    """What a batch holds: reports that count with their records, reports that look on, and what makes no sense."""

    counting: list[ArrivedReport] = field(default_factory=list)
    records: list[Record] = field(default_factory=list)
    looking_on: list[ArrivedReport] = field(default_factory=list)
    parked: list[tuple[Record, Rejected]] = field(default_factory=list)


def _read_batch(
    received: Sequence[Received[DailyReport]], metered: Collection[str], shadowed: ShadowedGenerations
) -> _Batch:
    batch = _Batch()
    for item in received:
        record, generation = item.record, item.message.generation
        try:
            read = read_queued_report(item.message, metered)
        except InvalidDailyReport as error:
            batch.parked.append((record, Rejected(error.code, str(error), attribute=error.attribute)))
            continue
        arrival = Arrival(
            INTAKES[generation], read.body, record.topic, record.partition, record.offset, read.note or None
        )
        entry = ArrivedReport(read.report, arrival)
        if shadowed.holds(read.report.source, Generation(generation)):
            batch.looking_on.append(entry)
        else:
            batch.counting.append(entry)
            batch.records.append(record)
    return batch


def _decode(record: Record) -> DailyReport:
    if record.value is None:
        raise Rejected("empty_value", "the record has no value")
    return DailyReport.from_bytes(record.value)
