"""What usage-ingest takes from Kafka: reports, customers, the catalog."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from quill_contracts.subscriptions import CatalogProduct, CustomerSnapshot
from quill_contracts.topics import CATALOG, CUSTOMERS, USAGE_REPORTS
from quill_runtime.consumption import Consumption, FollowUp, Received, Record, Rejected
from quill_runtime.database import Transaction
from quill_runtime.outbox import Outbox

from quill_usage_ingest.consumers.batch_settlement import BatchSettlement, arrival_of
from quill_usage_ingest.domain.meters import MeteredProduct, MeterMap
from quill_usage_ingest.domain.organization import Organization
from quill_usage_ingest.domain.usage_report import UsageReport
from quill_usage_ingest.ports import ArrivedReport, TooManyCounters
from quill_usage_ingest.store.counter_slots import CounterSlots
from quill_usage_ingest.store.early_reports import forget_early_reports
from quill_usage_ingest.store.heard_sources import HeardSources
from quill_usage_ingest.store.meter_events import PostgresEvents
from quill_usage_ingest.store.parked_reports import replay_parked_reports
from quill_usage_ingest.store.postgres import PostgresUsage
from quill_usage_ingest.store.publication import SnapshotPublication
from quill_usage_ingest.store.stand_ins import StandIns
from quill_usage_ingest.store.team_marks import sweep_all_organizations, sweep_organizations
from quill_usage_ingest.usecases.project_customers import project_customers
from quill_usage_ingest.usecases.project_products import project_products
from quill_usage_ingest.usecases.recompute_events import recompute_events
from quill_usage_ingest.usecases.record_reports import record_reports
from quill_usage_ingest.usecases.recount_counters import begin_counter_recount
from quill_usage_ingest.usecases.recount_events import project_event_meters
from quill_usage_ingest.wire.subscriptions import from_wire_customer, from_wire_product
from quill_usage_ingest.wire.usage_reports import UnstorableText, from_wire_usage_report

BATCH_RECORDS_MAX: Final = 2_000
LANES: Final = 2
"""Transactions at once; more only contend for the two cores this is measured on."""
SPLIT_AT: Final = 200
"""Records of a batch that are worth a transaction for each lane."""


def usage_reports(
    group: str,
    *,
    park_as: str,
    slots: CounterSlots,
    outbox: Outbox,
    publication: SnapshotPublication,
    heard: HeardSources,
) -> Consumption[UsageReport]:
    """Reports in batches: one transaction, then the current snapshot of every organization touched."""
    settlement = BatchSettlement(outbox, publication, park_as)

    async def apply(
        transaction: Transaction, received: Sequence[Received[UsageReport]], now: datetime
    ) -> FollowUp | None:
        arrived = [ArrivedReport(item.message, arrival_of(item.record)) for item in received]
        try:
            outcomes = await record_reports(
                arrived, tx=PostgresUsage(transaction, slots), now=now, is_publication_due=False
            )
        except TooManyCounters as error:
            raise Rejected("too_many_counters", str(error), attribute=f"counters__{error.counter}") from error
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
        topic=USAGE_REPORTS.name,
        group=group,
        decode=decode_usage_report,
        apply=apply,
        max_records=BATCH_RECORDS_MAX,
        lanes=LANES,
        split_at=SPLIT_AT,
    )


def decode_usage_report(record: Record) -> UsageReport:
    """The report in a record.

    Raises:
        Rejected: empty, or a text that cannot be kept.
        pydantic.ValidationError: naming the field.
    """
    try:
        return from_wire_usage_report(_value(record))
    except UnstorableText as error:
        raise Rejected("invalid_message", str(error), attribute=error.attribute) from error


def customers(group: str, *, slots: CounterSlots, outbox: Outbox) -> Consumption[Organization]:
    """Customer snapshots: keep the newest, cut periods with the schedule, let waiting reports in."""

    async def apply(transaction: Transaction, received: Sequence[Received[Organization]], now: datetime) -> None:
        usage, events = PostgresUsage(transaction, slots), PostgresEvents(transaction)
        await events.share_meters()
        projected = await project_customers([item.message for item in received], tx=usage)
        for organization_id in projected.first_seen:
            await replay_parked_reports(transaction, outbox=outbox, organization_id=organization_id, now=now)
        for item in received:
            if item.message.organization_id in projected.first_seen:
                await forget_early_reports(transaction, item.message.license_id)
        await sweep_organizations(transaction.connection, {*projected.first_seen, *projected.rescheduled})
        for organization_id in projected.recut:
            await recompute_events(organization_id, tx=usage, events=events)

    return Consumption(topic=CUSTOMERS.name, group=group, decode=_decode_customer, apply=apply)


def catalog(group: str, *, slots: CounterSlots) -> Consumption[MeteredProduct]:
    """Products: keep what feeds which meter, and count anew what a changed one means for what was received."""

    async def apply(transaction: Transaction, received: Sequence[Received[MeteredProduct]], now: datetime) -> None:
        del now
        usage, events = PostgresUsage(transaction, slots), PostgresEvents(transaction)
        await events.hold_meters()
        before = MeterMap.of(await usage.metered_products())
        await project_products([item.message for item in received], tx=usage)
        after = MeterMap.of(await usage.metered_products())
        await StandIns(transaction, slots).keep(before, after, events=events)
        await begin_counter_recount(tx=usage, recounts=events)
        await project_event_meters(tx=usage, events=events)
        await sweep_all_organizations(transaction.connection)

    return Consumption(topic=CATALOG.name, group=group, decode=_decode_product, apply=apply)


def _decode_customer(record: Record) -> Organization:
    return from_wire_customer(CustomerSnapshot.from_bytes(_value(record)))


def _decode_product(record: Record) -> MeteredProduct:
    return from_wire_product(CatalogProduct.from_bytes(_value(record)))


def _value(record: Record) -> bytes:
    if record.value is None:
        raise Rejected("empty_value", "the record has no value")
    return record.value
