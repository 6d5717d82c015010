"""A second way for every permanent failure at Stripe: the invoice is collected, exact, and equal (K8, K10, K18).

The operations run against the simulator and against the rail in memory, on real Postgres.
"""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from quill_invoicing.domain.closing import BilledProduct, ClosedPeriod, LateUsage
from quill_invoicing.domain.collection import Attempt, ChargedLine, RailCustomer
from quill_invoicing.domain.period_close import Grace
from quill_invoicing.domain.period_usage import PeriodUsage
from quill_invoicing.gateways.memory import MemoryRail
from quill_invoicing.gateways.stripe import StripeRail
from quill_invoicing.jobs import RailEffects
from quill_invoicing.usecases.close_period import close_due_periods, hold_drafts
from quill_invoicing.usecases.keep_terms import keep_terms
from quill_invoicing.usecases.record_usage import record_usage
from quill_pricing.period import BillingPeriod
from quill_runtime.operations import OperationRunner
from quill_stripesim.app import Settings
from quill_stripesim.serving import simulated_stripe
from sqlalchemy import text

pytestmark = [
    pytest.mark.integration,
    pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning"),  # the SDK's way of calling httpx
]

OCTOBER_5 = datetime(2026, 10, 5, 12, tzinfo=UTC)
AFTER_OCTOBER = datetime(2026, 11, 2, 1, tzinfo=UTC)
AFTER_NOVEMBER = datetime(2026, 12, 2, 1, tzinfo=UTC)
TOO_LATE = datetime(2026, 12, 7, 12, tzinfo=UTC)
"""More than 35 days after the end of October: Stripe's meter takes nothing of October any more."""
SEATS = {"model": "per_unit", "currency": "usd", "unit_amount": "20"}
SESSION_PRICE = {"model": "per_unit", "currency": "usd", "unit_amount": "0.01"}


@dataclass
class Clock:
    """The clock of our side; the simulator's follows it."""

    sandbox_time: object
    instant: datetime = OCTOBER_5

    def now(self):
        return self.instant


class Memory:
    """The rail in memory."""

    def __init__(self, clock):
        self.rail = MemoryRail()
        self.rail.now = clock.now
        self._clock = clock

    async def move_to(self, instant, *periods):
        self._clock.instant = instant
        for period in periods:
            for reference in list(self.rail.subscriptions):
                self.rail.end_period(reference, period)

    async def archive(self, what):
        if what == "meter":
            self.rail.refused_usage.add("product_analytics")
        self.rail.archived.add("product_analytics")


class Simulated:
    """Stripe's SDK on the simulator."""

    def __init__(self, url, clock):
        self.rail = StripeRail(api_key="sk_test_x", api_base=url, test_payment_method="pm_card_visa")
        self.url = url
        self._clock = clock

    async def move_to(self, instant, *_periods):
        self._clock.instant = instant
        self._clock.sandbox_time.set(instant)
        await self.control("settle", {})

    async def archive(self, what):
        if what == "meter":
            (meter,) = (await self.ask("GET", "billing/meters"))["data"]
            await self.ask("POST", f"billing/meters/{meter['id']}/deactivate")
        elif what == "price":
            (price,) = (await self.ask("GET", "prices"))["data"]
            await self.ask("POST", f"prices/{price['id']}", active="false")
        else:
            await self.ask("POST", "products/quill_product_analytics", active="false")

    async def fail(self, path_prefix, count=1, kind="error_500"):
        fault = {"kind": kind, "count": count, "method": "POST", "path_prefix": path_prefix}
        await self.control("faults/requests", fault)

    async def control(self, path, body):
        async with httpx.AsyncClient(timeout=10) as client:
            (await client.post(f"{self.url}/_control/{path}", json=body)).raise_for_status()

    async def ask(self, method, path, **params):
        headers = {"Authorization": "Bearer sk_test_x", "Stripe-Version": "2026-10-28.endive"}
        async with httpx.AsyncClient(timeout=10, headers=headers) as client:
            url = f"{self.url}/v1/{path}"
            answer = await (client.get(url, params=params) if method == "GET" else client.post(url, data=params))
        answer.raise_for_status()
        return answer.json()


