"""The bill depends on what happened when, never on when anybody heard of it (L3, L12, D1-D5).

Subscriptions, usage-ingest and invoicing together, on their memory stores, over lives of one customer: usage of two
meters by the day, reports that come late, corrections that are taken back, limits, cancellations, trials, closings at any
time, and services that hear of it all much later. Whatever the order, the bill is that of an oracle that knows everything
at the end. The oracle shares no code with the product: it steps from one instant to the next.
"""

import asyncio
import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from quill_contracts import topics
from quill_contracts.catalog_file import CatalogDocument
from quill_contracts.subscriptions import CustomerSnapshot
from quill_contracts.usage import MeterUsage, PeriodUsage, PeriodUsageSnapshot, UsageCut
from quill_invoicing.domain.period_close import Grace
from quill_invoicing.store.memory import MemoryStore
from quill_invoicing.usecases.close_period import close_due_periods
from quill_invoicing.usecases.keep_terms import keep_terms
from quill_invoicing.usecases.record_usage import record_snapshot
from quill_invoicing.wire import from_wire_customer as terms_of
from quill_invoicing.wire import from_wire_period_usage
from quill_pricing.period import BillingPeriod
from quill_subscriptions.domain.billing_update import UpdatePolicy
from quill_subscriptions.domain.commands import (
    CancelSubscription,
    ChangeBillingLimits,
    Register,
    SetTrial,
    StartSubscription,
)
from quill_subscriptions.domain.customer import SubscribedProduct
from quill_subscriptions.domain.entitlements import period_at
from quill_subscriptions.store.memory import Contents, MemorySubscriptionsTransaction
from quill_subscriptions.usecases.catalog import put_catalog_in_force
from quill_subscriptions.usecases.changes import change_customer, create_customer
from quill_subscriptions.usecases.refreshing import refresh_due_customers
from quill_subscriptions.wire.catalog import catalog_from_document
from quill_usage_ingest.domain.completeness import Completeness
from quill_usage_ingest.domain.correction import CorrectionKind, CorrectionOrder, Replacement
from quill_usage_ingest.domain.cut_usage import cut_keys
from quill_usage_ingest.domain.usage_report import UsageReport, UsageWindow
from quill_usage_ingest.ports import Arrival, ArrivedReport
from quill_usage_ingest.store.corrections import MemoryCorrections
from quill_usage_ingest.store.memory import MemoryUsage
from quill_usage_ingest.store.memory_events import MemoryEvents
from quill_usage_ingest.usecases.correct_usage import apply_correction, revert_correction
from quill_usage_ingest.usecases.project_customers import project_customers
from quill_usage_ingest.usecases.record_reports import record_reports
from quill_usage_ingest.wire.subscriptions import from_wire_customer as organization_of

BEGINNING = datetime(2026, 10, 1, tzinfo=UTC)
DAY, HOUR = timedelta(days=1), timedelta(hours=1)
GRACE = Grace(DAY)
COUNTERS = {"events": "event_count_in_period", "recordings": "recording_count_in_period"}
PRODUCTS = {"events": "product_analytics", "recordings": "session_replay"}
METERS = sorted(COUNTERS)
CATALOG = CatalogDocument.model_validate(
    {
        "version": 1,
        "effective_at": datetime(2025, 1, 1, tzinfo=UTC),
        "products": [
            {
                "key": PRODUCTS[meter],
                "name": meter,
                "unit": meter,
                "usage_key": meter,
                "counter": COUNTERS[meter],
                "price_id": f"cent-{meter}",
                "price": {"model": "per_unit", "currency": "usd", "unit_amount": "0.01"},
            }
            for meter in METERS
        ],
    }
)
"""A unit costs a cent: a limit of a dollar is a hundred units, and amounts in cents read as units."""


