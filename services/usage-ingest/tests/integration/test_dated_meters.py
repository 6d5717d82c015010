"""Meters that count from a date on, on the memory store and on Postgres (L2, L3)."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from quill_pricing.period import BillingPeriod, BillingSchedule, Interval
from quill_runtime.database import Database
from quill_usage_ingest.domain.correction import CorrectionKind, CorrectionOrder
from quill_usage_ingest.domain.dated_counters import dated_name
from quill_usage_ingest.domain.meters import MeteredProduct, MeterMap
from quill_usage_ingest.domain.organization import CustomerFacts, Organization
from quill_usage_ingest.domain.period_usage import CounterUsage
from quill_usage_ingest.domain.usage_book import Verdict
from quill_usage_ingest.domain.usage_report import WindowKey
from quill_usage_ingest.ports import MeterRecounts, UsageTransaction
from quill_usage_ingest.store.corrections import PostgresCorrections
from quill_usage_ingest.store.counter_slots import CounterSlots
from quill_usage_ingest.store.memory import MemoryUsage
from quill_usage_ingest.store.memory_recounts import MemoryMeterRecounts
from quill_usage_ingest.store.meter_events import PostgresEvents
from quill_usage_ingest.store.meter_recounts import PostgresMeterRecounts
from quill_usage_ingest.store.postgres import PostgresUsage
from quill_usage_ingest.usecases.correct_usage import apply_correction
from quill_usage_ingest.usecases.explain_usage import explain_usage, usage_as_of
from quill_usage_ingest.usecases.project_customers import project_customers
from quill_usage_ingest.usecases.project_products import project_products
from quill_usage_ingest.usecases.rebuild_windows import rebuild_windows
from quill_usage_ingest.usecases.recompute import audit_organizations, recompute_organization
from quill_usage_ingest.usecases.record_reports import record_reports
from quill_usage_ingest.usecases.recount_counters import begin_counter_recount, recount_counters
from quill_usage_ingest.wire.explanation import to_wire_as_of
from quill_usage_ingest.wire.period_usage import to_wire_meters

OCTOBER, NOVEMBER = datetime(2026, 10, 1, tzinfo=UTC), datetime(2026, 11, 1, tzinfo=UTC)
DECEMBER = datetime(2026, 12, 1, tzinfo=UTC)
NOW = datetime(2026, 12, 5, tzinfo=UTC)
TENTH = datetime(2026, 10, 10, tzinfo=UTC)
WHOLE = MeteredProduct("analytics", 1, "events", "events")
FROM_TENTH = MeteredProduct("early", 1, "events_from_tenth", "events", counts_from=TENTH)
FROM_NOVEMBER = MeteredProduct("late", 1, "events_from_november", "events", counts_from=NOVEMBER)

Stores = tuple[UsageTransaction, MeterRecounts]
Begin = Callable[[], AbstractAsyncContextManager[Stores]]


@pytest.fixture(params=["memory", pytest.param("postgres", marks=pytest.mark.integration)])
def begin(request: pytest.FixtureRequest) -> Begin:
    if request.param == "memory":
        memory, held = MemoryUsage(), MemoryMeterRecounts()

        @asynccontextmanager
        async def begin_in_memory() -> AsyncIterator[Stores]:
            async with memory.begin() as tx:
                yield tx, held

        return begin_in_memory
    database: Database = request.getfixturevalue("database")
    slots = CounterSlots()

    @asynccontextmanager
    async def begin() -> AsyncIterator[Stores]:
        async with database.begin() as transaction:
            yield PostgresUsage(transaction, slots), PostgresMeterRecounts(transaction)

    return begin


async def catalog(begin: Begin, *products: MeteredProduct) -> bool:
    async with begin() as (tx, recounts):
        await project_products(products, tx=tx)
        return await begin_counter_recount(tx=tx, recounts=recounts)


async def recounted(begin: Begin, *, limit: int = 50) -> int:
    changed = 0
    while True:
        async with begin() as (tx, recounts):
            found = await recount_counters(tx=tx, recounts=recounts, limit=limit)
        if found is None:
            return changed
        changed += found


async def shown(begin: Begin, organization_id: str = "acme") -> dict[str, dict[str, tuple[int, int, int]]]:
    """Meters by the month of their period: complete, partial, maximum."""
    async with begin() as (tx, _):
        meters = MeterMap.of(await tx.metered_products())
        return {
            f"{usage.period.start:%B}": {
                meter: (held.complete, held.partial, held.maximum)
                for meter, held in to_wire_meters(usage, meters).items()
            }
            for usage in await tx.periods_in_force(organization_id, newest=None)
        }


async def entered(begin: Begin, *arrived) -> None:
    async with begin() as (tx, _):
        await record_reports(arrived, tx=tx, now=NOW, is_publication_due=False)


async def test_one_counter_feeds_meters_from_different_dates(begin, arrived, organization):
    await catalog(begin, WHOLE, FROM_TENTH, FROM_NOVEMBER)
    async with begin() as (tx, _):
        await project_customers([organization()], tx=tx)
    await entered(begin, arrived(day=9, events=100), arrived(day=10, events=20))
    await entered(begin, arrived(day=31, events=3, complete=False), arrived(day=32, events=4000))
    assert await shown(begin) == {
        "October": {"events": (120, 3, 123), "events_from_tenth": (20, 3, 23)},
        "November": {
            "events": (4000, 0, 4000),
            "events_from_tenth": (4000, 0, 4000),
            "events_from_november": (4000, 0, 4000),
        },
    }
    async with begin() as (tx, _):
        assert (await recompute_organization("acme", tx=tx)).repaired == ()


async def test_windows_before_the_date_alone_make_a_zero_and_not_a_gap(begin, arrived, organization):
    await catalog(begin, FROM_TENTH)
    async with begin() as (tx, _):
        await project_customers([organization()], tx=tx)
    await entered(begin, arrived(day=2, events=7))
    assert await shown(begin) == {"October": {"events_from_tenth": (0, 0, 0)}}


async def test_a_falling_report_lowers_the_usage_and_not_the_maximum_from_the_date_on(begin, arrived, organization):
    await catalog(begin, FROM_TENTH)
    async with begin() as (tx, _):
        await project_customers([organization()], tx=tx)
    await entered(begin, arrived(day=5, events=1000), arrived(day=12, events=50))
    await entered(begin, arrived(day=5, at=1, events=10), arrived(day=12, at=1, events=30))
    assert await shown(begin) == {"October": {"events_from_tenth": (30, 0, 50)}}
    await entered(begin, arrived(day=5, at=2, events=1, correction=True))
    assert await shown(begin) == {"October": {"events_from_tenth": (30, 0, 50)}}
    await entered(begin, arrived(day=12, at=2, events=20, correction=True))
    assert await shown(begin) == {"October": {"events_from_tenth": (20, 0, 20)}}


async def test_a_date_named_later_counts_what_was_received_from_it_on(begin, arrived, organization):
    async with begin() as (tx, _):
        await project_customers([organization(name) for name in ("acme", "globex", "initech")], tx=tx)
    for name in ("acme", "globex", "initech"):
        await entered(begin, arrived(name, day=9, events=100), arrived(name, day=10, events=20))
    assert await catalog(begin, FROM_TENTH)
    assert not await catalog(begin, FROM_TENTH)
    assert await shown(begin) == {"October": {}}
    # While the recount is still to come, a report must not begin the number in the middle.
    await entered(begin, arrived("globex", day=10, at=1, events=15))
    assert await shown(begin, "globex") == {"October": {}}
    assert await recounted(begin, limit=2) == 3
    assert await shown(begin) == {"October": {"events_from_tenth": (20, 0, 20)}}
    assert await shown(begin, "globex") == {"October": {"events_from_tenth": (15, 0, 15)}}
    await entered(begin, arrived(day=11, events=5))
    assert await shown(begin) == {"October": {"events_from_tenth": (25, 0, 25)}}
    async with begin() as (tx, _):
        assert await audit_organizations(tx=tx, after="", limit=10) == ("", [])


async def test_another_date_begins_another_number_and_the_old_one_is_dropped(begin, arrived, organization):
    await catalog(begin, FROM_TENTH)
    async with begin() as (tx, _):
        await project_customers([organization()], tx=tx)
    await entered(begin, arrived(day=10, events=20), arrived(day=20, events=3))
    twentieth = datetime(2026, 10, 20, tzinfo=UTC)
    await catalog(begin, MeteredProduct("early", 2, "events_from_tenth", "events", counts_from=twentieth))
    await recounted(begin)
    assert await shown(begin) == {"October": {"events_from_tenth": (3, 0, 3)}}
    async with begin() as (tx, _):
        (period,) = await tx.periods_in_force("acme", newest=None)
        assert set(period.counters) == {"events", dated_name("events", twentieth)}


async def test_a_void_takes_the_window_out_of_the_dated_number_too(begin, arrived, organization):
    await catalog(begin, WHOLE, FROM_TENTH)
    async with begin() as (tx, _):
        await project_customers([organization()], tx=tx)
    await entered(begin, arrived(day=9, events=100), arrived(day=10, events=20), arrived(day=11, events=5))
    async with begin() as (tx, _):
        (kept,) = await tx.kept_reports("acme", window_start=TENTH, after_id=0, limit=10)
        await tx.set_verdict([kept.id], Verdict.VOIDED)
        await rebuild_windows([WindowKey("acme", TENTH, "us")], tx=tx)
    assert await shown(begin) == {"October": {"events": (105, 0, 105), "events_from_tenth": (5, 0, 5)}}


async def test_a_changed_schedule_moves_dated_usage(begin, arrived, organization):
    await catalog(begin, FROM_TENTH)
    async with begin() as (tx, _):
        await project_customers([organization()], tx=tx)
    await entered(begin, arrived(day=8, events=100), arrived(day=12, events=20))
    async with begin() as (tx, _):
        await project_customers([organization(revision=2, anchor=OCTOBER + timedelta(days=6))], tx=tx)
        (period,) = await tx.periods_in_force("acme", newest=None)
        assert period.counters[dated_name("events", TENTH)] == CounterUsage(20, 0, 20)


@pytest.mark.integration
async def test_explanation_and_as_of_agree_with_what_is_published(database: Database, arrived, organization):
    slots = CounterSlots()
    async with database.begin() as transaction:
        tx = PostgresUsage(transaction, slots)
        await project_products([WHOLE, FROM_TENTH, FROM_NOVEMBER], tx=tx)
        await project_customers([organization()], tx=tx)
        reports = [arrived(day=9, events=100), arrived(day=10, events=20), arrived(day=11, events=7, complete=False)]
        await record_reports(reports, tx=tx, now=NOW, is_publication_due=False)
        known = await tx.organization("acme")
        assert known is not None
        period, corrections = BillingPeriod(OCTOBER, NOVEMBER), PostgresCorrections(transaction)
        for start, total in ((None, 127), (TENTH, 27), (NOVEMBER, 0)):
            explained = await explain_usage(known, period, "events", tx=tx, corrections=corrections, counts_from=start)
            assert (explained.explanation.usage.to_date, explained.is_equal) == (total, True)
        meters = MeterMap.of(await tx.metered_products())
        answer = await usage_as_of(
            known, period, NOW, counters=meters.counters, dated=meters.dated, tx=tx, corrections=corrections
        )
        found = to_wire_as_of(answer, meters=meters)["meters"]
        assert {meter: held["to_date"] for meter, held in found.items()} == {"events": 127, "events_from_tenth": 27}
        assert all(held["moved_since"] == 0 for held in found.values())
        (kept,) = await tx.kept_reports("acme", window_start=TENTH, after_id=0, limit=10)
        order = CorrectionOrder(
            correction_id="c1",
            organization_id="acme",
            kind=CorrectionKind.VOID,
            actor="ada@example.org",
            reason="counted twice",
            kept_ids=(kept.id,),
        )
        done = await apply_correction(
            order, tx=tx, events=PostgresEvents(transaction), corrections=corrections, now=NOW
        )
        changed = {each.counter: each.meters for each in done.correction.effects[0].counters}
        assert changed == {"events": ("events",), dated_name("events", TENTH): ("events_from_tenth",)}


DATES = st.sampled_from([OCTOBER + timedelta(days=days) for days in range(0, 70, 7)])
CLAIMS = st.lists(
    st.tuples(st.integers(1, 60), st.integers(0, 3), st.sampled_from(["us", "eu"]), st.booleans(), st.integers(0, 50)),
    min_size=1,
    max_size=25,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(dates=st.lists(DATES, min_size=1, max_size=3, unique=True), claims=CLAIMS, cut=st.integers(0, 25))
async def test_usage_from_a_date_is_the_sum_of_its_cells_and_the_maximum_the_largest_ever(dates, claims, cut, arrived):
    """Whatever is reported in whatever cuts, and whenever the dates become known (L2, L3)."""
    memory, recounts = MemoryUsage(), MemoryMeterRecounts()
    products = [
        MeteredProduct(f"p{index}", 1, f"m{index}", "events", counts_from=start) for index, start in enumerate(dates)
    ]
    schedule = BillingSchedule(OCTOBER, Interval.parse("month"))
    reports = [
        arrived(day=day, at=at, source=source, complete=complete, events=events)
        for day, at, source, complete, events in claims
    ]
    await project_customers([Organization("acme", "l", 1, schedule, CustomerFacts("c", "cloud"))], tx=memory)
    meters = MeterMap.of(products)

    def to_date(start: datetime, period: BillingPeriod) -> int:
        return sum(
            held.cells["events"].quantity
            for key, held in memory.held_windows.items()
            if key.start in period and key.start >= start
        )

    largest: dict[tuple[datetime, BillingPeriod], int] = {}

    def look() -> None:
        for start in dates:
            for period in (BillingPeriod(OCTOBER, NOVEMBER), BillingPeriod(NOVEMBER, DECEMBER)):
                largest[start, period] = max(largest.get((start, period), 0), to_date(start, period))

    for index, report in enumerate(reports):
        if index == min(cut, len(reports) - 1):
            await project_products(products, tx=memory)
            await begin_counter_recount(tx=memory, recounts=recounts)
            while await recount_counters(tx=memory, recounts=recounts, limit=1) is not None:
                pass
            look()
        await record_reports([report], tx=memory, now=NOW, is_publication_due=False)
        if memory.products:
            look()
    for usage in await memory.periods_in_force("acme", newest=None):
        found = to_wire_meters(usage, meters)
        for number, start in enumerate(dates):
            used = found.get(f"m{number}")
            assert (used.complete + used.partial if used else 0) == to_date(start, usage.period)
            if used and usage.period.start < start:
                assert used.maximum == largest[start, usage.period]
    assert await audit_organizations(tx=memory, after="", limit=5) == ("", [])
