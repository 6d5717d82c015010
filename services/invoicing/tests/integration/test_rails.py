"""One behaviour suite for payment rails: the one in memory, and Stripe's SDK against the simulator.

Then the same operations through the runner with answers lost at every step: one customer, one subscription, one invoice,
one payment, whatever crashed (L15).
"""

import itertools
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from quill_invoicing.domain.collection import (
    Attempt,
    ChargedLine,
    MeterReport,
    RailCustomer,
    RailItem,
    SubscriptionOrder,
    final_report_instant,
)
from quill_invoicing.domain.period_close import Grace
from quill_invoicing.gateways.memory import MemoryRail
from quill_invoicing.gateways.stripe import StripeRail
from quill_invoicing.jobs import RailEffects
from quill_invoicing.store.postgres import PostgresStore
from quill_invoicing.usecases.close_period import close_due_periods, hold_drafts
from quill_invoicing.usecases.keep_terms import keep_terms
from quill_invoicing.usecases.record_usage import record_usage
from quill_runtime.database import Database
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
CUSTOMER = RailCustomer("org-1", "Hedgehogs", "ada@b.example")


class MemoryWorld:
    """The rail in memory and the hand that moves its time."""

    def __init__(self, sandbox_time):
        self.rail = MemoryRail()
        self._sandbox_time = sandbox_time

    async def move_to(self, instant, *, period=None):
        self._sandbox_time.set(instant)
        if period is not None:
            for reference in list(self.rail.subscriptions):
                self.rail.end_period(reference, period)

    async def decline_cards(self):
        self.rail.declines.update(self.rail.customers)

    async def lose_answers(self, count):
        self.rail.lose_answers(count)

    async def counts(self):
        paid = [each for each in self.rail.invoices.values() if each.status == "paid"]
        return len(self.rail.customers), len(self.rail.subscriptions), len(self.rail.invoices), len(paid)


class StripeWorld:
    """Stripe's SDK on the simulator, whose clock is the test's clock file."""

    def __init__(self, url, sandbox_time):
        self.rail = StripeRail(api_key="sk_test_x", api_base=url, test_payment_method="pm_card_visa")
        self._url = url
        self._sandbox_time = sandbox_time

    async def move_to(self, instant, *, period=None):
        self._sandbox_time.set(instant)
        await self._control("settle", {})

    async def decline_cards(self):
        for customer in (await self._list("customers"))["data"]:
            await self._control(f"customers/{customer['id']}/fail-next-payments", {"count": 5})

    async def lose_answers(self, count):
        fault = {"kind": "error_500_after_commit", "count": count, "method": "POST"}
        await self._control("faults/requests", fault)

    async def counts(self):
        invoices = (await self._list("invoices"))["data"]
        paid = [each for each in invoices if each["status"] == "paid"]
        customers, subscriptions = await self._list("customers"), await self._list("subscriptions")
        return len(customers["data"]), len(subscriptions["data"]), len(invoices), len(paid)

    async def _control(self, path, body):
        async with httpx.AsyncClient(timeout=10) as client:
            (await client.post(f"{self._url}/_control/{path}", json=body)).raise_for_status()

    async def _list(self, what):
        async with httpx.AsyncClient(timeout=10) as client:
            headers = {"Authorization": "Bearer sk_test_x", "Stripe-Version": "2026-10-28.endive"}
            answer = await client.get(f"{self._url}/v1/{what}?limit=100", headers=headers)
        answer.raise_for_status()
        return answer.json()


@pytest.fixture(params=["memory", "stripe"])
async def world(request, sandbox_time):
    if request.param == "memory":
        yield MemoryWorld(sandbox_time)
        return
    with simulated_stripe(Settings(clock_file=sandbox_time.file)) as url:
        made = StripeWorld(url, sandbox_time)
        yield made
        await made.rail.close()


def order(customer, october, price, existing=None):
    items = (RailItem("product_analytics", "p-1", price),)
    return SubscriptionOrder("org-1", customer, existing, october.start, "month", october, items)


async def subscribed(world, october, make):
    customer = (await world.rail.ensure_customer(CUSTOMER, attempt=Attempt("c", 1))).reference
    price = make.item()["price"]
    made = await world.rail.ensure_subscription(order(customer, october, price), attempt=Attempt("s", 1))
    return customer, made


async def test_the_same_attempt_makes_one_object(world, october, make):
    customers = [await world.rail.ensure_customer(CUSTOMER, attempt=Attempt("c", number)) for number in (1, 1, 2)]
    first = customers[0].reference
    assert {each.reference for each in customers} == {first}
    price = make.item()["price"]
    made = [
        await world.rail.ensure_subscription(order(first, october, price), attempt=Attempt("s", n)) for n in (1, 1, 2)
    ]
    assert made[0] == made[1] == made[2]
    assert made[0].billed_from == october.start  # the rail's period equals ours
    assert (await world.counts())[:2] == (1, 1)