class Life:
    """One customer; what is published waits until a service hears it."""

    def __init__(self) -> None:
        self.now = BEGINNING
        self.contents, self.usage, self.invoicing = Contents(), MemoryUsage(), MemoryStore()
        self.events, self.corrections = MemoryEvents(), MemoryCorrections()
        self.heard = {"usage-ingest": 0, "invoicing": 0}
        self.snapshots: list[PeriodUsageSnapshot] = []
        self.truth = Oracle()
        self.on_their_way: list[ArrivedReport] = []
        self.applied: list[tuple[str, datetime, str]] = []

    # -- subscriptions -----------------------------------------------------------------------------------------------

    @property
    def tx(self) -> MemorySubscriptionsTransaction:
        return MemorySubscriptionsTransaction(self.contents, UpdatePolicy())

    async def begin(self) -> None:
        await put_catalog_in_force(catalog_from_document(CATALOG), tx=self.tx, now=self.now)
        registration = Register("acme", "Acme", "customer-1", "license-1", "cloud")
        await create_customer(registration, actor="ada", tx=self.tx, now=self.now)

    async def subscribe(self) -> None:
        if not self.truth.subscribed:
            products = tuple(SubscribedProduct(PRODUCTS[meter], 1) for meter in METERS)
            await self.command(StartSubscription(f"sub-{self.now}", products, "quill-rates"))
            self.truth.say(self.now, subscribed=True)

    async def cancel(self) -> None:
        if self.truth.subscribed:
            await self.command(CancelSubscription())
            self.truth.say(self.now, subscribed=False)

    async def limit(self, meter: str, dollars: int | None) -> None:
        customer = (await self.tx.find("acme")).customer
        period = period_at(customer, self.now)
        await self.command(ChangeBillingLimits({PRODUCTS[meter]: dollars}, frozenset(), period.end))
        self.truth.say(self.now, limits={meter: None if dollars is None else 100 * dollars})

    async def trial(self, days: int | None) -> None:
        until = None if days is None else self.now + days * DAY
        await self.command(SetTrial(until))
        self.truth.say(self.now, trial=until)

    async def command(self, command) -> None:
        await change_customer("acme", [command], actor="ada", tx=self.tx, now=self.now)

    async def time_passes(self) -> None:
        await refresh_due_customers(tx=self.tx, now=self.now)

    def published(self, reader: str) -> list[CustomerSnapshot]:
        sent = [each for each in self.contents.published if each.topic == topics.CUSTOMERS.name]
        news, self.heard[reader] = sent[self.heard[reader] :], len(sent)
        return [CustomerSnapshot.from_bytes(each.value) for each in news]

    # -- usage-ingest --------------------------------------------------------------------------------------------------

    async def use(self, meter: str, back: int, units: int) -> None:
        """The source counts more units of a day, now; its report is on its way."""
        day = max(BEGINNING, self.now.replace(hour=0, minute=0, second=0, microsecond=0) - back * DAY)
        counted = self.truth.count(meter, day, units, self.now)
        name = f"{meter} {day} {self.now}"
        report = UsageReport(
            report_id=name,
            organization_id="acme",
            source=f"source-of-{meter}",
            window=UsageWindow(day, day + DAY),
            completeness=Completeness.PARTIAL,
            as_of=self.now,
            counters={COUNTERS[meter]: counted},
            content_hash=hashlib.sha256(name.encode()).digest(),
        )
        body = msgspec.json.encode({"counters": report.counters})
        self.on_their_way.append(ArrivedReport(report, Arrival("kafka", body, "usage.reports.v1", 0, 1)))

    async def report(self, meter: str, back: int, units: int) -> None:
        """The source counts more units of a day, and its report arrives at once."""
        await self.use(meter, back, units)
        await self.deliver(2)

    async def deliver(self, share: int) -> None:
        """Some of the reports arrive; those of one day in the order they were counted, so that no total falls."""
        moving = [each for n, each in enumerate(self.on_their_way) if n % 3 <= share]
        days = {(each.report.source, each.report.window.start) for each in moving}
        arriving = [each for each in self.on_their_way if (each.report.source, each.report.window.start) in days]
        self.on_their_way = [each for each in self.on_their_way if each not in arriving]
        if arriving:
            await record_reports(arriving, tx=self.usage, now=self.now, is_publication_due=False)
            await self.publish()

    async def correct(self, meter: str, back: int, units: int) -> None:
        """A person says what a day of a meter really held."""
        day = max(BEGINNING, self.now.replace(hour=0, minute=0, second=0, microsecond=0) - back * DAY)
        if any(each[:2] == (meter, day) for each in self.applied) or not self.truth.has_heard(meter, day, self):
            return
        order = CorrectionOrder(
            correction_id=f"{meter} {day} {self.now}",
            organization_id="acme",
            kind=CorrectionKind.REPLACE,
            actor="ada",
            reason="counted wrongly",
            source=f"source-of-{meter}",
            start=day,
            end=day + DAY,
            windows=(Replacement(UsageWindow(day, day + DAY), {COUNTERS[meter]: units}),),
        )
        await apply_correction(order, tx=self.usage, events=self.events, corrections=self.corrections, now=self.now)
        self.applied.append((meter, day, order.correction_id))
        self.truth.replaced[meter, day] = (self.now, units)
        await self.publish()

    async def take_back(self, number: int) -> None:
        if not self.applied:
            return
        meter, day, correction_id = self.applied.pop(number % len(self.applied))
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
        del self.truth.replaced[meter, day]
        await self.publish()

    async def usage_ingest_hears(self) -> None:
        await project_customers([organization_of(each) for each in self.published("usage-ingest")], tx=self.usage)
        await self.publish()

    async def publish(self) -> None:
        """The snapshot as of now, as the contract has it."""
        (organization,) = (await self.usage.lock_organizations({"acme"})).values()
        if organization.usage_revision == 0:
            return
        keys = cut_keys("acme", organization.schedules, organization.cuts)
        cuts = await self.usage.cuts(keys)
        periods = [
            PeriodUsage(
                period_start=held.period.start,
                period_end=held.period.end,
                as_of=held.as_of,
                customer_revision=organization.customer_revision,
                meters={
                    meter: MeterUsage(complete=used.complete, partial=used.partial, maximum=used.maximum)
                    for meter in METERS
                    if (used := held.counters.get(COUNTERS[meter])) is not None
                },
                cuts=[
                    UsageCut(at=key.at, used=_by_meter(cuts[key].counters))
                    for key in sorted(keys, key=lambda key: key.at)
                    if key.period == held.period and key in cuts
                ],
            )
            for held in (await self.usage.periods_in_force("acme", newest=None))[-3:]
        ]
        revision = organization.usage_revision
        self.snapshots.append(PeriodUsageSnapshot(organization_id="acme", revision=revision, periods=periods))

    # -- invoicing -----------------------------------------------------------------------------------------------------

    async def invoicing_hears(self) -> None:
        for snapshot in self.published("invoicing"):
            async with self.invoicing.begin() as tx:
                await keep_terms(terms_of(snapshot), tx=tx, now=self.now)
        told, self.snapshots = self.snapshots, []
        for usage in told:
            async with self.invoicing.begin() as tx:
                await record_snapshot(
                    "acme",
                    from_wire_period_usage(usage),
                    revision=usage.revision,
                    tx=tx,
                    now=self.now,
                    report_every=DAY,
                )

    async def close(self) -> None:
        """Invoicing has read its topics to their end before it closes anything; usage-ingest may be behind."""
        await self.invoicing_hears()
        while await close_due_periods(store=self.invoicing, grace=GRACE, now=self.now, limit=10):
            pass

    async def billed(self) -> int:
        async with self.invoicing.begin() as tx:
            invoices = await tx.invoices_of("acme", limit=1_000)
        assert all(invoice.total_minor >= 0 for invoice in invoices)
        return sum(line.amount_minor for invoice in invoices for line in invoice.lines if line.kind != "credit")