@dataclass
class Books:
    """Our side, and what its operations cost: attempts by kind and the time they waited."""

    database: object
    store: object
    world: object
    clock: Clock
    make: object
    waited: timedelta = timedelta()
    revisions: dict[str, int] = field(default_factory=dict)

    async def agree(self, now=OCTOBER_5, organization="org-1", **changed):
        self.revisions[organization] = self.revisions.get(organization, 0) + 1
        terms = self.make.terms(
            organization_id=organization,
            revision=self.revisions[organization],
            **{"collection_mode": "stripe-rates", **changed},
        )
        async with self.store.begin() as tx:
            await keep_terms(terms, tx=tx, now=now)
        await self.work()

    async def use(self, quantity, *, revision=1, now=OCTOBER_5, organization="org-1", **changed):
        async with self.store.begin() as tx:
            observed = [self.make.used(revision, quantity, **changed)]
            await record_usage(organization, observed, tx=tx, now=now, report_every=timedelta(0))
        await self.work()

    async def close(self, now):
        await hold_drafts(store=self.store, now=now, limit=10)
        await self.work()
        while await close_due_periods(store=self.store, grace=Grace(timedelta(hours=24)), now=now, limit=10):
            pass
        await self.work()

    async def work(self):
        effects = RailEffects(store=self.store, within=self.store.within, rail=self.world.rail, clock=self.clock)
        runner = OperationRunner(name="t", database=self.database, clock=self.clock, performers=effects.performers())
        at = self.clock.now()
        for _ in range(200):
            if await runner.run_due(at):
                continue
            async with self.database.begin() as transaction:
                waiting = await transaction.connection.scalar(
                    text("select min(due_at) from operations where status in ('planned', 'sent')")
                )
            if waiting is None:
                return
            self.waited += max(timedelta(), waiting - at)
            at = max(at, waiting)

    async def invoices(self, organization="org-1"):
        async with self.store.begin() as tx:
            return list(reversed(await tx.invoices_of(organization, limit=20)))

    async def alerts(self):
        async with self.store.begin() as tx:
            return {(each.kind, each.subject) for each in await tx.alerts(include_resolved=False, limit=50)}

    async def failed(self):
        async with self.database.begin() as transaction:
            rows = await transaction.connection.execute(
                text("select operation_id, error from operations where status = 'failed'")
            )
            return [tuple(row) for row in rows]

    async def collected(self, organization="org-1"):
        """Every invoice as (status, comparison, total here, total at the rail), oldest first."""
        found = []
        for each in await self.invoices(organization):
            there = None if each.rail_invoice is None else await self.world.rail.invoice(each.rail_invoice)
            found.append((each.status, each.reconciliation, each.total_minor, there and there.total_minor))
        return found


@pytest.fixture(params=["memory", "stripe"])
async def books(request, sandbox_time, database, postgres_store, make):
    clock = Clock(sandbox_time)
    if request.param == "memory":
        yield Books(database, postgres_store, Memory(clock), clock, make)
        return
    with simulated_stripe(Settings(clock_file=sandbox_time.file)) as url:
        world = Simulated(url, clock)
        yield Books(database, postgres_store, world, clock, make)
        await world.rail.close()


@pytest.fixture
async def at_stripe(sandbox_time, database, postgres_store, make):
    clock = Clock(sandbox_time)
    with simulated_stripe(Settings(clock_file=sandbox_time.file)) as url:
        world = Simulated(url, clock)
        yield Books(database, postgres_store, world, clock, make)
        await world.rail.close()


def november(period):
    return BillingPeriod(period.end, datetime(2026, 12, 1, tzinfo=UTC))


