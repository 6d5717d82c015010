"""What was used before each cut, on both stores: by time of use, whatever arrives when (L3, L12, D4, D5)."""

import random
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from quill_contracts.topics import LATE_USAGE, PERIOD_USAGE
from quill_contracts.usage import LateUsage, PeriodUsageSnapshot
from quill_runtime.database import Database
from quill_usage_ingest.domain.correction import CorrectionKind, CorrectionOrder
from quill_usage_ingest.domain.cut_usage import CutKey, cut_keys
from quill_usage_ingest.domain.event_meter import Aggregation, EventMeter
from quill_usage_ingest.domain.meters import MeteredProduct
from quill_usage_ingest.ports import Arrival, ArrivedEvent, Corrections, EventTransaction, UsageTransaction
from quill_usage_ingest.store.corrections import MemoryCorrections, PostgresCorrections
from quill_usage_ingest.store.counter_slots import CounterSlots
from quill_usage_ingest.store.memory import MemoryUsage
from quill_usage_ingest.store.memory_events import MemoryEvents
from quill_usage_ingest.store.meter_events import PostgresEvents
from quill_usage_ingest.store.postgres import PostgresUsage
from quill_usage_ingest.store.publication import SnapshotPublication
from quill_usage_ingest.usecases.correct_usage import apply_correction, revert_correction
from quill_usage_ingest.usecases.count_event_cuts import count_event_cuts_of
from quill_usage_ingest.usecases.project_customers import project_customers
from quill_usage_ingest.usecases.project_products import project_products
from quill_usage_ingest.usecases.record_events import record_events
from quill_usage_ingest.usecases.record_reports import record_reports
from quill_usage_ingest.usecases.recount_events import project_event_meters
from quill_usage_ingest.wire.meter_events import from_wire_event

OCTOBER = datetime(2026, 10, 1, tzinfo=UTC)
NOW = datetime(2026, 11, 5, tzinfo=UTC)
NOON_15 = datetime(2026, 10, 15, 12, tzinfo=UTC)

Stores = tuple[UsageTransaction, EventTransaction, Corrections]
Begin = Callable[[], AbstractAsyncContextManager[Stores]]


@pytest.fixture(params=["memory", pytest.param("postgres", marks=pytest.mark.integration)])
def begin(request: pytest.FixtureRequest) -> Begin:
    if request.param == "memory":
        usage, events, corrections = MemoryUsage(), MemoryEvents(), MemoryCorrections()

        @asynccontextmanager
        async def in_memory() -> AsyncIterator[Stores]:
            async with usage.begin(), events.begin():
                yield usage, events, corrections

        return in_memory
    database: Database = request.getfixturevalue("database")
    slots = CounterSlots()

    @asynccontextmanager
    async def in_postgres() -> AsyncIterator[Stores]:
        async with database.begin() as transaction:
            yield PostgresUsage(transaction, slots), PostgresEvents(transaction), PostgresCorrections(transaction)

    return in_postgres


async def heard(begin: Begin, customer, *cuts: datetime, revision: int = 2) -> None:
    async with begin() as (tx, events, _):
        told = await project_customers([replace(customer(revision=revision), cuts=cuts)], tx=tx)
        for organization_id in told.recut:
            standing = (await tx.lock_standings({organization_id}))[organization_id]
            await count_event_cuts_of(organization_id, standing, tx=tx, events=events)


async def recorded(begin: Begin, *arriving) -> None:
    async with begin() as (tx, _, _):
        await record_reports(arriving, tx=tx, now=NOW, is_publication_due=False)


async def before(begin: Begin) -> dict[datetime, dict[str, int]]:
    """By cut: what each counter and each event meter had used before it."""
    async with begin() as (tx, _, _):
        organization = await tx.organization("acme")
        assert organization is not None
        keys = cut_keys("acme", organization.schedules, organization.cuts)
        held = await tx.cuts(keys)
        return {key.at: {**held[key].counters, **held[key].events} for key in keys if key in held}


async def revision(begin: Begin) -> int:
    async with begin() as (tx, _, _):
        return (await tx.organization("acme")).usage_revision


@pytest.fixture
async def known(begin: Begin, organization) -> Begin:
    async with begin() as (tx, _, _):
        await project_customers([organization()], tx=tx)
    return begin


def counted_at(arrived, hour: int, **counters):
    """A partial report of 15 October, counted at an hour of that day (25: one in the night after)."""
    return arrived(day=15, at=hour - 24, complete=False, **counters)


@pytest.mark.parametrize(
    ("hours", "expected"),
    [
        ({9: 40, 12: 55, 18: 90}, 55),  # the newest report up to the cut says what lies before it
        ({12: 55}, 55),  # a report at the very instant of the cut lies before it
        ({13: 70, 18: 90}, 90),  # without one the whole day lies before the cut
        ({12: 55, 24: 50}, 55),  # a total that falls keeps what was published (D5)
    ],
)
async def test_a_day_that_a_cut_splits_is_split_by_its_own_reports(known, arrived, organization, hours, expected):
    """K2: hours of 15 October at which its source counted, and how much."""
    await recorded(known, arrived(day=14, events=100), *(counted_at(arrived, h, events=n) for h, n in hours.items()))
    await heard(known, organization, NOON_15)
    assert await before(known) == {NOON_15: {"events": 100 + expected}}


