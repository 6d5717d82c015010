"""Every unit is billed once, whatever the schedule becomes and whenever: usage-ingest and invoicing together (L13, L21).

Both services on their memory stores. A unit costs a cent, so that the invoices' total is the number of units billed.
"""

import asyncio
from datetime import UTC, datetime, timedelta

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st
from quill_contracts.subscriptions import CustomerSnapshot
from quill_invoicing.domain.period_close import Grace
from quill_invoicing.domain.period_usage import PeriodUsage
from quill_invoicing.store.memory import MemoryStore
from quill_invoicing.usecases.close_period import close_due_periods
from quill_invoicing.usecases.keep_terms import keep_terms
from quill_invoicing.usecases.record_usage import record_snapshot, record_usage
from quill_invoicing.wire import from_wire_customer as terms_of
from quill_pricing.period import BillingSchedule, Interval
from quill_usage_ingest.domain.completeness import Completeness
from quill_usage_ingest.domain.usage_report import UsageReport, UsageWindow
from quill_usage_ingest.ports import SNAPSHOT_PERIODS, Arrival, ArrivedReport
from quill_usage_ingest.store.memory import MemoryUsage
from quill_usage_ingest.usecases.project_customers import project_customers
from quill_usage_ingest.usecases.record_reports import record_reports
from quill_usage_ingest.wire.subscriptions import from_wire_customer as organization_of

BEGINNING = datetime(2026, 1, 31, tzinfo=UTC)
DAY = timedelta(days=1)
GRACE = Grace(DAY)
COUNTER = "event_count_in_period"
INTERVALS = ["week", "month", "2 months", "year"]
LATE_MAX = 20
"""Days."""

steps = st.one_of(
    st.tuples(st.just("report"), st.integers(0, LATE_MAX), st.integers(1, 9)),
    st.tuples(st.just("reschedule"), st.integers(0, 45), st.sampled_from(INTERVALS)),
    st.tuples(st.just("usage-ingest hears"), st.just(0), st.just(0)),
    st.tuples(st.just("invoicing hears"), st.just(0), st.just(0)),
    st.tuples(st.just("close"), st.just(0), st.just(0)),
)
lives = st.lists(st.tuples(st.integers(0, 12), steps), min_size=1, max_size=25)