def _by_meter(counters: Mapping[str, int]) -> dict[str, int]:
    return {meter: counters[COUNTERS[meter]] for meter in METERS if COUNTERS[meter] in counters}


class Oracle:
    """Everything that happened, and the bill that follows from it by stepping through time."""

    def __init__(self) -> None:
        self.subscribed = False
        self.said: list[tuple[datetime, dict]] = []
        self.counted: dict[tuple[str, datetime], list[tuple[datetime, int]]] = {}
        self.replaced: dict[tuple[str, datetime], tuple[datetime, int]] = {}

    def say(self, at: datetime, **what) -> None:
        self.subscribed = what.get("subscribed", self.subscribed)
        self.said.append((at, what))

    def count(self, meter: str, day: datetime, units: int, at: datetime) -> int:
        """A day's count so far, as its source has it."""
        known = self.counted.setdefault((meter, day), [])
        total = (known[-1][1] if known else 0) + units
        known.append((at, total))
        return total

    def has_heard(self, meter: str, day: datetime, life: Life) -> bool:
        """Only a day of which nothing is on its way can be replaced without a falling total."""
        waiting = {(each.report.source, each.report.window.start) for each in life.on_their_way}
        return (meter, day) in self.counted and (f"source-of-{meter}", day) not in waiting

    def used_before(self, meter: str, period: BillingPeriod, instant: datetime) -> int:
        total = 0
        for (of, day), counts in self.counted.items():
            if of != meter or not period.start <= day < min(period.end, instant):
                continue
            told = [*counts, self.replaced[of, day]] if (of, day) in self.replaced else counts
            whole = told[-1][1]
            early = [quantity for at, quantity in told if at <= instant]
            total += min(whole, early[-1]) if day + DAY > instant and early else whole
        return total

    def state(self, meter: str, instant: datetime) -> tuple[bool, int | None]:
        """Whether the meter is paid at an instant, and its limit."""
        subscribed, limit, trial = False, None, None
        for at, what in self.said:
            if at <= instant:
                subscribed = what.get("subscribed", subscribed)
                limit = what.get("limits", {}).get(meter, limit)
                trial = what.get("trial", trial)
        return subscribed and (trial is None or trial <= instant), limit

    def spans(self, meter: str, period: BillingPeriod) -> list[list]:
        """[start, end, paid, limit]: the period cut where paying began or ended, or a limit fell (D2)."""
        trial_ends = [what["trial"] for _, what in self.said if what.get("trial")]
        spans = [[period.start, period.end, *self.state(meter, period.start)]]
        for at in sorted({at for at, _ in self.said} | set(trial_ends)):
            if not period.start < at < period.end:
                continue
            paid, limit = self.state(meter, at)
            _, _, was_paid, was_limit = spans[-1]
            has_fallen = limit is not None and (was_limit is None or limit < was_limit)
            if paid != was_paid or (paid and has_fallen):
                spans[-1][1] = at
                spans.append([at, period.end, paid, limit])
            spans[-1][3] = limit
        return spans

    def billed(self, meter: str, period: BillingPeriod) -> int:
        """Step from cut to cut. What one cut says also bounds the cuts before it, whichever meter they are for."""
        used, bound = {period.start: 0}, self.used_before(meter, period, period.end)
        for at in sorted({span[1] for each in METERS for span in self.spans(each, period)}, reverse=True):
            bound = used[at] = min(bound, self.used_before(meter, period, at))
        chargeable = greatest = 0
        for start, end, paid, limit in self.spans(meter, period):
            if paid:
                chargeable += used[end] - used[start]
                greatest = max(greatest, chargeable if limit is None else min(chargeable, limit))
        return greatest

    def bill(self, periods: list[BillingPeriod]) -> int:
        return sum(self.billed(meter, period) for period in periods for meter in METERS)


