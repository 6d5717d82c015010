"""Meter events on the memory store and on Postgres: one suite, so that the fake cannot lie (L1-L4)."""

import asyncio
import json
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from quill_contracts.usage import PeriodUsageSnapshot
from quill_pricing.period import BillingPeriod, BillingSchedule, Interval
from quill_runtime.database import Database, Transaction
from quill_runtime.publisher import KafkaPublisher, Outgoing
from quill_usage_ingest.domain.correction import CorrectionKind, CorrectionOrder, InvalidCorrection, NamedEvent
from quill_usage_ingest.domain.event_book import EventOutcome
from quill_usage_ingest.domain.event_meter import Aggregation, EventMeter
from quill_usage_ingest.domain.meters import MeteredProduct
from quill_usage_ingest.domain.organization import CustomerFacts, Organization
from quill_usage_ingest.domain.usage_book import Refusal
from quill_usage_ingest.domain.usage_report import QUANTITY_MAX
from quill_usage_ingest.ports import Arrival, ArrivedEvent, EventTransaction, UsageTransaction
from quill_usage_ingest.store.corrections import MemoryCorrections
from quill_usage_ingest.store.counter_slots import CounterSlots
from quill_usage_ingest.store.event_recounts import EventRecounts
from quill_usage_ingest.store.memory import MemoryUsage
from quill_usage_ingest.store.memory_events import MemoryEvents
from quill_usage_ingest.store.meter_events import PostgresEvents
from quill_usage_ingest.store.postgres import PostgresUsage
from quill_usage_ingest.store.publication import SnapshotPublication
from quill_usage_ingest.usecases import explain_events as explain_events_module
from quill_usage_ingest.usecases import void_events
from quill_usage_ingest.usecases.correct_usage import Corrected, apply_correction, revert_correction
from quill_usage_ingest.usecases.explain_events import TooManyEvents, explain_events
from quill_usage_ingest.usecases.project_customers import project_customers
from quill_usage_ingest.usecases.project_products import project_products
from quill_usage_ingest.usecases.recompute import recompute_organization
from quill_usage_ingest.usecases.recompute_events import recompute_events
from quill_usage_ingest.usecases.record_events import record_events
from quill_usage_ingest.usecases.record_reports import record_reports
from quill_usage_ingest.usecases.recount_events import BEFORE_ALL, project_event_meters, recount_some
from quill_usage_ingest.wire.meter_events import from_wire_event
from sqlalchemy import text

OCTOBER = datetime(2026, 10, 1, tzinfo=UTC)
NOVEMBER = datetime(2026, 11, 1, tzinfo=UTC)
NOW = datetime(2026, 11, 20, tzinfo=UTC)
SCHEDULE = BillingSchedule(OCTOBER, Interval(1, "month"))
AFTER_ALL = datetime(9000, 1, 1, tzinfo=UTC)
ACCEPTED, DUPLICATE = EventOutcome.ACCEPTED, EventOutcome.DUPLICATE

Stores = tuple[UsageTransaction, EventTransaction]
Begin = Callable[[], AbstractAsyncContextManager[Stores]]


def in_memory() -> Begin:
    usage, events = MemoryUsage(), MemoryEvents()

    @asynccontextmanager
    async def begin() -> AsyncIterator[Stores]:
        async with usage.begin(), events.begin():
            yield usage, events

    return begin


@pytest.fixture(params=["memory", pytest.param("postgres", marks=pytest.mark.integration)])
def begin(request: pytest.FixtureRequest) -> Begin:
    if request.param == "memory":
        return in_memory()
    database: Database = request.getfixturevalue("database")
    slots = CounterSlots()

    @asynccontextmanager
    async def begin() -> AsyncIterator[Stores]:
        async with database.begin() as transaction:
            yield PostgresUsage(transaction, slots), PostgresEvents(transaction)

    return begin


def meter(aggregation: str, usage_key: str | None = None, **given_parts: Any) -> EventMeter:
    value = None if aggregation == "count" else "n"
    parts = {"value": value, "group_by": ("model",), **given_parts}
    return EventMeter(usage_key or aggregation, "call", Aggregation(aggregation), **parts)


ALL_KINDS = [meter(aggregation.value) for aggregation in Aggregation]


def call(
    event_id: str = "1", *, at: float = 0, organization_id: str = "acme", event_type: str = "call", **data: Any
) -> ArrivedEvent:
    """An event ``at`` hours into October 2026."""
    time = OCTOBER + timedelta(hours=at)
    body = {
        "specversion": "1.0",
        "id": event_id,
        "source": "gateway",
        "type": event_type,
        "subject": organization_id,
        "time": time.isoformat(),
        "data": {"n": 1, **data},
    }
    encoded = json.dumps(body, default=str).encode()
    return ArrivedEvent(from_wire_event(encoded), Arrival("kafka", encoded, "usage.meter-events.v1", 0, 1))


