"""Daily reports that came through a queue or a bucket: entered like every other report (L1, L4)."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from quill_contracts.intakes import DailyReport
from quill_contracts.licenses import CLOUD
from quill_contracts.topics import DAILY_REPORTS
from quill_runtime.consumption import Consumption, FollowUp, Received, Record, Rejected
from quill_runtime.database import Transaction
from quill_runtime.outbox import Outbox

from quill_usage_ingest.consumers.batch_settlement import BatchSettlement
from quill_usage_ingest.domain.generation import Generation, ShadowedGenerations
from quill_usage_ingest.domain.meters import MeterMap
from quill_usage_ingest.domain.usage_book import Refusal, Verdict
from quill_usage_ingest.domain.watermark import WatermarkClaim, watermark_of_day
from quill_usage_ingest.ports import Arrival, ArrivedReport, TooManyCounters
from quill_usage_ingest.store.counter_slots import CounterSlots
from quill_usage_ingest.store.generation_marks import mark_comparisons
from quill_usage_ingest.store.heard_sources import HeardSources
from quill_usage_ingest.store.postgres import PostgresUsage
from quill_usage_ingest.store.publication import SnapshotPublication
from quill_usage_ingest.store.sources import PostgresSources
from quill_usage_ingest.usecases.accounts import Accounts
from quill_usage_ingest.usecases.early_reports import admit_early_reports
from quill_usage_ingest.usecases.record_reports import record_reports
from quill_usage_ingest.wire.daily_reports import InvalidDailyReport
from quill_usage_ingest.wire.queued_reports import intake_of, read_queued_report

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
        for source in {item.message.source for item in received if item.message.license_id is None}:
            heard.note(source, now)
        read = _read_batch(received, metered, shadowed)
        await read.admit(usage)
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
        claims = [
            claim
            for entered, queued, outcome in zip(read.counting, read.queued, outcomes, strict=True)
            if not isinstance(outcome, Refusal) and (claim := _claim_of_license(queued, entered)) is not None
        ]
        await PostgresSources(transaction, outbox).add_claims(claims, now=now)
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
    """What a batch holds: reports that count with their records, reports that look on, and what makes no sense.

    ``counting``, ``records`` and ``queued`` have one entry per report.
    """

    counting: list[ArrivedReport] = field(default_factory=list)
    records: list[Record] = field(default_factory=list)
    queued: list[DailyReport] = field(default_factory=list)
    looking_on: list[ArrivedReport] = field(default_factory=list)
    parked: list[tuple[Record, Rejected]] = field(default_factory=list)

    async def admit(self, tx: Accounts) -> None:
        """Put reports of licenses on their accounts, and park those whose license may not speak (L18)."""
        licenses = [queued.license_id for queued in self.queued]
        admitted = await admit_early_reports(list(zip(self.counting, licenses, strict=True)), tx=tx)
        given = list(zip(admitted, self.counting, self.records, self.queued, strict=True))
        self.counting, self.records, self.queued = [], [], []
        for report, refused, record, queued in given:
            if report is not None:
                self.counting.append(report)
                self.records.append(record)
                self.queued.append(queued)
                continue
            detail = f"organization_id: the license {queued.license_id} may not act for this organization"
            subject = refused.report.organization_id
            self.parked.append(
                (record, Rejected("permission_denied", detail, attribute="organization_id", subject=subject))
            )


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
            intake_of(item.message), read.body, record.topic, record.partition, record.offset, read.note or None
        )
        entry = ArrivedReport(read.report, arrival)
        if shadowed.holds(read.report.source, Generation(generation)):
            batch.looking_on.append(entry)
        else:
            batch.counting.append(entry)
            batch.records.append(record)
            batch.queued.append(item.message)
    return batch


def _claim_of_license(queued: DailyReport, entered: ArrivedReport) -> WatermarkClaim | None:
    """What the report says of its source, had it been entered when its license sent it."""
    if queued.license_id is None or queued.license_type == CLOUD:
        return None
    return watermark_of_day(entered.report, actor=f"license:{queued.license_id}")


def _decode(record: Record) -> DailyReport:
    if record.value is None:
        raise Rejected("empty_value", "the record has no value")
    return DailyReport.from_bytes(record.value)
