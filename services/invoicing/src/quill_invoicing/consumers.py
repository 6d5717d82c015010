"""Kafka: customers' terms, period usage, sources of usage."""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

from quill_contracts import topics
from quill_contracts.sources import UsageSource
from quill_contracts.subscriptions import CustomerSnapshot
from quill_contracts.usage import LateUsage, PeriodUsageSnapshot
from quill_pricing.period import InvalidPeriod
from quill_pricing.price import InvalidPrice
from quill_runtime.consumption import Consumption, FollowUp, Received, Record, Rejected
from quill_runtime.database import Transaction

from quill_invoicing.domain.period_usage import PeriodUsage
from quill_invoicing.ports import InvoicingTransaction
from quill_invoicing.usecases.hold_closing import keep_standing
from quill_invoicing.usecases.keep_terms import keep_terms
from quill_invoicing.usecases.record_usage import record_snapshot, record_usage
from quill_invoicing.wire import from_wire_customer, from_wire_late_usage, from_wire_period_usage, from_wire_source

GROUP = "invoicing"

Within = Callable[[Transaction], InvoicingTransaction]


def customers(within: Within) -> Consumption[CustomerSnapshot]:
    """Keep each version of a customer's terms."""

    async def apply(
        transaction: Transaction, received: Sequence[Received[CustomerSnapshot]], now: datetime
    ) -> FollowUp | None:
        tx = within(transaction)
        for each in received:
            organization = each.message.organization_id
            try:
                terms = from_wire_customer(each.message)
            except InvalidPrice as error:
                raise Rejected("invalid_price", str(error), attribute="items__price", subject=organization) from error
            except InvalidPeriod as error:
                raise Rejected("invalid_period", str(error), attribute="period", subject=organization) from error
            await keep_terms(terms, tx=tx, now=now)
        return None

    return Consumption(
        topic=topics.CUSTOMERS.name,
        group=GROUP,
        decode=lambda record: CustomerSnapshot.from_bytes(_value(record)),
        apply=apply,
    )


def period_usage(within: Within, *, report_every: timedelta) -> Consumption[PeriodUsageSnapshot]:
    """Keep what is newly known of each period's usage."""

    async def apply(
        transaction: Transaction, received: Sequence[Received[PeriodUsageSnapshot]], now: datetime
    ) -> FollowUp | None:
        tx = within(transaction)
        for each in received:
            await record_snapshot(
                each.message.organization_id,
                _periods(each.message),
                revision=each.message.revision,
                tx=tx,
                now=now,
                report_every=report_every,
            )
            await tx.know_sources(each.message.organization_id, each.message.sources)
        return None

    return Consumption(
        topic=topics.PERIOD_USAGE.name,
        group=GROUP,
        decode=lambda record: PeriodUsageSnapshot.from_bytes(_value(record)),
        apply=apply,
    )


def late_usage(within: Within, *, report_every: timedelta) -> Consumption[LateUsage]:
    """Keep usage of a period older than those in the snapshot: of a closed one it becomes an adjustment (L13)."""

    async def apply(
        transaction: Transaction, received: Sequence[Received[LateUsage]], now: datetime
    ) -> FollowUp | None:
        tx = within(transaction)
        for each in received:
            organization = each.message.organization_id
            try:
                period = from_wire_late_usage(each.message)
            except InvalidPeriod as error:
                raise Rejected("invalid_period", str(error), attribute="period", subject=organization) from error
            await record_usage(organization, [period], tx=tx, now=now, report_every=report_every)
        return None

    return Consumption(
        topic=topics.LATE_USAGE.name,
        group=GROUP,
        decode=lambda record: LateUsage.from_bytes(_value(record)),
        apply=apply,
    )


def usage_sources(within: Within) -> Consumption[UsageSource]:
    """Keep how far each source of usage has told everything, and look again at closings that wait for it."""

    async def apply(
        transaction: Transaction, received: Sequence[Received[UsageSource]], now: datetime
    ) -> FollowUp | None:
        tx = within(transaction)
        for each in received:
            await keep_standing(from_wire_source(each.message), tx=tx, now=now)
        return None

    return Consumption(
        topic=topics.SOURCES.name,
        group=GROUP,
        decode=lambda record: UsageSource.from_bytes(_value(record)),
        apply=apply,
    )


def _periods(snapshot: PeriodUsageSnapshot) -> list[PeriodUsage]:
    try:
        return from_wire_period_usage(snapshot)
    except InvalidPeriod as error:
        raise Rejected("invalid_period", str(error), attribute="periods", subject=snapshot.organization_id) from error


def _value(record: Record) -> bytes:
    if record.value is None:
        raise Rejected("empty_value", "a snapshot topic has no deletions here")
    return record.value