async def catalog(begin: Begin, *meters: EventMeter, revision: int = 1) -> int:
    async with begin() as (tx, events):
        products = [
            MeteredProduct(f"product_{each.usage_key}", revision, each.usage_key, None, each.counts_from, each)
            for each in meters
        ]
        await project_products(products, tx=tx)
        return await project_event_meters(tx=tx, events=events)


async def entered(begin: Begin, *arrived: ArrivedEvent) -> list[EventOutcome | Refusal]:
    async with begin() as (tx, events):
        return await record_events(arrived, tx=tx, events=events, now=NOW, is_publication_due=False)


async def known(begin: Begin, *organizations: Organization) -> None:
    async with begin() as (tx, _):
        await project_customers(organizations, tx=tx)


async def recounted(begin: Begin, *, limit: int = 1_000) -> int:
    batches = 0
    while True:
        async with begin() as (tx, events):
            if not await recount_some(tx=tx, events=events, limit=limit):
                return batches
        batches += 1


async def used(begin: Begin, organization_id: str = "acme") -> dict[str, dict[str, tuple[int, int]]]:
    """Number and maximum per meter and month, of meters that are not being recounted."""
    async with begin() as (_, events):
        feeds = {feed.feed_id: feed.meter.usage_key for feed in await events.feeds()}
        waiting = await events.recounts([organization_id])
        found: dict[str, dict[str, tuple[int, int]]] = {}
        for key, held in (await events.event_periods_of(organization_id)).items():
            if key.feed_id in feeds and (organization_id, key.feed_id) not in waiting:
                usage = held.usage
                month = found.setdefault(f"{key.period.start:%B}", {})
                month[feeds[key.feed_id]] = (usage.complete, usage.maximum)
        return found


async def everything(begin: Begin, organization_id: str = "acme") -> Any:
    """Windows, groups and periods by usage key, without the numbers of feeds."""
    async with begin() as (tx, events):
        windows, periods = {}, {}
        for feed in await events.feeds():
            for key, held in await events.event_windows_between(
                feed.feed_id, organization_id, BEFORE_ALL.at, AFTER_ALL, limit=10_000
            ):
                windows[feed.meter.usage_key, key.start, key.group] = held
            for period, held in (await events.event_periods_of(organization_id)).items():
                if period.feed_id == feed.feed_id:
                    periods[feed.meter.usage_key, period.period] = held
        in_force = [(usage.period, usage.as_of) for usage in await tx.periods_in_force(organization_id, newest=None)]
        return windows, periods, in_force


async def test_each_aggregation_with_its_groups(begin, organization):
    await catalog(begin, *ALL_KINDS)
    await known(begin, organization())
    outcomes = await entered(
        begin,
        call("1", at=1, n=5, model="large"),
        call("2", at=1.5, n=7, model="small"),
        call("3", at=2, n=5, model="large"),
        call("4", at=800, n=9, model="large"),
    )
    assert outcomes == [ACCEPTED] * 4
    assert await used(begin) == {
        "October": {"sum": (17, 17), "count": (3, 3), "max": (7, 7), "last": (5, 5), "unique_count": (2, 2)},
        "November": {"sum": (9, 9), "count": (1, 1), "max": (9, 9), "last": (9, 9), "unique_count": (1, 1)},
    }
    windows, _, in_force = await everything(begin)
    hour = OCTOBER + timedelta(hours=1)
    assert {group: windows["sum", hour, group].quantity for group in (None, ("large",), ("small",))} == {
        None: 12,
        ("large",): 5,
        ("small",): 7,
    }
    assert [(period.start, as_of) for period, as_of in in_force] == [
        (OCTOBER, OCTOBER + timedelta(hours=2)),
        (NOVEMBER, OCTOBER + timedelta(hours=800)),
    ]


async def test_a_repeat_changes_nothing_ever_and_another_content_is_refused_by_name(begin, organization):
    await catalog(begin, *ALL_KINDS)
    await known(begin, organization())
    first = call("1", at=1, n=5)
    other = call("1", at=1, n=6)
    outcomes = await entered(begin, first, first, other)
    assert outcomes[:2] == [ACCEPTED, DUPLICATE]
    assert isinstance(outcomes[2], Refusal)
    assert (outcomes[2].code, outcomes[2].attribute) == ("conflicting_event", "id")
    before = await everything(begin)
    again = await entered(begin, other, first)
    assert isinstance(again[0], Refusal)
    assert again[1] is DUPLICATE
    assert await everything(begin) == before
    assert (await used(begin))["October"]["sum"] == (5, 5)