async def test_it_does_not_matter_whether_reports_or_the_cut_come_first(known, arrived, organization):
    await heard(known, organization, NOON_15)
    await recorded(known, arrived(day=14, events=100))
    await recorded(known, counted_at(arrived, 12, events=55), arrived(day=16, events=7))
    await recorded(known, counted_at(arrived, 24, events=90))
    assert await before(known) == {NOON_15: {"events": 155}}


async def test_only_what_lies_before_a_cut_moves_it(known, arrived, organization):
    await recorded(known, arrived(day=14, events=100))
    await heard(known, organization, NOON_15)
    at_first = await revision(known)
    await recorded(known, arrived(day=16, events=7))
    assert await before(known) == {NOON_15: {"events": 100}}
    await recorded(known, arrived(day=2, events=5))
    assert await before(known) == {NOON_15: {"events": 105}}
    assert await revision(known) == at_first + 2


async def test_a_new_cut_is_a_new_revision_even_if_no_number_changed(known, arrived, organization):
    """D3: a closing waits until usage follows the customer's terms, so that must be published."""
    await recorded(known, arrived(day=20, events=7))
    at_first = await revision(known)
    await heard(known, organization, NOON_15)
    assert await revision(known) == at_first + 1
    await heard(known, organization, NOON_15, revision=3)
    assert await revision(known) == at_first + 1


async def test_a_cut_at_the_start_of_a_period_needs_no_number(known, arrived, organization):
    await recorded(known, arrived(day=1, events=7))
    await heard(known, organization, OCTOBER)
    assert await before(known) == {}


async def test_cuts_are_kept_when_later_snapshots_tell_of_them_no_more(known, arrived, organization):
    """K7's kind: usage comes up to 400 days late, a snapshot tells of four periods."""
    await heard(known, organization, NOON_15)
    await heard(known, organization, datetime(2027, 3, 9, tzinfo=UTC), revision=3)
    await recorded(known, arrived(day=14, events=100))
    assert (await before(known))[NOON_15] == {"events": 100}


@pytest.mark.parametrize(
    ("told", "greatest"),
    [
        ([(14, 100), (14, 80)], (100, 100)),  # a day that falls keeps its greatest total
        ([(14, 100), (14, 80), (13, 20)], (100, 100)),  # another day makes up for it
        ([(14, 100), (14, 80), (13, 50)], (130, 130)),  # and for more
        ([(14, 100), (20, 50), (20, 10)], (100, 150)),  # a fall behind the cut leaves the cut alone
    ],
)
async def test_totals_that_fall_without_a_correction(known, arrived, organization, told, greatest):
    """D5: published usage never falls by itself, before the cut and in the period (L3)."""
    await heard(known, organization, NOON_15)
    for n, (day, events) in enumerate(told):
        await recorded(known, arrived(day=day, at=n, events=events))
    assert await before(known) == {NOON_15: {"events": greatest[0]}}
    async with known() as (tx, _, _):
        (usage,) = await tx.periods_in_force("acme", newest=1)
        assert usage.counters["events"].maximum == greatest[1]


async def state(begin: Begin):
    async with begin() as (tx, _, _):
        periods = {usage.period.start: dict(usage.counters) for usage in await tx.periods_in_force("acme", newest=None)}
    return periods, await before(begin)


async def test_a_void_changes_what_it_names_and_taking_it_back_restores_all(known, arrived, organization):
    """K1: also maxima of totals that fell, in the period and before the cut."""
    await heard(known, organization, NOON_15)
    await recorded(known, arrived(day=14, events=900, recordings=9))
    await recorded(known, arrived(day=14, at=1, events=600), arrived(day=20, events=5))
    at_first = await state(known)
    assert at_first[1] == {NOON_15: {"events": 900, "recordings": 9}}
    async with known() as (tx, events, corrections):
        kept = await tx.kept_reports("acme", window_start=None, after_id=0, limit=10)
        order = CorrectionOrder("c1", "acme", CorrectionKind.VOID, "ada", "counted twice", kept_ids=(kept[0].id,))
        await apply_correction(order, tx=tx, events=events, corrections=corrections, now=NOW)
    periods, cuts = await state(known)
    assert cuts == {NOON_15: {"events": 600}}
    assert periods[OCTOBER]["events"].maximum == 605
    async with known() as (tx, events, corrections):
        await revert_correction(
            "acme", "c1", actor="bob", reason="it was right", tx=tx, events=events, corrections=corrections, now=NOW
        )
    assert await state(known) == at_first


