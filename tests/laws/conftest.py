"""A world of three services on their memory stores: subscriptions, usage-ingest and invoicing, and one customer.

What one service publishes waits until another hears it, so that a test chooses the order.
"""

import hashlib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from quill_contracts import topics
from quill_contracts.catalog_file import CatalogDocument, load_catalog
from quill_contracts.subscriptions import CustomerSnapshot
from quill_contracts.usage import LateUsage, MeterUsage, PeriodUsage, PeriodUsageSnapshot, UsageCut
from quill_invoicing.domain.invoice import InvoiceLine
from quill_invoicing.domain.period_close import Grace
from quill_invoicing.store.memory import MemoryStore
from quill_invoicing.usecases.close_period import close_due_periods
from quill_invoicing.usecases.keep_terms import keep_terms
from quill_invoicing.usecases.record_usage import record_snapshot, record_usage
from quill_invoicing.wire import from_wire_customer as terms_of
from quill_invoicing.wire import from_wire_late_usage, from_wire_period_usage
from quill_subscriptions.domain.billing_update import UpdatePolicy
from quill_subscriptions.domain.commands import (
    CancelSubscription,
    ChangeBillingLimits,
    CustomerCommand,
    Register,
    SetTrial,
    StartSubscription,
)
from quill_subscriptions.domain.customer import SubscribedProduct
from quill_subscriptions.domain.entitlements import period_at
from quill_subscriptions.store.memory import Contents, MemorySubscriptionsTransaction
from quill_subscriptions.usecases.catalog import put_catalog_in_force
from quill_subscriptions.usecases.changes import change_customer, create_customer
from quill_subscriptions.usecases.reading import view_billing
from quill_subscriptions.usecases.refreshing import refresh_due_customers
from quill_subscriptions.wire.catalog import catalog_from_document
from quill_subscriptions.wire.snapshots import usage_from_wire
from quill_usage_ingest.domain.completeness import Completeness
from quill_usage_ingest.domain.correction import CorrectionKind, CorrectionOrder, Replacement
from quill_usage_ingest.domain.cut_usage import CutKey, CutUsage, cut_keys
from quill_usage_ingest.domain.organization import Organization
from quill_usage_ingest.domain.period_usage import PeriodUsage as CountedPeriod
from quill_usage_ingest.domain.usage_book import PeriodKey, Refusal
from quill_usage_ingest.domain.usage_report import UsageReport, UsageWindow
from quill_usage_ingest.ports import SNAPSHOT_PERIODS, Arrival, ArrivedReport
from quill_usage_ingest.store.corrections import MemoryCorrections
from quill_usage_ingest.store.memory import MemoryUsage
from quill_usage_ingest.store.memory_events import MemoryEvents
from quill_usage_ingest.usecases.correct_usage import apply_correction, revert_correction
from quill_usage_ingest.usecases.project_customers import project_customers
from quill_usage_ingest.usecases.record_reports import record_reports
from quill_usage_ingest.wire.subscriptions import from_wire_customer as organization_of

BEGINNING = datetime(2026, 10, 1, tzinfo=UTC)
DAY = timedelta(days=1)
GRACE = Grace(DAY)
COUNTERS = {"events": "event_count_in_period", "recordings": "recording_count_in_period"}
PRODUCTS = {"events": "product_analytics", "recordings": "session_replay"}
METERS = ("events", "recordings")