async def test_one_name_in_two_organizations_is_two_events(begin, organization):
    await catalog(begin, meter("sum"))
    await known(begin, organization(), organization("globex"))
    assert await entered(begin, call(n=5), call(organization_id="globex", n=6)) == [ACCEPTED] * 2
    assert (await used(begin, "globex"))["October"] == {"sum": (6, 6)}


async def test_events_of_nobody_from_the_future_or_unfit_are_refused_and_leave_no_trace(begin, organization):
    await catalog(begin, meter("sum", decimals=1), meter("unique_count"))
    await known(begin, organization())
    outcomes = await entered(
        begin,
        call("1", organization_id="nobody"),
        call("2", at=24 * 60),
        call("3", n=Decimal("0.25")),
        call("4", n=-1),
        call("5", n=2**70),
        call("6", n=[1]),
        call("7", n=QUANTITY_MAX),
    )
    assert all(isinstance(outcome, Refusal) for outcome in outcomes)
    assert [(outcome.code, outcome.attribute) for outcome in outcomes] == [
        ("unknown_organization", "subject"),
        ("time_in_the_future", "time"),
        *[("unfit_event", "data__n")] * 5,
    ]
    assert await everything(begin) == ({}, {}, [])
    # The same names with what can be counted.
    assert await entered(begin, *(call(str(n), n=2) for n in range(1, 8))) == [ACCEPTED] * 7
    assert (await used(begin))["October"] == {"sum": (140, 140), "unique_count": (1, 1)}


async def test_a_total_that_nothing_can_carry_is_refused_and_can_be_sent_again(begin, organization):
    await catalog(begin, meter("sum"))
    await known(begin, organization())
    outcomes = await entered(begin, call("1", n=QUANTITY_MAX), call("2", n=1), call("3", n=0))
    assert outcomes[0] is outcomes[2] is ACCEPTED
    assert isinstance(outcomes[1], Refusal)
    assert (outcomes[1].code, outcomes[1].attribute) == ("period_overflow", "data__n")
    assert await entered(begin, call("2", n=0)) == [ACCEPTED]


async def test_events_no_meter_knows_are_kept_and_count_when_one_comes(begin, organization):
    await known(begin, organization(), organization("globex"))
    arrived = [call(str(n), at=n, n=n, model="a") for n in range(1, 26)]
    assert await entered(begin, *arrived, call("x", organization_id="globex")) == [ACCEPTED] * 26
    assert await used(begin) == {}
    assert await catalog(begin, *ALL_KINDS) == 10
    # What comes while the recount is on its way, before and after the place it has reached.
    async with begin() as (tx, events):
        assert await recount_some(tx=tx, events=events, limit=7)
    assert await used(begin) == {}
    assert await entered(begin, call("early", at=0.5, n=100), call("late", at=30, n=3)) == [ACCEPTED] * 2
    assert await recounted(begin, limit=7) > 4
    counted = await everything(begin)
    assert (await used(begin))["October"]["sum"] == (325 + 103, 428)
    assert (await used(begin))["October"]["unique_count"] == (26, 26)
    assert (await used(begin, "globex"))["October"]["count"] == (1, 1)

    fresh = in_memory()
    await catalog(fresh, *ALL_KINDS)
    await known(fresh, organization())
    await entered(fresh, *arrived, call("early", at=0.5, n=100), call("late", at=30, n=3))
    assert await everything(fresh) == counted


async def test_kept_events_that_do_not_fit_a_new_meter_count_for_nothing_there(begin, organization):
    await known(begin, organization())
    await entered(begin, call("1", n=2), call("2", n="many"), call("3", n=3))
    await catalog(begin, meter("sum"))
    await recounted(begin)
    assert (await used(begin))["October"] == {"sum": (5, 5)}
    # It was kept, so it stays a repeat although it would be refused today.
    assert await entered(begin, call("2", n="many")) == [DUPLICATE]


async def test_a_meter_counts_from_its_date_on_and_another_definition_counts_anew(begin, organization):
    await known(begin, organization())
    await entered(begin, call("1", at=1, n=100), call("2", at=48, n=20), call("3", at=49, n=3))
    second = OCTOBER + timedelta(days=2)
    await catalog(begin, meter("sum", counts_from=second))
    await recounted(begin)
    assert (await used(begin))["October"] == {"sum": (23, 23)}
    assert await entered(begin, call("4", at=2, n=1000), call("5", at=50, n=1)) == [ACCEPTED] * 2
    assert (await used(begin))["October"] == {"sum": (24, 24)}
    assert await catalog(begin, meter("sum", counts_from=second), revision=2) == 0
    assert await catalog(begin, meter("sum"), revision=3) == 1
    assert await used(begin) == {}
    await recounted(begin, limit=2)
    assert (await used(begin))["October"] == {"sum": (1124, 1124)}