async def test_the_last_report_of_a_period_is_billed_one_line_per_tier(world, october, make):
    customer, subscription = await subscribed(world, october, make)
    final = final_report_instant(october)
    await world.rail.report_usage(MeterReport(customer, "product_analytics", 5, OCTOBER_5), attempt=Attempt("r1", 1))
    await world.move_to(october.end + timedelta(minutes=5), period=october)
    report = MeterReport(customer, "product_analytics", 12_000_000, final)
    for number in (1, 2):
        await world.rail.report_usage(report, attempt=Attempt("r2", number))
    seen = await world.rail.usage_seen(customer=customer, product_key="product_analytics", period=october)
    assert seen == 12_000_000

    draft = await world.rail.find_period_invoice(customer=customer, subscription=subscription.reference, period=october)
    held = await world.rail.hold_draft(draft.reference, attempt=Attempt("h", 1))
    extra = ChargedLine("seats", "3 seats", 3, 6_000, october, "0")
    for number in (1, 2):
        await world.rail.charge_lines(held.reference, [extra], quill_invoice_id="i-1", attempt=Attempt("l", number))
    final_invoice = await world.rail.finalize(held.reference, attempt=Attempt("f", 1))
    assert (final_invoice.status, final_invoice.total_minor) == ("open", 45_300)
    assert (await world.rail.finalize(held.reference, attempt=Attempt("f", 2))).total_minor == 45_300
    paid = await world.rail.pay(held.reference, attempt=Attempt("p", 1))
    assert (paid.status, paid.quill_invoice_id, paid.problem) == ("paid", "i-1", None)
    assert (await world.rail.pay(held.reference, attempt=Attempt("p", 2))).status == "paid"
    lines = await world.rail.lines(held.reference)
    assert [(line.product_key, line.quantity, line.amount_minor) for line in lines] == [
        ("product_analytics", 1_000_000, 0),
        ("product_analytics", 1_000_000, 5_000),
        ("product_analytics", 10_000_000, 34_300),
        ("seats", 3, 6_000),
    ]


async def test_an_invoice_of_our_own_lines_is_made_once(world, october, make):
    customer = (await world.rail.ensure_customer(CUSTOMER, attempt=Attempt("c", 1))).reference
    lines = [ChargedLine("seats", f"line {n}", n, 100, october, str(n)) for n in range(1, 121)]
    made = [
        await world.rail.create_invoice(
            customer=customer, currency="usd", quill_invoice_id="i-1", lines=lines, attempt=Attempt("i", number)
        )
        for number in (1, 2)
    ]
    assert made[0].reference == made[1].reference
    assert (made[1].status, made[1].total_minor) == ("draft", 12_000)
    assert len(await world.rail.lines(made[0].reference)) == 120  # more than one page


async def test_a_refused_card_is_an_answer(world, october, make):
    customer = (await world.rail.ensure_customer(CUSTOMER, attempt=Attempt("c", 1))).reference
    line = ChargedLine("seats", "seats", 1, 100, october, "0")
    made = await world.rail.create_invoice(
        customer=customer, currency="usd", quill_invoice_id="i-1", lines=[line], attempt=Attempt("i", 1)
    )
    await world.rail.finalize(made.reference, attempt=Attempt("f", 1))
    await world.decline_cards()
    refused = await world.rail.pay(made.reference, attempt=Attempt("p", 1))
    assert (refused.status, refused.problem) == ("open", "card_declined")


async def test_an_ended_subscription_stays_ended(world, october, make):
    _, made = await subscribed(world, october, make)
    for number in (1, 2):
        await world.rail.end_subscription(made.reference, attempt=Attempt("e", number))


class Crash(BaseException):
    """The process died between the rail's answer and our record of it."""


async def work_through(database, performers, *, now, crash_before_recording=False):
    """Run every operation that is due; optionally die once before each is recorded."""
    crashed: set[str] = set()

    def dying(conclude):
        async def concluded(transaction, operation, result, at):
            if operation.operation_id not in crashed:
                crashed.add(operation.operation_id)
                raise Crash
            await conclude(transaction, operation, result, at)

        return concluded

    chosen = {
        kind: (perform, dying(conclude) if crash_before_recording else conclude)
        for kind, (perform, conclude) in performers.items()
    }

    class Now:
        def now(self):
            return now

    runner = OperationRunner(name="test", database=database, clock=Now(), performers=chosen)
    at = now
    for _ in range(80):
        try:
            worked = await runner.run_due(at)
        except Crash:
            worked = True
        if not worked:
            async with database.begin() as transaction:
                waiting = await transaction.connection.scalar(
                    text("select min(due_at) from operations where status in ('planned', 'sent')")
                )
            if waiting is None:
                return
            at = max(at, waiting)  # the back-off is waited for in no time


@dataclass
class Books:
    """Our side: the database and the store on it."""

    database: Database
    store: PostgresStore


@pytest.fixture
def books(database, postgres_store):
    return Books(database, postgres_store)