@pytest.mark.parametrize("reported", [0, 3, 5_000_000, 12_000_000])
async def test_a_period_too_old_for_the_meter_is_charged_by_own_lines(books, october, reported):
    """K8: a source was waived after 36 days; what Stripe rated of the running reports is not charged twice."""
    seats = books.make.item(
        product_key="seats", usage_key=None, counter=None, price=SEATS, quota=None, quantity=3, allowance=0
    )
    await books.agree(items=[books.make.item(), seats])
    await books.use(reported)
    await books.world.move_to(TOO_LATE, october, november(october))
    await books.use(12_000_000, revision=2, now=OCTOBER_5 + timedelta(days=20))
    await books.close(TOO_LATE)
    (october_here, *_) = await books.collected()
    assert october_here == ("paid", "equal", 45_300, 45_300)
    assert await books.failed() == []
    expected = set() if reported == 12_000_000 else {("usage_too_old", "product_analytics")}
    assert await books.alerts() == expected


async def test_a_report_refused_for_its_age_is_not_sent_again(at_stripe, october):
    """K8: a retry sent the same rejected timestamp. Our clock is behind Stripe's, so Stripe alone knows the age."""
    await at_stripe.agree()
    await at_stripe.use(5_000_000)
    await at_stripe.world.move_to(TOO_LATE, october)
    at_stripe.clock.instant = AFTER_OCTOBER
    await at_stripe.use(12_000_000, revision=2, now=OCTOBER_5 + timedelta(days=20))
    await at_stripe.close(AFTER_OCTOBER)
    assert await at_stripe.collected() == [("paid", "equal", 39_300, 39_300)]
    assert await at_stripe.alerts() == {("usage_refused", "product_analytics")}
    assert at_stripe.waited < timedelta(minutes=1)


@pytest.mark.parametrize("what", ["price", "product", "meter"])
async def test_who_has_an_archived_price_keeps_it_and_others_are_charged_by_own_lines(books, october, what):
    """K18: nothing fails, nobody is charged wrongly, and the operator is told."""
    await books.agree()
    await books.use(5_000_000)
    await books.world.archive(what)
    await books.agree(organization="org-2", customer_id="cust-2")
    await books.use(12_000_000, organization="org-2")
    await books.world.move_to(AFTER_OCTOBER, october)
    await books.use(12_000_000, revision=2, now=OCTOBER_5 + timedelta(days=20))
    await books.close(AFTER_OCTOBER)
    for organization in ("org-1", "org-2"):
        assert await books.collected(organization) == [("paid", "equal", 39_300, 39_300)], organization
    assert await books.failed() == []
    kinds = {kind for kind, _ in await books.alerts()}
    assert kinds >= {f"{what}_archived"} if isinstance(books.world, Simulated) else {"price_archived"}
    async with books.store.begin() as tx:
        first, second = await tx.rail_account("org-1"), await tx.rail_account("org-2")
    assert set(first.rated_from) == {"product_analytics"}
    assert (second.subscription, dict(second.rated_from)) == (None, {})


async def test_a_price_archived_behind_our_back_is_noticed_when_it_is_refused(at_stripe, october):
    """K18: this process still remembered it as one that can be sold."""
    await at_stripe.agree()
    await at_stripe.agree(organization="org-2", customer_id="cust-2")
    await at_stripe.world.archive("price")
    await at_stripe.agree(organization="org-3", customer_id="cust-3")
    assert await at_stripe.failed() == []
    assert {kind for kind, _ in await at_stripe.alerts()} == {"price_archived"}
    assert len((await at_stripe.world.ask("GET", "prices"))["data"]) == 1, "none was made in its place"
    changed = at_stripe.make.item(quota=5)
    await at_stripe.agree(items=[changed], now=OCTOBER_5 + timedelta(hours=1))
    (subscription, _) = (await at_stripe.world.ask("GET", "subscriptions"))["data"]
    assert len(subscription["items"]["data"]) == 1, "a customer who has it keeps it"