async def test_a_changed_schedule_moves_windows_to_their_new_periods(begin, organization, arrived):
    await catalog(begin, *ALL_KINDS)
    await known(begin, organization())
    await entered(begin, call("1", at=1, n=5), call("2", at=24 * 10, n=5), call("3", at=24 * 10 + 1, n=2))
    async with begin() as (tx, events):
        await record_reports([arrived(day=3, events=4)], tx=tx, now=NOW, is_publication_due=False)
    async with begin() as (tx, events):
        snapshot = organization(revision=2, anchor=OCTOBER + timedelta(days=9))
        projected = await project_customers([snapshot], tx=tx)
        assert projected.rescheduled == ("acme",)
        assert len(await recompute_events("acme", tx=tx, events=events)) == 3
        assert await recompute_events("acme", tx=tx, events=events) == ()
    assert (await used(begin))["October"]["unique_count"] == (2, 2)
    async with begin() as (tx, events):
        (feed,) = [feed for feed in await events.feeds() if feed.meter.usage_key == "sum"]
        held = await events.event_periods_of("acme")
        sums = {key.period.start.day: whole.quantity for key, whole in held.items() if key.feed_id == feed.feed_id}
        assert sums == {1: 5, 10: 7}
        in_force = [usage.period.start for usage in await tx.periods_in_force("acme", newest=None)]
        assert in_force == [OCTOBER, datetime(2026, 10, 10, tzinfo=UTC)]
        assert (await recompute_organization("acme", tx=tx)).repaired == ()
        again = [usage.period.start for usage in await tx.periods_in_force("acme", newest=None)]
        assert again == in_force


async def test_a_period_may_begin_at_any_instant_and_windows_follow_their_start(begin, organization):
    await catalog(begin, meter("sum"))
    await known(begin, organization(anchor=OCTOBER + timedelta(hours=12, minutes=30)))
    await entered(begin, call("1", at=12.75, n=1), call("2", at=13, n=10))
    assert await used(begin) == {"September": {"sum": (1, 1)}, "October": {"sum": (10, 10)}}


async def test_kept_events_are_read_page_by_page_with_their_bytes(begin, organization):
    await known(begin, organization())
    arrived = [call(str(n), at=n % 3, event_type="a" if n % 2 else "b") for n in range(9)]
    await entered(begin, *arrived)
    async with begin() as (_, events):
        seen, after = [], None
        while True:
            page = await events.kept_events("acme", OCTOBER, NOVEMBER, after=after, limit=4)
            seen += page
            if len(page) < 4:
                break
            after = page[-1].event.moment
        assert [kept.event.moment for kept in seen] == sorted(item.event.moment for item in arrived)
        assert {kept.body for kept in seen} == {item.arrival.body for item in arrived}
        of_type = await events.kept_events("acme", OCTOBER, NOVEMBER, event_type="a", limit=10)
        assert {kept.event.event_id for kept in of_type} == {"1", "3", "5", "7"}
        hour = OCTOBER + timedelta(hours=1)
        in_hour = await events.kept_events("acme", hour, hour + timedelta(hours=1), limit=10)
        assert {kept.event.event_id for kept in in_hour} == {"1", "4", "7"}
        moment = in_hour[0].event.moment
        assert (await events.events_at("acme", [moment]))[moment].event == in_hour[0].event
        assert await events.events_at("globex", [moment]) == {}
        assert await events.count_events("acme", "a", OCTOBER, hour) == 1
    assert await entered(begin) == []


class Crash(Exception):
    """The process ends before the commit."""


async def played(begin: Begin, batches: Sequence[tuple[Sequence[ArrivedEvent], bool]]) -> None:
    """Enter batches; one that crashes is delivered again."""
    for batch, crashes in batches:
        if crashes:
            with suppress(Crash):
                async with begin() as (tx, events):
                    await record_events(batch, tx=tx, events=events, now=NOW, is_publication_due=False)
                    raise Crash
        await entered(begin, *batch)