meters = st.sampled_from(METERS)
back = st.sampled_from([0, 0, 0, 1, 1, 2, 9])
limits = st.sampled_from([None, 0, 1, 1, 2])
steps = st.one_of(
    st.tuples(st.just("use"), meters, back, st.integers(1, 90)),
    st.tuples(st.just("report"), meters, back, st.integers(1, 90)),
    st.tuples(st.just("report"), meters, back, st.integers(1, 90)),
    st.tuples(st.just("deliver"), st.integers(0, 2)),
    st.tuples(st.just("subscribe")),
    st.tuples(st.just("cancel")),
    st.tuples(st.just("limit"), meters, limits),
    st.tuples(st.just("limit"), meters, limits),
    st.tuples(st.just("trial"), st.one_of(st.none(), st.integers(1, 9))),
    st.tuples(st.just("correct"), meters, back, st.integers(0, 120)),
    st.tuples(st.just("take_back"), st.integers(0, 3)),
    st.tuples(st.just("usage_ingest_hears")),
    st.tuples(st.just("invoicing_hears")),
    st.tuples(st.just("time_passes")),
    st.tuples(st.just("close")),
)
hours = st.sampled_from([0, 1, 1, 2, 3, 5, 8, 13, 30, 75])
lives = st.tuples(st.booleans(), st.lists(st.tuples(hours, steps), min_size=4, max_size=40))


async def live(begins_subscribed: bool, life: list[tuple[int, tuple]]) -> tuple[int, int]:
    """(cents the oracle bills, cents on the invoices) once everything was heard and closed."""
    one = Life()
    await one.begin()
    if begins_subscribed:
        await one.subscribe()
    await one.usage_ingest_hears()
    await one.invoicing_hears()
    for hours, (step, *given_) in life:
        one.now += hours * HOUR + timedelta(minutes=7, microseconds=11)
        await getattr(one, step)(*given_)
    for _ in range(3):
        one.now += 40 * DAY
        await one.time_passes()
        await one.deliver(2)
        await one.usage_ingest_hears()
        await one.close()
        one.now += HOUR
        await one.close()
    async with one.invoicing.begin() as tx:
        open_period = await tx.open_period("acme")
        periods = [closed.period for closed in await tx.closed_periods_of("acme", limit=1_000)]
    assert open_period is not None
    assert open_period.end + GRACE.length > one.now, "every period that is over is closed"
    return one.truth.bill(periods), await one.billed()


@settings(max_examples=2_000, suppress_health_check=[HealthCheck.too_slow])
@given(lives)
def test_whatever_the_order_the_bill_is_that_of_an_oracle(life):
    expected, billed = asyncio.run(live(*life))
    assert billed == expected