async def test_one_product_that_cannot_be_rated_leaves_the_others_to_stripe(at_stripe, october):
    """K18: recordings are archived before this customer subscribes; events are rated as ever."""
    recordings = at_stripe.make.item(
        product_key="session_replay", usage_key="recordings", price_id="replay", price=SESSION_PRICE, allowance=0
    )
    await at_stripe.agree(organization="org-9", customer_id="cust-9", items=[recordings])
    await at_stripe.world.archive("price")
    await at_stripe.agree(items=[at_stripe.make.item(), recordings])
    async with at_stripe.store.begin() as tx:
        both = PeriodUsage(october, 1, 0, {"events": 12_000_000, "recordings": 300}, {})
        await record_usage("org-1", [both], tx=tx, now=OCTOBER_5, report_every=timedelta(0))
    await at_stripe.world.move_to(AFTER_OCTOBER, october)
    await at_stripe.close(AFTER_OCTOBER)
    assert await at_stripe.collected() == [("paid", "equal", 39_600, 39_600)]
    async with at_stripe.store.begin() as tx:
        assert set((await tx.rail_account("org-1")).rated_from) == {"product_analytics"}


PATHS = [
    "/v1/customers",
    "/v1/products",
    "/v1/billing/meters",
    "/v1/prices",
    "/v1/subscriptions",
    "/v1/billing/meter_events",
    "/v1/invoices",
]


@pytest.mark.parametrize("kind", ["error_500", "error_500_after_commit"])
@pytest.mark.parametrize("path", PATHS)
async def test_a_stored_500_costs_seconds_wherever_it_strikes(at_stripe, october, path, kind):
    """K10: each call has another key after a look-up that found nothing; a second customer is not harmed."""
    await at_stripe.world.fail(path, kind=kind)
    await at_stripe.agree()
    await at_stripe.agree(organization="org-2", customer_id="cust-2")
    await at_stripe.use(12_000_000)
    await at_stripe.world.move_to(AFTER_OCTOBER, october)
    await at_stripe.world.fail(path, kind=kind)
    await at_stripe.close(AFTER_OCTOBER)
    assert await at_stripe.collected() == [("paid", "equal", 39_300, 39_300)]
    assert await at_stripe.failed() == []
    assert at_stripe.waited < timedelta(minutes=1)
    customers = (await at_stripe.world.ask("GET", "customers"))["data"]
    subscriptions = (await at_stripe.world.ask("GET", "subscriptions"))["data"]
    assert (len(customers), len(subscriptions)) == (2, 2)
    assert len((await at_stripe.world.ask("GET", "products"))["data"]) == 1
    assert len((await at_stripe.world.ask("GET", "prices"))["data"]) == 1


async def test_a_price_that_fails_under_several_keys_is_made_within_a_minute(at_stripe):
    """K10: each try has a key that none before it had."""
    await at_stripe.world.fail("/v1/prices", count=3)
    await at_stripe.agree()
    assert await at_stripe.failed() == []
    assert at_stripe.waited <= timedelta(minutes=1)
    async with at_stripe.store.begin() as tx:
        assert (await tx.rail_account("org-1")).subscription is not None


@pytest.mark.parametrize("mode", ["stripe-rates", "quill-rates"])
async def test_an_invoice_of_more_lines_than_stripe_takes_is_collected(at_stripe, october, mode):
    """300 closed days are corrected by a cent each: 250 lines are charged at most, in batches, to the exact total."""
    await at_stripe.agree(collection_mode=mode)
    async with at_stripe.store.begin() as tx:
        for number in range(300):
            start = datetime(2025, 1, 1, tzinfo=UTC) + timedelta(days=number)
            billed = BilledProduct("product_analytics", "events", 0, SESSION_PRICE)
            day = BillingPeriod(start, start + timedelta(days=1))
            await tx.close(ClosedPeriod("org-1", day, OCTOBER_5, 1, None, (billed,)))
            await tx.add_late_usage(LateUsage("org-1", start, "product_analytics", 1, 0, 1 + number % 3, OCTOBER_5))
    await at_stripe.use(12_000_000)
    await at_stripe.world.move_to(AFTER_OCTOBER, october)
    await at_stripe.close(AFTER_OCTOBER)
    assert await at_stripe.collected() == [("paid", "equal", 39_900, 39_900)]
    (invoice,) = await at_stripe.invoices()
    assert len(invoice.lines) == 303
    assert sum(1 for line in await at_stripe.world.rail.lines(invoice.rail_invoice) if line.label) == 250