EVENTS = st.lists(
    st.tuples(
        st.floats(0, 1_100).map(lambda hours: round(hours * 4) / 4),
        st.integers(0, 6),
        st.sampled_from(["large", "small", None]),
    ),
    max_size=18,
)
CUTS = st.lists(st.tuples(st.integers(1, 6), st.booleans()), min_size=30, max_size=30)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(events=EVENTS, repeated=st.lists(st.integers(0, 17), max_size=10), cuts=CUTS, seed=st.integers(0, 999))
async def test_any_order_repetition_cut_and_crash_of_events_gives_the_same_numbers(
    events, repeated, cuts, seed, organization
):
    """And they are those that arithmetic on the set of events gives (L1, L2, L3)."""
    arrived = [call(str(n), at=at, n=value, model=model) for n, (at, value, model) in enumerate(events)]
    shuffled = arrived + [arrived[n] for n in repeated if n < len(arrived)]
    random.Random(seed).shuffle(shuffled)
    batches = []
    for size, crashes in cuts:
        batches.append((shuffled[:size], crashes))
        shuffled = shuffled[size:]
    batches.append((shuffled, False))
    begin, other = in_memory(), in_memory()
    for each in (begin, other):
        await catalog(each, *ALL_KINDS)
        await known(each, organization())
    await entered(begin, *arrived)
    await played(other, batches)
    assert await everything(other) == await everything(begin)
    windows, _, _ = await everything(other)
    for (usage_key, start, group), whole in windows.items():
        if group is None:
            parts = [held for (key, at, of), held in windows.items() if (key, at) == (usage_key, start) and of]
            assert sum(part.events for part in parts) == whole.events
            numbers = [part.quantity for part in parts]
            assert whole.quantity == sum(numbers) if usage_key in ("sum", "count") else whole.quantity <= sum(numbers)
    found = await used(other)
    for month, start, end in (
        ("October", OCTOBER, NOVEMBER),
        ("November", NOVEMBER, datetime(2026, 12, 1, tzinfo=UTC)),
    ):
        inside = sorted((item.event for item in arrived if start <= item.event.time < end), key=lambda e: e.moment)
        if not inside:
            assert month not in found
            continue
        values = [event.data["n"] for event in inside]
        assert found[month] == {
            "sum": (sum(values),) * 2,
            "count": (len(values),) * 2,
            "max": (max(values),) * 2,
            "last": (values[-1],) * 2,
            "unique_count": (len(set(values)),) * 2,
        }


@pytest.mark.integration
@pytest.mark.parametrize("seed", range(4))
async def test_postgres_gives_the_same_numbers_in_any_order_as_memory(database: Database, organization, seed):
    dice = random.Random(seed)
    arrived = [
        call(str(n), at=dice.randrange(4_400) / 4, n=dice.randrange(9), model=dice.choice(["a", "b", None]))
        for n in range(120)
    ]
    memory = in_memory()
    await catalog(memory, *ALL_KINDS)
    await known(memory, organization())
    await entered(memory, *arrived)
    slots = CounterSlots()

    @asynccontextmanager
    async def begin() -> AsyncIterator[Stores]:
        async with database.begin() as transaction:
            yield PostgresUsage(transaction, slots), PostgresEvents(transaction)

    await known(begin, organization())
    shuffled = arrived + dice.sample(arrived, 40)
    dice.shuffle(shuffled)
    batches = [(shuffled[n : n + 17], dice.random() < 0.4) for n in range(0, len(shuffled), 17)]
    half = len(batches) // 2
    await played(begin, batches[:half])
    # The meters come when half of the events are there, and their recount between the others.
    await catalog(begin, *ALL_KINDS)
    for batch in batches[half:]:
        await played(begin, [batch])
        async with begin() as (tx, events):
            await recount_some(tx=tx, events=events, limit=11)
    await recounted(begin, limit=11)
    assert await everything(begin) == await everything(memory)
    async with begin() as (tx, events):
        assert await recompute_events("acme", tx=tx, events=events) == ()
    published = Published()
    publication = SnapshotPublication(database=database, publisher=cast("KafkaPublisher", published), slots=slots)
    assert await publication.publish_current(["acme"]) == 1
    snapshot = PeriodUsageSnapshot.from_bytes(published.messages[-1].value or b"")
    numbers = {
        f"{period.period_start:%B}": {
            meter: (used.complete + used.partial, used.maximum) for meter, used in period.meters.items()
        }
        for period in snapshot.periods
    }
    assert numbers == await used(memory)


class Published:
    """Keeps what would go to Kafka."""

    def __init__(self) -> None:
        self.messages: list[Outgoing] = []

    async def publish_all(self, messages: Sequence[Outgoing]) -> None:
        self.messages.extend(messages)