MODES = ("stripe-rates", "quill-rates")
DISASTERS = ("none", "crash_before_recording", "lost_answers")


@pytest.mark.parametrize("trial", list(itertools.product(MODES, DISASTERS)), ids="-".join)
async def test_whatever_crashes_there_is_one_of_each_and_the_invoice_is_paid_and_equal(
    world, books, make, october, trial
):
    mode, disaster = trial
    database, postgres_store = books.database, books.store

    class Clock:
        def now(self):
            return OCTOBER_5

    performers = RailEffects(
        store=postgres_store, within=postgres_store.within, rail=world.rail, clock=Clock()
    ).performers()
    crashing = disaster == "crash_before_recording"
    await world.rail.ensure_customer(RailCustomer("org-0", "warm", None), attempt=Attempt("warm", 1))
    before = await world.counts()
    if disaster == "lost_answers":
        await world.lose_answers(2)
    async with postgres_store.begin() as tx:
        await keep_terms(make.terms(collection_mode=mode), tx=tx, now=OCTOBER_5)
    await work_through(database, performers, now=OCTOBER_5, crash_before_recording=crashing)
    async with postgres_store.begin() as tx:
        observed = [make.used(1, 12_000_000)]
        await record_usage("org-1", observed, tx=tx, now=OCTOBER_5, report_every=timedelta(0))
    await world.move_to(AFTER_OCTOBER, period=october)
    await hold_drafts(store=postgres_store, now=AFTER_OCTOBER, limit=10)
    grace = Grace(timedelta(hours=24))
    await close_due_periods(store=postgres_store, grace=grace, now=AFTER_OCTOBER, limit=10)
    if disaster == "lost_answers":
        await world.lose_answers(3)
    await work_through(database, performers, now=AFTER_OCTOBER, crash_before_recording=crashing)

    async with postgres_store.begin() as tx:
        (invoice,) = await tx.invoices_of("org-1", limit=5)
        (compared,) = await tx.reconciliations(is_equal=None, limit=5)
    assert (invoice.status, invoice.reconciliation, invoice.total_minor) == ("paid", "equal", 39_300)
    assert compared.differences == ()
    after = await world.counts()
    made = tuple(now - then for now, then in zip(after, before, strict=True))
    assert made == (1, int(mode == "stripe-rates"), 1, 1)


@pytest.mark.parametrize("mode", MODES)
async def test_changed_seats_and_a_first_flat_fee_agree_to_the_cent(world, books, make, october, mode):
    """K3, K5: a flat fee without usage, 3 seats until the 31st and 30 after, a cancelled flat plan."""
    fee = make.item(
        allowance=0,
        price={
            "model": "graduated",
            "currency": "usd",
            "tiers": [{"up_to": 5, "flat_amount": "10.00"}, {"unit_amount": "3.00"}],
        },
    )
    licensed = {"usage_key": None, "counter": None, "allowance": 0}
    plan = make.item(**licensed, product_key="plan", price={"model": "flat", "currency": "usd", "amount": "450.00"})

    def seats(quantity):
        price = {"model": "per_unit", "currency": "usd", "unit_amount": "20.00"}
        return make.item(**licensed, product_key="seats", price=price, quantity=quantity)

    versions = [
        (october.start, [fee, plan, seats(3)]),
        (datetime(2026, 10, 16, 12, tzinfo=UTC), [fee, {**plan, "subscribed": False}, seats(3)]),
        (datetime(2026, 10, 31, tzinfo=UTC), [fee, {**plan, "subscribed": False}, seats(30)]),
    ]

    class Clock:
        def now(self):
            return OCTOBER_5

    store = books.store
    performers = RailEffects(store=store, within=store.within, rail=world.rail, clock=Clock()).performers()
    for revision, (at, items) in enumerate(versions, start=1):
        terms = make.terms(revision=revision, effective_at=at, items=items, collection_mode=mode)
        async with store.begin() as tx:
            await keep_terms(terms, tx=tx, now=OCTOBER_5)
        await work_through(books.database, performers, now=OCTOBER_5)
    await world.move_to(AFTER_OCTOBER, period=october)
    await hold_drafts(store=store, now=AFTER_OCTOBER, limit=10)
    await close_due_periods(store=store, grace=Grace(timedelta(hours=24)), now=AFTER_OCTOBER, limit=10)
    await work_through(books.database, performers, now=AFTER_OCTOBER)

    async with store.begin() as tx:
        (invoice,) = await tx.invoices_of("org-1", limit=5)
        (compared,) = await tx.reconciliations(is_equal=None, limit=5)
    assert [(line.product_key, line.amount_minor) for line in invoice.lines] == [
        ("plan", 45_000),
        ("plan", -22_500),
        ("product_analytics", 1_000),
        ("seats", 6_000),
        ("seats", 1_742),
    ]
    assert compared.differences == ()
    assert (invoice.status, invoice.reconciliation, invoice.total_minor) == ("paid", "equal", 31_242)