@pytest.mark.parametrize(
    ("changed", "alerts"),
    [
        ({"organization_name": "H" * 5_000, "email": "ada@b.example"}, set()),
        ({"email": "not an address"}, {("email_refused", "org-1")}),
        ({"email": "a" * 600 + "@b.example"}, {("email_refused", "org-1")}),
        ({"organization_name": "", "email": None}, set()),
    ],
)
async def test_names_and_addresses_never_keep_an_invoice_from_being_collected(at_stripe, october, changed, alerts):
    await at_stripe.agree(**changed)
    await at_stripe.use(12_000_000)
    await at_stripe.world.move_to(AFTER_OCTOBER, october)
    await at_stripe.close(AFTER_OCTOBER)
    assert await at_stripe.collected() == [("paid", "equal", 39_300, 39_300)]
    assert await at_stripe.alerts() == alerts
    (customer,) = (await at_stripe.world.ask("GET", "customers"))["data"]
    assert len(customer["name"] or "") <= 256


async def test_a_customer_of_more_products_than_a_subscription_holds_is_billed_whole(at_stripe, october):
    """20 items are on Stripe's subscription; the rest of the 23 products are own lines of the same invoice."""
    items = [
        at_stripe.make.item(product_key=f"p{number:02}", price_id=f"price-{number}", price=SESSION_PRICE, allowance=0)
        for number in range(23)
    ]
    await at_stripe.agree(items=items)
    await at_stripe.use(100)
    await at_stripe.world.move_to(AFTER_OCTOBER, october)
    await at_stripe.close(AFTER_OCTOBER)
    assert await at_stripe.collected() == [("paid", "equal", 2_300, 2_300)]
    assert await at_stripe.alerts() == {("too_many_items", "org-1")}


async def test_an_invoice_too_large_for_one_payment_stays_open_and_says_why(at_stripe, october):
    fee = at_stripe.make.item(
        product_key="platform",
        usage_key=None,
        counter=None,
        price={"model": "flat", "currency": "usd", "amount": "2500000"},
        quota=None,
        quantity=1,
        allowance=0,
    )
    await at_stripe.agree(items=[fee], collection_mode="quill-rates")
    await at_stripe.world.move_to(AFTER_OCTOBER, october)
    await at_stripe.close(AFTER_OCTOBER)
    (invoice,) = await at_stripe.invoices()
    assert (invoice.status, invoice.reconciliation, invoice.collection_problem) == (
        "finalized",
        "equal",
        "amount_too_large",
    )
    assert (await at_stripe.world.rail.invoice(invoice.rail_invoice)).total_minor == 250_000_000
    assert await at_stripe.failed() == []


async def test_a_credit_lowers_what_stripe_collects_and_never_below_zero(books, october):
    """K4 in stripe-rates: October $393.00 is corrected by -$343.00; November costs $50.00, December $393.00."""
    await books.agree()
    await books.use(12_000_000)
    await books.world.move_to(AFTER_OCTOBER, october)
    await books.close(AFTER_OCTOBER)
    async with books.store.begin() as tx:
        step = LateUsage("org-1", october.start, "product_analytics", 9, 12_000_000, 2_000_000, AFTER_OCTOBER)
        await tx.add_late_usage(step)
    await books.use(2_000_000, revision=3, now=AFTER_OCTOBER + timedelta(days=1), period=november(october))
    await books.world.move_to(AFTER_NOVEMBER, november(october))
    await books.close(AFTER_NOVEMBER)
    december = BillingPeriod(datetime(2026, 12, 1, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC))
    await books.use(12_000_000, revision=4, now=AFTER_NOVEMBER + timedelta(days=1), period=december)
    january = datetime(2027, 1, 2, 1, tzinfo=UTC)
    await books.world.move_to(january, december)
    await books.close(january)
    assert await books.collected() == [
        ("paid", "equal", 39_300, 39_300),
        ("paid", "equal", 0, 0),
        ("paid", "equal", 10_000, 10_000),
    ]
    async with books.store.begin() as tx:
        assert await tx.credit_balance("org-1", "usd") == 0