class Life:
    """One customer; what is published waits until somebody hears it."""

    def __init__(self) -> None:
        self.usage, self.invoicing = MemoryUsage(), MemoryStore()
        self.now, self.revision = BEGINNING, 0
        self.schedule = BillingSchedule(BEGINNING, Interval.parse("month"))
        self.cells: dict[datetime, int] = {}
        self.for_usage: list[CustomerSnapshot] = []
        self.for_invoicing: list[CustomerSnapshot] = []
        self.snapshots: list[tuple[int, list[PeriodUsage]]] = []
        self.late: list[PeriodUsage] = []

    def agree(self) -> None:
        self.revision += 1
        period = self.schedule.period_containing(self.now)
        item = {
            "product_key": "product_analytics",
            "usage_key": "events",
            "counter": COUNTER,
            "price_id": "cent",
            "price": {"model": "per_unit", "currency": "usd", "unit_amount": "0.01"},
            "subscribed": True,
            "allowance": 0,
        }
        snapshot = CustomerSnapshot.model_validate(
            {
                "organization_id": "acme",
                "customer_id": "customer-of-acme",
                "revision": self.revision,
                "effective_at": self.now,
                "license_id": "license-1",
                "license_type": "cloud",
                "schedule": {"anchor": self.schedule.anchor, "interval": str(self.schedule.interval)},
                "period": {"start": period.start, "end": period.end},
                "has_active_subscription": True,
                "collection_mode": "quill-rates",
                "items": [item],
            }
        )
        self.for_usage.append(snapshot)
        self.for_invoicing.append(snapshot)

    async def report(self, late: int, units: int) -> None:
        """A whole day is told again, with more units: a cell only grows, so its maximum is what it adds up to."""
        day = max(BEGINNING, self.now.replace(hour=0, minute=0) - late * DAY)
        self.cells[day] = self.cells.get(day, 0) + units
        name = f"{day} {self.now}"
        report = UsageReport(
            report_id=name,
            organization_id="acme",
            source="us",
            window=UsageWindow(day, day + DAY),
            completeness=Completeness.PARTIAL,
            as_of=self.now,
            counters={COUNTER: self.cells[day]},
            content_hash=name.encode(),
        )
        body = msgspec.json.encode({"counters": report.counters})
        arrived = ArrivedReport(report, Arrival("kafka", body, "usage.reports.v1", 0, 1))
        await record_reports([arrived], tx=self.usage, now=self.now, is_publication_due=False)
        await self.publish()

    async def publish(self) -> None:
        (organization,) = (await self.usage.lock_organizations({"acme"})).values()
        revision, followed = organization.usage_revision, organization.customer_revision
        told = {
            held.period: PeriodUsage(held.period, revision, followed, {"events": held.counters[COUNTER].maximum})
            for held in await self.usage.periods_in_force("acme", newest=None)
        }
        newest = sorted(told, key=lambda period: period.start)[-SNAPSHOT_PERIODS:]
        late, self.usage.late = self.usage.late, set()
        self.snapshots.append((revision, [told[period] for period in newest]))
        self.late += [told[key.period] for key in late if key.period in told]

    async def usage_ingest_hears(self) -> None:
        heard, self.for_usage = self.for_usage, []
        await project_customers([organization_of(snapshot) for snapshot in heard], tx=self.usage)
        await self.publish()

    async def invoicing_hears(self) -> None:
        customers, self.for_invoicing = self.for_invoicing, []
        usage, self.snapshots = self.snapshots, []
        for snapshot in customers:
            async with self.invoicing.begin() as tx:
                await keep_terms(terms_of(snapshot), tx=tx, now=self.now)
        late, self.late = self.late, []
        for revision, told in usage:
            async with self.invoicing.begin() as tx:
                await record_snapshot("acme", told, revision=revision, tx=tx, now=self.now, report_every=DAY)
        for period in late:
            async with self.invoicing.begin() as tx:
                await record_usage("acme", [period], tx=tx, now=self.now, report_every=DAY)

    async def close(self) -> None:
        """Invoicing has read its topics to their end before it closes anything; usage-ingest may be behind."""
        await self.invoicing_hears()
        while await close_due_periods(store=self.invoicing, grace=GRACE, now=self.now, limit=10):
            pass

    async def billed(self) -> int:
        async with self.invoicing.begin() as tx:
            return sum(invoice.total_minor for invoice in await tx.invoices_of("acme", limit=1_000))

    async def take(self, step: tuple[str, int, object]) -> None:
        match step:
            case ("report", int(late), int(units)):
                await self.report(late, units)
            case ("reschedule", int(back), str(interval)):
                anchor = self.now.replace(hour=0, minute=0) - back * DAY
                self.schedule = BillingSchedule(anchor, Interval.parse(interval))
                self.agree()
            case ("usage-ingest hears", _, _):
                await self.usage_ingest_hears()
            case ("invoicing hears", _, _):
                await self.invoicing_hears()
            case _:
                await self.close()


async def live(life: list[tuple[int, tuple[str, int, object]]]) -> tuple[int, int]:
    """(units used, cents billed) once everything was heard and closed."""
    one = Life()
    one.agree()
    await one.usage_ingest_hears()
    await one.invoicing_hears()
    for hours, (days, step) in enumerate(life):
        one.now += days * DAY + timedelta(minutes=hours + 1)
        await one.take(step)
    # By the year at last, so that few closings are left; the second invoice bears what was adjusted after the first.
    one.schedule = BillingSchedule(one.now.replace(hour=0, minute=0), Interval.parse("year"))
    one.agree()
    await one.usage_ingest_hears()
    await one.close()
    for _ in range(2):
        one.now += 400 * DAY
        await one.close()
    return sum(one.cells.values()), await one.billed()


@settings(max_examples=200, deadline=None)
@given(lives)
def test_every_unit_is_billed_once_whatever_the_schedule_becomes(life):
    used, billed = asyncio.run(live(life))
    assert billed == used