@pytest.mark.integration
async def test_writers_recounts_and_a_changing_catalog_at_once_count_each_event_once(database: Database, organization):
    """Overlapping batches in parallel, while meters come, change and are recounted: nobody waits for ever, none is
    missed, none counts twice."""
    dice = random.Random(3)
    names = ["acme", "globex", "initech"]
    arrived = [
        call(str(n), at=dice.randrange(3_000) / 4, n=dice.randrange(9), model="a", organization_id=dice.choice(names))
        for n in range(300)
    ]
    memory = in_memory()
    await catalog(memory, meter("sum"), meter("unique_count"), meter("last"))
    await known(memory, *(organization(name) for name in names))
    await entered(memory, *arrived)
    slots = CounterSlots()
    running = asyncio.Event()

    @asynccontextmanager
    async def begin() -> AsyncIterator[Stores]:
        async with database.begin() as transaction:
            yield PostgresUsage(transaction, slots), PostgresEvents(transaction)

    async def in_transaction(work: Callable[[UsageTransaction, EventTransaction], Awaitable[Any]]) -> Any:
        async def run(transaction: Transaction) -> Any:
            return await work(PostgresUsage(transaction, slots), PostgresEvents(transaction))

        return await database.run(run)

    async def write(seed: int) -> list[Any]:
        own = random.Random(seed).sample(arrived, 200)
        outcomes = []
        for start in range(0, 200, 20):
            batch = own[start : start + 20]
            outcomes += await in_transaction(
                lambda tx, events, batch=batch: record_events(
                    batch, tx=tx, events=events, now=NOW, is_publication_due=False
                )
            )
        return outcomes

    async def recount() -> None:
        while not running.is_set():
            await in_transaction(lambda tx, events: recount_some(tx=tx, events=events, limit=7))
            await asyncio.sleep(0.005)

    async def change() -> None:
        for revision, kinds in enumerate((["sum"], ["sum", "last"], ["unique_count"], ["sum", "unique_count", "last"])):
            products = [
                MeteredProduct(f"p{kind}", revision + 1, kind if kind in kinds else None, None, None, held)
                for kind in ("sum", "unique_count", "last")
                for held in (meter(kind) if kind in kinds else None,)
            ]

            async def work(tx: UsageTransaction, events: EventTransaction, products=products) -> None:
                await events.hold_meters()
                await project_products(products, tx=tx)
                await project_event_meters(tx=tx, events=events)

            await in_transaction(work)
            await asyncio.sleep(0.15)

    await known(begin, *(organization(name) for name in names))
    recounting = asyncio.create_task(recount())
    async with asyncio.timeout(90):
        written, *_ = await asyncio.gather(*(write(seed) for seed in range(4)), change())
        assert all(isinstance(outcome, EventOutcome) for outcome in written)
        await write_rest(arrived, in_transaction)
        running.set()
        await recounting
        await recounted(begin, limit=50)
    for name in names:
        assert await used(begin, name) == await used(memory, name)
        mine, theirs = await everything(begin, name), await everything(memory, name)
        assert mine[:2] == theirs[:2]


async def write_rest(arrived: Sequence[ArrivedEvent], in_transaction: Any) -> None:
    await in_transaction(
        lambda tx, events: record_events(arrived, tx=tx, events=events, now=NOW, is_publication_due=False)
    )


@pytest.mark.integration
async def test_what_a_retired_meter_left_behind_is_removed(database: Database, organization):
    slots = CounterSlots()

    @asynccontextmanager
    async def begin() -> AsyncIterator[Stores]:
        async with database.begin() as transaction:
            yield PostgresUsage(transaction, slots), PostgresEvents(transaction)

    await catalog(begin, *ALL_KINDS)
    await known(begin, organization())
    await entered(begin, *(call(str(n), at=n, n=n, model="a") for n in range(30)))
    await catalog(
        begin, meter("sum"), *(meter(each.usage_key, decimals=0, group_by=()) for each in ALL_KINDS[1:]), revision=2
    )
    await EventRecounts(database, slots).run(NOW)
    async with database.begin() as transaction:
        for table in ("event_windows", "event_values", "event_periods"):
            left = await transaction.connection.scalar(
                text(f"select count(*) from {table} where feed_id not in (select feed_id from event_feeds)")
            )
            assert left == 0
        assert await transaction.connection.scalar(text("select count(*) from event_feeds")) == 5
        names = await transaction.connection.scalar(text("select count(*) from event_names"))
        assert names == 30
    assert (await used(begin))["October"]["count"] == (30, 30)


@pytest.mark.parametrize("aggregation", list(Aggregation))
async def test_very_many_events_are_explained_from_their_hours_alike(begin, organization, monkeypatch, aggregation):
    asked = meter(aggregation.value)
    await catalog(begin, asked)
    await known(begin, organization())
    await entered(begin, *(call(str(n), at=n / 4, n=n % 5, model="ab"[n % 2]) for n in range(20)))
    period = BillingPeriod(OCTOBER, NOVEMBER)
    async with begin() as (tx, events):
        account = await tx.organization("acme")
        assert account is not None
        from_events = await explain_events(account, period, asked, events=events)
        monkeypatch.setattr(explain_events_module, "EVENTS_MAX", 10)
        from_windows = await explain_events(account, period, asked, events=events)
        assert (from_events.is_from_events, from_windows.is_from_events) == (True, False)
        assert from_events.is_equal
        assert from_windows.is_equal
        assert dict(from_events.windows) == dict(from_windows.windows)
        assert from_events.named.keys() == from_windows.named.keys()
        assert from_windows.left_out == 0
        with pytest.raises(TooManyEvents, match="ask without at"):
            await explain_events(account, period, asked, events=events, at=NOW)
        monkeypatch.setattr(explain_events_module, "WINDOWS_MAX", 3)
        with pytest.raises(TooManyEvents, match="series"):
            await explain_events(account, period, asked, events=events)