class World:
    """One customer since 1 October 2026. A test moves ``now`` and says what happens."""

    def __init__(self) -> None:
        self.now = BEGINNING
        self.contents, self.usage, self.invoicing = Contents(), MemoryUsage(), MemoryStore()
        self.events, self.corrections = MemoryEvents(), MemoryCorrections()
        self.heard = {"usage-ingest": 0, "invoicing": 0}
        self.snapshots: list[PeriodUsageSnapshot] = []
        self.late: list[LateUsage] = []

    # -- subscriptions -----------------------------------------------------------------------------------------------

    @property
    def tx(self) -> MemorySubscriptionsTransaction:
        return MemorySubscriptionsTransaction(self.contents, UpdatePolicy())

    async def begin(self, catalog: CatalogDocument | None = None) -> None:
        """A catalog in force (the example one, unless another is given), and the customer, whom everybody knows."""
        await put_catalog_in_force(catalog_from_document(catalog or load_catalog()), tx=self.tx, now=self.now)
        registration = Register("acme", "Acme", "customer-1", "license-1", "cloud")
        await create_customer(registration, actor="ada", tx=self.tx, now=self.now)
        await self.hear()

    async def command(self, command: CustomerCommand) -> None:
        await change_customer("acme", [command], actor="ada", tx=self.tx, now=self.now)

    async def subscribe(self) -> None:
        products = tuple(SubscribedProduct(PRODUCTS[meter], 1) for meter in METERS)
        await self.command(StartSubscription(f"sub-{self.now}", products, "quill-rates"))

    async def cancel(self) -> None:
        await self.command(CancelSubscription())

    async def limit(self, meter: str, dollars: int | None) -> None:
        customer = (await self.tx.find("acme")).customer
        end = period_at(customer, self.now).end
        await self.command(ChangeBillingLimits({PRODUCTS[meter]: dollars}, frozenset(), end))

    async def trial(self, until: datetime | None) -> None:
        await self.command(SetTrial(until))

    async def time_passes(self) -> None:
        """The job that publishes what time alone has changed."""
        await refresh_due_customers(tx=self.tx, now=self.now)

    async def page_total_minor(self) -> int:
        """What the billing page says is owed so far, knowing the newest usage."""
        if self.snapshots:
            await self.tx.keep_usage([usage_from_wire(self.snapshots[-1])], now=self.now)
        view = await view_billing(await self.tx.find("acme"), tx=self.tx, now=self.now)
        return view.standing.owed.amount_minor

    def published(self, reader: str) -> list[CustomerSnapshot]:
        sent = [each for each in self.contents.published if each.topic == topics.CUSTOMERS.name]
        news, self.heard[reader] = sent[self.heard[reader] :], len(sent)
        return [CustomerSnapshot.from_bytes(each.value) for each in news]

    # -- usage-ingest --------------------------------------------------------------------------------------------------

    def counted(self, meter: str, day: datetime, quantity: int) -> ArrivedReport:
        """What the source of a meter says now of a day."""
        name = f"{meter} {day} {self.now} {quantity}"
        report = UsageReport(
            report_id=name,
            organization_id="acme",
            source=f"source-of-{meter}",
            window=UsageWindow(day, day + DAY),
            completeness=Completeness.PARTIAL,
            as_of=self.now,
            counters={COUNTERS[meter]: quantity},
            content_hash=hashlib.sha256(name.encode()).digest(),
        )
        body = msgspec.json.encode({"counters": report.counters})
        return ArrivedReport(report, Arrival("kafka", body, "usage.reports.v1", 0, 1))

    async def arrive(self, *arriving: ArrivedReport) -> list[Refusal]:
        """Reports arrive now; returns what was refused."""
        outcomes = await record_reports(arriving, tx=self.usage, now=self.now, is_publication_due=False)
        await self.publish()
        return [outcome for outcome in outcomes if isinstance(outcome, Refusal)]

    async def report(self, meter: str, day: datetime, quantity: int) -> list[Refusal]:
        return await self.arrive(self.counted(meter, day, quantity))

    async def replace(self, meter: str, day: datetime, quantity: int) -> str:
        """A person says what a day of a meter really held; returns the correction's id."""
        order = CorrectionOrder(
            correction_id=f"{meter} {day} {self.now}",
            organization_id="acme",
            kind=CorrectionKind.REPLACE,
            actor="ada",
            reason="counted wrongly",
            source=f"source-of-{meter}",
            start=day,
            end=day + DAY,
            windows=(Replacement(UsageWindow(day, day + DAY), {COUNTERS[meter]: quantity}),),
        )
        await apply_correction(order, tx=self.usage, events=self.events, corrections=self.corrections, now=self.now)
        await self.publish()
        return order.correction_id

    async def revert(self, correction_id: str) -> None:
        await revert_correction(
            "acme",
            correction_id,
            actor="bob",
            reason="it was right",
            tx=self.usage,
            events=self.events,
            corrections=self.corrections,
            now=self.now,
        )
        await self.publish()

    async def usage_ingest_hears(self) -> None:
        await project_customers([organization_of(each) for each in self.published("usage-ingest")], tx=self.usage)
        await self.publish()

    async def publish(self) -> None:
        """The newest periods as one snapshot, and older ones that changed one by one, as the contract has them."""
        (organization,) = (await self.usage.lock_organizations({"acme"})).values()
        if organization.usage_revision == 0:
            return
        cuts = await self.usage.cuts(cut_keys("acme", organization.schedules, organization.cuts))
        revision = organization.usage_revision
        in_force = await self.usage.periods_in_force("acme", newest=None)
        newest = [_told(held, organization, cuts) for held in in_force[-SNAPSHOT_PERIODS:]]
        self.snapshots.append(PeriodUsageSnapshot(organization_id="acme", revision=revision, periods=newest))
        for held in in_force:
            if PeriodKey("acme", held.period) in self.usage.late:
                told = _told(held, organization, cuts)
                self.late.append(LateUsage(organization_id="acme", revision=revision, period=told))
        self.usage.late.clear()

    # -- invoicing -----------------------------------------------------------------------------------------------------

    async def invoicing_hears(self) -> None:
        for snapshot in self.published("invoicing"):
            async with self.invoicing.begin() as tx:
                await keep_terms(terms_of(snapshot), tx=tx, now=self.now)
        told, self.snapshots = self.snapshots, self.snapshots[-1:]
        late, self.late = self.late, []
        for usage in told:
            periods = from_wire_period_usage(usage)
            async with self.invoicing.begin() as tx:
                await record_snapshot("acme", periods, revision=usage.revision, tx=tx, now=self.now, report_every=DAY)
        for record in late:
            async with self.invoicing.begin() as tx:
                await record_usage("acme", [from_wire_late_usage(record)], tx=tx, now=self.now, report_every=DAY)

    async def hear(self) -> None:
        await self.usage_ingest_hears()
        await self.invoicing_hears()

    async def close(self) -> None:
        """Invoicing has read its topics to their end before it closes anything; usage-ingest may be behind."""
        await self.invoicing_hears()
        while await close_due_periods(store=self.invoicing, grace=GRACE, now=self.now, limit=10):
            pass

    async def lines(self) -> list[InvoiceLine]:
        """Every line of every invoice, oldest invoice first."""
        async with self.invoicing.begin() as tx:
            invoices = await tx.invoices_of("acme", limit=1_000)
        assert all(invoice.total_minor >= 0 for invoice in invoices)
        return [line for invoice in reversed(invoices) for line in invoice.lines]

    async def billed_minor(self) -> int:
        """Everything billed and given back; what is only kept for later invoices is neither."""
        return sum(line.amount_minor for line in await self.lines() if line.kind != "credit")


def _told(held: CountedPeriod, organization: Organization, cuts: Mapping[CutKey, CutUsage]) -> PeriodUsage:
    own: Sequence[CutKey] = sorted((key for key in cuts if key.period == held.period), key=lambda key: key.at)
    return PeriodUsage(
        period_start=held.period.start,
        period_end=held.period.end,
        as_of=held.as_of,
        customer_revision=organization.customer_revision,
        meters={
            meter: MeterUsage(complete=used.complete, partial=used.partial, maximum=used.maximum)
            for meter, used in _by_meter(held.counters).items()
        },
        cuts=[UsageCut(at=key.at, used=_by_meter(cuts[key].counters)) for key in own],
    )


def _by_meter(counters: Mapping) -> dict:
    return {meter: counters[COUNTERS[meter]] for meter in METERS if COUNTERS[meter] in counters}


@pytest.fixture(scope="session")
def world_class() -> type[World]:
    """For tests that make a world of their own kind."""
    return World


@pytest.fixture
def world() -> World:
    return World()