async def test_usage_that_is_never_counted_is_charged_by_own_lines_in_the_end(books, october, monkeypatch):
    """Stripe takes the report and counts it never; the invoice is exact all the same, and the operator is told."""

    async def nothing(*_args, **_kwargs):
        return 0

    await books.agree()
    await books.use(5_000_000)
    await books.world.move_to(AFTER_OCTOBER, october)
    monkeypatch.setattr(books.world.rail, "usage_seen", nothing)
    monkeypatch.setattr(books.world.rail, "report_usage", nothing)
    await books.use(12_000_000, revision=2, now=OCTOBER_5 + timedelta(days=20))
    await books.close(AFTER_OCTOBER)
    assert await books.collected() == [("paid", "equal", 39_300, 39_300)]
    assert await books.alerts() == {("usage_uncounted", "product_analytics")}


async def test_usage_counted_after_all_is_not_collected_twice(at_stripe, october, monkeypatch):
    """Stripe counts the report when it finalizes, beside our own lines: the payment waits for a person."""

    async def nothing(*_args, **_kwargs):
        return 0

    await at_stripe.agree()
    await at_stripe.world.move_to(AFTER_OCTOBER, october)
    monkeypatch.setattr(at_stripe.world.rail, "usage_seen", nothing)
    await at_stripe.use(12_000_000, now=OCTOBER_5)
    await at_stripe.close(AFTER_OCTOBER)
    (invoice,) = await at_stripe.invoices()
    assert (invoice.status, invoice.reconciliation, invoice.collection_problem) == (
        "finalized",
        "different",
        "amount_differs",
    )
    assert await at_stripe.alerts() >= {("amount_differs", invoice.number)}
    async with at_stripe.database.begin() as transaction:
        await transaction.connection.execute(text("update operations set status = 'planned' where kind = 'collect'"))
    await at_stripe.work()  # our record of it was lost, for example
    assert (await at_stripe.world.rail.invoice(invoice.rail_invoice)).status == "open"


async def test_a_crash_between_own_lines_and_finalizing_charges_them_once(books, october, monkeypatch):
    """K8: the next try finds its lines on the draft, also when the meter would take the report by then."""
    await books.agree()
    await books.use(5_000_000)
    await books.world.move_to(TOO_LATE, october)
    await books.use(12_000_000, revision=2, now=OCTOBER_5 + timedelta(days=20))
    finalize, crashes = books.world.rail.finalize, [ConnectionError("gone"), ConnectionError("gone")]

    async def crashing(invoice, *, attempt):
        if crashes:
            books.clock.instant = AFTER_OCTOBER
            raise crashes.pop()
        return await finalize(invoice, attempt=attempt)

    monkeypatch.setattr(books.world.rail, "finalize", crashing)
    await books.close(TOO_LATE)
    assert (await books.collected())[0] == ("paid", "equal", 39_300, 39_300)


async def test_the_same_lines_again_are_added_once(books, october):
    """A try that ended between two batches: the next adds what is missing."""
    customer = (await books.world.rail.ensure_customer(RailCustomer("o", "n", None), attempt=Attempt("c", 1))).reference
    lines = [ChargedLine("seats", f"line {n}", n, n, october, str(n)) for n in range(1, 251)]
    make = {"customer": customer, "currency": "usd", "quill_invoice_id": "i-1"}
    made = [
        await books.world.rail.create_invoice(**make, lines=lines, attempt=Attempt("i", number))
        for number in (1, 1, 2, 3)
    ]
    assert {each.reference for each in made} == {made[0].reference}
    assert made[-1].total_minor == 250 * 251 // 2
    assert len(await books.world.rail.lines(made[0].reference)) == 250