# -- voiding -----------------------------------------------------------------------------------------------------------


def voiding(*arrived: ArrivedEvent, correction_id: str = "c1") -> CorrectionOrder:
    return CorrectionOrder(
        correction_id=correction_id,
        organization_id="acme",
        kind=CorrectionKind.VOID_EVENTS,
        actor="ada",
        reason="sent by a test",
        events=tuple(NamedEvent(each.event.source, each.event.event_id, each.event.time) for each in arrived),
    )


async def voided(begin: Begin, corrections: MemoryCorrections, order: CorrectionOrder) -> Corrected:
    async with begin() as (tx, events):
        return await apply_correction(order, tx=tx, events=events, corrections=corrections, now=NOW)


async def taken_back(begin: Begin, corrections: MemoryCorrections, correction_id: str = "c1") -> Corrected:
    async with begin() as (tx, events):
        return await revert_correction(
            "acme",
            correction_id,
            actor="bob",
            reason="it was real",
            tx=tx,
            events=events,
            corrections=corrections,
            now=NOW + timedelta(hours=1),
        )


async def counted(begin: Begin) -> Any:
    """Windows and periods that hold something, and the numbers."""
    windows, periods, _ = await everything(begin)
    held = {key: aggregate for key, aggregate in windows.items() if aggregate.events}
    return held, {key: aggregate for key, aggregate in periods.items() if aggregate.events}


async def only(*arrived: ArrivedEvent) -> Any:
    """What these events come to when no other ever came."""
    fresh = in_memory()
    await catalog(fresh, *ALL_KINDS)
    await known(fresh, Organization("acme", "l", 1, SCHEDULE, CustomerFacts("c", "cloud")))
    await entered(fresh, *arrived)
    return await counted(fresh)


async def test_voided_events_count_as_if_they_had_never_come_until_that_is_taken_back(begin, organization):
    await catalog(begin, *ALL_KINDS)
    await known(begin, organization())
    sent = [
        call("1", at=1, n=5, model="large"),
        call("2", at=1.5, n=700, model="small"),
        call("3", at=2, n=5, model="large"),
        call("4", at=30, n=6),
        call("5", at=800, n=9),
    ]
    await entered(begin, *sent)
    before, all_numbers = await everything(begin), await used(begin)
    corrections = MemoryCorrections()
    done = await voided(begin, corrections, voiding(sent[1], sent[4]))
    assert await counted(begin) == await only(sent[0], sent[2], sent[3])
    assert await used(begin) == {
        "October": {"sum": (16, 16), "count": (3, 3), "max": (6, 6), "last": (6, 6), "unique_count": (2, 2)},
        # Of November nothing is left: the meters are told of with 0, and do not vanish from what is published.
        "November": {"sum": (0, 0), "count": (0, 0), "max": (0, 0), "last": (0, 0), "unique_count": (0, 0)},
    }
    changed = {
        (period.period_start.month, each.counter): (each.before.maximum, each.after.maximum)
        for period in done.correction.effects
        for each in period.counters
    }
    assert changed[10, "sum"] == (716, 16)
    assert changed[11, "max"] == (9, 0)
    async with begin() as (tx, events):
        assert (await tx.organization("acme")).usage_revision == 2
        assert await recompute_events("acme", tx=tx, events=events) == (), "an audit finds nothing to mend"
    assert await entered(begin, *sent) == [DUPLICATE] * 5, "their names stay taken"
    assert (await voided(begin, corrections, voiding(sent[1], sent[4]))).is_repeat
    again = await taken_back(begin, corrections)
    windows, periods, _ = await everything(begin)
    assert (windows, periods) == before[:2]
    assert await used(begin) == all_numbers
    assert again.correction.reversion.effects
    assert (await taken_back(begin, corrections)).is_repeat


async def test_an_event_voided_twice_counts_when_both_are_taken_back(begin, organization):
    await catalog(begin, meter("sum"))
    await known(begin, organization())
    sent = [call("1", n=5), call("2", at=1, n=7)]
    await entered(begin, *sent)
    corrections = MemoryCorrections()
    await voided(begin, corrections, voiding(sent[0]))
    await voided(begin, corrections, voiding(*sent, correction_id="c2"))
    assert (await used(begin))["October"] == {"sum": (0, 0)}
    await taken_back(begin, corrections, "c1")
    assert (await used(begin))["October"] == {"sum": (0, 0)}
    await taken_back(begin, corrections, "c2")
    assert (await used(begin))["October"] == {"sum": (12, 12)}


