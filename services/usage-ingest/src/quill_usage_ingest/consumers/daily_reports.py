"""Daily reports that came through a queue or a bucket: entered like every other report (L1, L4)."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from quill_contracts.intakes import DailyReport
from quill_contracts.topics import DAILY_REPORTS
from quill_runtime import dead_letters
from quill_runtime.consumption import Consumption, FollowUp, Received, Record, Rejected
from quill_runtime.database import Transaction
from quill_runtime.outbox import Outbox

from quill_usage_ingest.domain.meters import MeterMap
from quill_usage_ingest.domain.usage_book import Refusal
from quill_usage_ingest.ports import Arrival, ArrivedReport, TooManyCounters
from quill_usage_ingest.store.counter_slots import CounterSlots
from quill_usage_ingest.store.postgres import PostgresUsage
from quill_usage_ingest.store.publication import SnapshotPublication
from quill_usage_ingest.usecases.record_reports import record_reports
from quill_usage_ingest.wire.daily_reports import InvalidDailyReport
from quill_usage_ingest.wire.queued_reports import INTAKES, read_queued_report

BATCH_RECORDS_MAX: Final = 200
"""A report of many teams opens to megabytes."""
FETCH_WAIT_MS: Final = 10


def daily_reports(
    group: str, *, park_as: str, slots: CounterSlots, outbox: Outbox, publication: SnapshotPublication
) -> Consumption[DailyReport]:
    """Reports in batches; one that cannot be read or entered is parked in the batch's own transaction."""

    async def apply(
        transaction: Transaction, received: Sequence[Received[DailyReport]], now: datetime
    ) -> FollowUp | None:
        usage = PostgresUsage(transaction, slots)
        metered = MeterMap.of(await usage.metered_products()).counters
        parked: list[tuple[Record, Rejected]] = []
        arrived: list[ArrivedReport] = []
        records: list[Record] = []
        for item in received:
            try:
                read = read_queued_report(item.message, metered)
            except InvalidDailyReport as error:
                parked.append((item.record, Rejected(error.code, str(error), attribute=error.attribute)))
                continue
            record = item.record
            intake = INTAKES[item.message.generation]
            arrival = Arrival(intake, read.body, record.topic, record.partition, record.offset, read.note or None)
            arrived.append(ArrivedReport(read.report, arrival))
            records.append(record)
        try:
            outcomes = await record_reports(arrived, tx=usage, now=now, is_publication_due=False)
        except TooManyCounters as error:
            raise Rejected("too_many_counters", str(error), attribute=error.counter) from error
        touched = set()
        for entered, record, outcome in zip(arrived, records, outcomes, strict=True):
            if isinstance(outcome, Refusal):
                refused = Rejected(outcome.code, outcome.detail, attribute=outcome.attribute, subject=outcome.subject)
                parked.append((record, refused))
            else:
                touched.add(entered.report.organization_id)
        for record, rejected in parked:
            await dead_letters.park(
                transaction, outbox=outbox, group=park_as, record=record, rejected=rejected, now=now
            )
        if not touched:
            return None

        async def publish() -> None:
            await publication.publish_current(touched)

        return publish

    return Consumption(
        topic=DAILY_REPORTS.name,
        group=group,
        decode=_decode,
        apply=apply,
        max_records=BATCH_RECORDS_MAX,
        max_wait_ms=FETCH_WAIT_MS,
    )


def _decode(record: Record) -> DailyReport:
    if record.value is None:
        raise Rejected("empty_value", "the record has no value")
    return DailyReport.from_bytes(record.value)