def call(event_id: str, at: datetime, n: int) -> ArrivedEvent:
    encoded = (
        f'{{"specversion":"1.0","id":"{event_id}","source":"gateway","type":"call","subject":"acme",'
        f'"time":"{at.isoformat()}","data":{{"n":{n}}}}}'
    ).encode()
    return ArrivedEvent(from_wire_event(encoded), Arrival("kafka", encoded, "usage.meter-events.v1", 0, 1))


async def catalog(begin: Begin, **parts) -> None:
    meters = [
        EventMeter(each.value, "call", each, None if each is Aggregation.COUNT else "n", **parts.get(each.value, {}))
        for each in Aggregation
    ]
    async with begin() as (tx, events, _):
        products = [MeteredProduct(f"p_{each.usage_key}", 1, each.usage_key, None, None, each) for each in meters]
        await project_products(products, tx=tx)
        await project_event_meters(tx=tx, events=events)


EVENTS = [
    ("a", OCTOBER + timedelta(days=3), 9),
    ("b", OCTOBER + timedelta(days=5), 5),
    ("c", NOON_15 + timedelta(minutes=10), 9),
    ("d", NOON_15 + timedelta(minutes=20), 2),
    ("e", NOON_15 + timedelta(minutes=40), 30),
    ("f", NOON_15 + timedelta(days=1), 4),
]
HALF_PAST = NOON_15 + timedelta(minutes=30)


@pytest.mark.parametrize("seed", range(6))
async def test_events_are_split_by_their_own_times_in_any_order(known, organization, seed):
    dice = random.Random(seed)
    shuffled, moment = dice.sample(EVENTS, len(EVENTS)), dice.randrange(len(EVENTS))
    await catalog(known)
    for n, (event_id, at, value) in enumerate(shuffled):
        if n == moment:
            await heard(known, organization, HALF_PAST)
        async with known() as (tx, events, _):
            arriving = [call(event_id, at, value)]
            await record_events(arriving, tx=tx, events=events, now=NOW, is_publication_due=False)
    expected = {"sum": 25, "count": 4, "max": 9, "last": 2, "unique_count": 3}
    assert await before(known) == {HALF_PAST: expected}


@pytest.mark.integration
async def test_a_snapshot_tells_cuts_gauges_and_late_usage(database: Database, organization, arrived):
    """The bytes on the topics, by the contracts: cuts (D3), a carried gauge (K14), a period older than three (K7)."""
    slots, sent = CounterSlots(), []

    class Log:
        async def publish_all(self, messages):
            sent.extend(messages)

    @asynccontextmanager
    async def begin() -> AsyncIterator[Stores]:
        async with database.begin() as transaction:
            yield PostgresUsage(transaction, slots), PostgresEvents(transaction), PostgresCorrections(transaction)

    publication = SnapshotPublication(database=database, publisher=Log(), slots=slots)
    async with begin() as (tx, _, _):
        await project_customers([organization()], tx=tx)
    await catalog(begin, last={"carried": True})
    async with begin() as (tx, events, _):
        await project_products([MeteredProduct("analytics", 1, "events", "events")], tx=tx)
        arriving = [call(*each) for each in EVENTS]
        await record_events(arriving, tx=tx, events=events, now=NOW, is_publication_due=True)
    await heard(begin, organization, HALF_PAST, datetime(2026, 11, 9, tzinfo=UTC))
    await recorded(begin, arrived(day=14, events=100), arrived(day=32, events=1))
    await publication.publish_due()
    await publication.publish_current({"acme"})
    snapshot = PeriodUsageSnapshot.from_bytes(sent[-1].value)
    october, november = snapshot.periods
    assert (october.customer_revision, november.customer_revision) == (2, 2)
    assert [(cut.at, cut.used["events"], cut.used["last"]) for cut in october.cuts] == [(HALF_PAST, 100, 2)]
    assert (october.meters["last"].maximum, november.meters["last"].maximum) == (4, 4)
    assert [cut.used["last"] for cut in november.cuts] == [4]
    async with begin() as (tx, _, _):
        days = [arrived(day=31 * n + 5, events=1) for n in range(2, 5)]
        await record_reports(days, tx=tx, now=NOW + timedelta(days=120), is_publication_due=True)
    await publication.publish_due()
    sent.clear()
    async with begin() as (tx, _, _):
        late = [arrived(day=13, events=11)]
        await record_reports(late, tx=tx, now=NOW + timedelta(days=120), is_publication_due=False)
    await publication.publish_due()
    assert [message.topic for message in sent] == [PERIOD_USAGE.name, LATE_USAGE.name]
    told = LateUsage.from_bytes(sent[-1].value)
    assert (told.period.period_start, told.period.meters["events"].maximum) == (OCTOBER, 111)
    assert [cut.used["events"] for cut in told.period.cuts] == [111]
    sent.clear()
    await publication.publish_due()
    assert sent == [], "late usage is told once"


def test_a_cut_lies_in_the_period_that_contains_it(organization):
    (key,) = cut_keys("acme", organization().schedules, [NOON_15])
    assert key == CutKey("acme", organization().schedule.period_containing(NOON_15), NOON_15)