async def test_what_cannot_be_voided_is_named_and_changes_nothing(begin, organization, monkeypatch):
    await catalog(begin, meter("sum"))
    await known(begin, organization())
    sent = [call("1", n=5), call("2", at=0.5, n=7)]
    await entered(begin, *sent)
    before = await everything(begin)
    corrections = MemoryCorrections()
    with pytest.raises(InvalidCorrection, match="events__1: no event") as refused:
        await voided(begin, corrections, voiding(sent[0], call("1", at=3)))
    assert (refused.value.code, refused.value.attribute) == ("unknown_event", "events__1")
    monkeypatch.setattr(void_events, "EVENTS_AN_HOUR_MAX", 1)
    with pytest.raises(InvalidCorrection, match="more than 1 events of type call"):
        await voided(begin, corrections, voiding(sent[0]))
    assert await everything(begin) == before
    assert await corrections.of_organization("acme") == []


async def test_a_recount_leaves_voided_events_out_and_nothing_is_voided_during_one(begin, organization):
    """The last whole number is published meanwhile: a maximum that was to come down would stand again (L3)."""
    await known(begin, organization())
    sent = [call(str(n), at=n, n=2**n) for n in range(8)]
    await entered(begin, *sent)
    corrections = MemoryCorrections()
    await voided(begin, corrections, voiding(sent[1], sent[6]))
    assert await used(begin) == {}, "no meter counts them yet"
    await catalog(begin, *ALL_KINDS)
    async with begin() as (tx, events):
        assert await recount_some(tx=tx, events=events, limit=4)
    before = await everything(begin)
    with pytest.raises(InvalidCorrection, match="is being counted anew for this organization") as refused:
        await voided(begin, corrections, voiding(sent[3], correction_id="c2"))
    assert (refused.value.code, refused.value.attribute) == ("being_counted_anew", "events")
    with pytest.raises(InvalidCorrection, match="is being counted anew"):
        await taken_back(begin, corrections)
    assert await everything(begin) == before
    await recounted(begin, limit=2)
    assert await counted(begin) == await only(*(each for n, each in enumerate(sent) if n not in (1, 6)))
    await voided(begin, corrections, voiding(sent[3], correction_id="c2"))
    assert await counted(begin) == await only(*(each for n, each in enumerate(sent) if n not in (1, 3, 6)))
    await taken_back(begin, corrections)
    assert await counted(begin) == await only(*(each for n, each in enumerate(sent) if n != 3))


async def test_an_explanation_tells_of_voided_events_and_agrees(begin, organization):
    await catalog(begin, meter("sum"))
    await known(begin, organization())
    sent = [call("1", n=5), call("2", at=1, n=7)]
    await entered(begin, *sent)
    await voided(begin, MemoryCorrections(), voiding(*sent))
    async with begin() as (tx, events):
        explained = await explain_events(
            await tx.organization("acme"), BillingPeriod(OCTOBER, NOVEMBER), meter("sum"), events=events
        )
        assert (explained.usage.to_date, explained.voided, explained.is_equal) == (0, 2, True)
        assert [each.counts for each in await events.kept_events("acme", OCTOBER, NOVEMBER, limit=9)] == [False, False]
        assert await events.count_events("acme", "call", OCTOBER, NOVEMBER) == 0


sent_events = st.lists(
    st.tuples(st.integers(0, 6), st.integers(0, 9), st.sampled_from(["a", "b"])), min_size=1, max_size=12
)


@settings(max_examples=60, deadline=None)
@given(sent_events, st.data())
async def test_any_voids_and_reversions_end_where_the_events_that_count_lead(described, data):
    """L1, L3: whatever was done before, hours and periods are those of the events that count now."""
    begin, corrections = in_memory(), MemoryCorrections()
    await catalog(begin, *ALL_KINDS)
    await known(begin, Organization("acme", "l", 1, SCHEDULE, CustomerFacts("c", "cloud")))
    sent = [call(str(n), at=hour * 180, n=value, model=model) for n, (hour, value, model) in enumerate(described)]
    half = data.draw(st.integers(1, len(sent)))
    await entered(begin, *sent[:half])
    orders: dict[str, set[int]] = {}
    for number in range(data.draw(st.integers(1, 3))):
        chosen = data.draw(st.sets(st.integers(0, half - 1), min_size=1))
        orders[f"c{number}"] = chosen
        await voided(begin, corrections, voiding(*(sent[n] for n in sorted(chosen)), correction_id=f"c{number}"))
    await entered(begin, *sent)
    for correction_id in data.draw(st.sets(st.sampled_from(sorted(orders)))):
        await taken_back(begin, corrections, correction_id)
        del orders[correction_id]
    out = set().union(*orders.values())
    assert await counted(begin) == await only(*(each for n, each in enumerate(sent) if n not in out))
