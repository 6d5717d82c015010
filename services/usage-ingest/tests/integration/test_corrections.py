"""Corrections and explanations, on the memory store and on Postgres: one suite, so that the fake cannot lie."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from quill_pricing.billed_quantity import BillingTerms
from quill_pricing.period import BillingPeriod
from quill_runtime.database import Database, Transaction
from quill_runtime.event_store import PostgresEventStream
from quill_usage_ingest.domain.correction import CorrectionKind, CorrectionOrder, InvalidCorrection, Replacement
from quill_usage_ingest.domain.explanation import Standing, StepKind
from quill_usage_ingest.domain.meters import MeteredProduct
from quill_usage_ingest.domain.period_usage import CounterUsage
from quill_usage_ingest.domain.usage_book import Verdict
from quill_usage_ingest.domain.usage_report import UsageWindow
from quill_usage_ingest.ports import Corrections, EventTransaction, UsageTransaction
from quill_usage_ingest.store.corrections import MemoryCorrections, PostgresCorrections, stream_of
from quill_usage_ingest.store.counter_slots import CounterSlots
from quill_usage_ingest.store.memory import MemoryUsage
from quill_usage_ingest.store.memory_events import MemoryEvents
from quill_usage_ingest.store.meter_events import PostgresEvents
from quill_usage_ingest.store.postgres import PostgresUsage
from quill_usage_ingest.usecases.backfill import backfill_reports
from quill_usage_ingest.usecases.correct_usage import (
    CorrectionConflict,
    UnknownCorrection,
    UnknownOrganization,
    apply_correction,
    revert_correction,
)
from quill_usage_ingest.usecases.explain_usage import explain_usage, usage_as_of
from quill_usage_ingest.usecases.project_customers import project_customers
from quill_usage_ingest.usecases.project_products import project_products
from quill_usage_ingest.usecases.recompute import recompute_organization
from quill_usage_ingest.usecases.record_reports import record_reports

OCTOBER = BillingPeriod(datetime(2026, 10, 1, tzinfo=UTC), datetime(2026, 11, 1, tzinfo=UTC))
NOW = datetime(2026, 10, 20, tzinfo=UTC)
HOUR = timedelta(hours=1)
Begin = Callable[[], AbstractAsyncContextManager[tuple[UsageTransaction, Corrections]]]


@pytest.fixture(params=["memory", pytest.param("postgres", marks=pytest.mark.integration)])
def begin(request: pytest.FixtureRequest) -> Begin:
    if request.param == "memory":
        usage, held = MemoryUsage(), MemoryCorrections()

        @asynccontextmanager
        async def in_memory() -> AsyncIterator[tuple[UsageTransaction, Corrections]]:
            before = dict(held.held)
            try:
                async with usage.begin() as tx:
                    yield tx, held
            except BaseException:
                held.held = before
                raise

        return in_memory
    database: Database = request.getfixturevalue("database")
    slots = CounterSlots()

    @asynccontextmanager
    async def in_postgres() -> AsyncIterator[tuple[UsageTransaction, Corrections]]:
        async with database.begin() as transaction:
            yield PostgresUsage(transaction, slots), PostgresCorrections(transaction)

    return in_postgres


@pytest.fixture
async def acme(begin, organization) -> None:
    """A customer with a quota of 100 events at a cent each."""
    known = organization(quotas={"events": 100, "recordings": None})
    prices = {"events": {"model": "per_unit", "unit_amount": "0.01", "currency": "usd"}}
    terms = {"events": (BillingTerms(datetime(2026, 10, 1, tzinfo=UTC), is_paid=True, limit=100),)}
    async with begin() as (tx, _):
        await project_customers(
            [replace(known, customer=replace(known.customer, prices=prices, billing_terms=terms))], tx=tx
        )
        await project_products(
            [
                MeteredProduct("analytics", 1, "events", "events"),
                MeteredProduct("replay", 1, "recordings", "recordings"),
            ],
            tx=tx,
        )


def events_of(tx: UsageTransaction) -> EventTransaction:
    """Meter events on the same transaction."""
    return PostgresEvents(Transaction(tx._connection)) if isinstance(tx, PostgresUsage) else MemoryEvents()


async def recorded(begin, *arrived, now=NOW):
    async with begin() as (tx, _):
        return await record_reports(arrived, tx=tx, now=now, is_publication_due=False)


async def applied(begin, order, *, now=NOW + HOUR):
    async with begin() as (tx, corrections):
        return await apply_correction(order, tx=tx, events=events_of(tx), corrections=corrections, now=now)


async def reverted(begin, correction_id, *, now=NOW + 2 * HOUR):
    async with begin() as (tx, corrections):
        return await revert_correction(
            "acme",
            correction_id,
            actor="bob",
            reason="they were right",
            tx=tx,
            events=events_of(tx),
            corrections=corrections,
            now=now,
        )


async def state(begin):
    """Cells and totals; maxima apart, since they come down for good with a correction (L3)."""
    async with begin() as (tx, _):
        windows = {key: held.cells for key, held in await tx.windows_after("acme", None, limit=1_000)}
        periods = await tx.periods_in_force("acme", newest=None)
        return windows, {name: held[:2] for usage in periods for name, held in usage.counters.items()}


async def events(begin) -> CounterUsage:
    async with begin() as (tx, _):
        (usage,) = await tx.periods_in_force("acme", newest=None)
        return usage.counters["events"]


async def kept_ids(begin):
    async with begin() as (tx, _):
        return [kept.id for kept in await tx.kept_reports("acme", window_start=None, after_id=0, limit=100)]


async def explained(begin, counter="events"):
    async with begin() as (tx, corrections):
        known = await tx.organization("acme")
        answer = await explain_usage(known, OCTOBER, counter, tx=tx, corrections=corrections)
        assert answer.explanation.usage == answer.stored, "what is explained is what is stored (L5)"
        return answer.explanation


def voiding(*ids, correction_id="c1", reason="counted twice"):
    return CorrectionOrder(correction_id, "acme", CorrectionKind.VOID, "ada", reason, kept_ids=ids)


def replacing(counters_by_day, *, correction_id="r1", days=(1, 4)):
    def window(day):
        start = OCTOBER.start + timedelta(days=day - 1)
        return UsageWindow(start, start + timedelta(days=1))

    return CorrectionOrder(
        correction_id,
        "acme",
        CorrectionKind.REPLACE,
        "ada",
        "the source counted bots",
        source="us",
        start=window(days[0]).start,
        end=window(days[1]).start,
        windows=tuple(Replacement(window(day), counters) for day, counters in counters_by_day.items()),
    )


@pytest.mark.usefixtures("acme")
async def test_a_voided_report_stops_counting_and_the_maximum_comes_down(begin, arrived):
    """L3."""
    await recorded(begin, arrived(day=1, events=60), arrived(day=2, events=80))
    second = (await kept_ids(begin))[1]
    corrected = await applied(begin, voiding(second))
    assert await events(begin) == CounterUsage(60, 0, 60)
    (period,) = corrected.correction.effects
    (change,) = period.counters
    assert (change.before.maximum, change.after.maximum) == (140, 60)
    (limit,) = period.limits
    assert (limit.quota, limit.is_over_before, limit.is_over_after) == (100, True, False)
    (amount,) = period.amounts
    assert (amount.before_minor, amount.after_minor, amount.becomes) == (100, 60, "invoice"), "only up to the quota"


@pytest.mark.usefixtures("acme")
async def test_a_period_that_has_ended_is_corrected_by_an_adjustment_and_has_no_limit_left(begin, arrived):
    """L13."""
    await recorded(begin, arrived(day=1, events=60))
    corrected = await applied(begin, voiding(*await kept_ids(begin)), now=OCTOBER.end)
    (period,) = corrected.correction.effects
    assert period.limits == ()
    assert [amount.becomes for amount in period.amounts] == ["adjustment"]


@pytest.mark.usefixtures("acme")
async def test_voiding_uncovers_what_an_older_report_says(begin, arrived):
    await recorded(begin, arrived(day=1, at=1, events=60), arrived(day=1, at=2, events=90))
    await applied(begin, voiding((await kept_ids(begin))[1]))
    assert await events(begin) == CounterUsage(60, 0, 60)
    (cell,) = (await explained(begin)).cells
    assert [claim.standing for claim in cell.claims] == [Standing.HOLDS, Standing.VOIDED]
    assert cell.claims[1].voided_by.actor == "ada"


@pytest.mark.usefixtures("acme")
async def test_content_that_was_voided_stays_voided_when_it_is_sent_again(begin, arrived):
    """L3."""
    await recorded(begin, arrived(day=1, events=60))
    await applied(begin, voiding(*await kept_ids(begin)))
    before = await state(begin)
    assert await recorded(begin, arrived(day=1, events=60)) == [Verdict.NO_CHANGE]
    assert await state(begin) == before
    assert (await explained(begin)).usage.to_date == 0


@pytest.mark.usefixtures("acme")
async def test_void_and_revert_is_the_state_before(begin, arrived):
    await recorded(
        begin, arrived(day=1, events=60, recordings=2), arrived(day=1, at=3, events=61), arrived(day=2, events=5)
    )
    before = await state(begin)
    await applied(begin, voiding(*await kept_ids(begin)))
    assert (await state(begin))[0] == {}
    await reverted(begin, "c1")
    assert await state(begin) == before
    kinds = [step.kind for step in (await explained(begin)).timeline]
    assert kinds == [StepKind.ARRIVED] * 3 + [StepKind.VOIDED, StepKind.REVERTED]


@pytest.mark.usefixtures("acme")
async def test_a_replacement_holds_against_later_reports_until_it_is_reverted(begin, arrived):
    """L3: every window of the range at once; counters not named keep what the source says."""
    await recorded(begin, arrived(day=1, events=60, recordings=7), arrived(day=2, events=80), arrived(day=9, events=1))
    corrected = await applied(begin, replacing({1: {"events": 10}, 2: {"events": 20}}))
    assert await events(begin) == CounterUsage(31, 0, 31)
    assert len(corrected.correction.entered_ids) == 2
    await recorded(begin, arrived(day=1, at=9, events=66))
    assert await events(begin) == CounterUsage(31, 0, 31)
    first = (await explained(begin)).cells[0]
    assert [claim.standing for claim in first.claims] == [Standing.HOLDS] + [Standing.BEHIND_CORRECTION] * 2
    assert (await explained(begin, "recordings")).usage.to_date == 7
    await reverted(begin, "r1")
    assert await events(begin) == CounterUsage(147, 0, 147)
    assert (await explained(begin)).timeline[-1].kind is StepKind.REVERTED


@pytest.mark.usefixtures("acme")
async def test_replace_and_revert_is_the_state_before(begin, arrived):
    await recorded(begin, arrived(day=1, events=60, recordings=7), arrived(day=3, events=80))
    before = await state(begin)
    await applied(begin, replacing({1: {"events": 10}, 2: {"events": 5, "views": 1}, 3: {"events": 0}}))
    assert (await events(begin)).to_date == 15
    await reverted(begin, "r1")
    assert await state(begin) == before


@pytest.mark.usefixtures("acme")
@pytest.mark.parametrize("first", ["c1", "r1", "r2"])
@pytest.mark.parametrize("second", ["c1", "r1", "r2"])
async def test_whatever_is_reverted_in_whatever_order_what_is_kept_decides(begin, arrived, first, second):
    await recorded(begin, arrived(day=1, events=60), arrived(day=2, events=80))
    ids = await kept_ids(begin)
    orders = {
        "c1": voiding(ids[0]),
        "r1": replacing({1: {"events": 10}, 2: {"events": 20}}, correction_id="r1"),
        "r2": replacing({1: {"events": 3}}, correction_id="r2", days=(1, 2)),
    }
    for order in orders.values():
        await applied(begin, order)
    for hour, correction_id in enumerate(dict.fromkeys([first, second]), start=2):
        await reverted(begin, correction_id, now=NOW + hour * HOUR)
    left = orders.keys() - {first, second}
    day_1 = 3 if "r2" in left else 10 if "r1" in left else 0 if "c1" in left else 60
    day_2 = 20 if "r1" in left else 80
    assert (await events(begin)).to_date == day_1 + day_2
    assert (await explained(begin)).usage.to_date == day_1 + day_2
    async with begin() as (tx, _):
        assert (await recompute_organization("acme", tx=tx)).repaired == ()


@pytest.mark.usefixtures("acme")
async def test_a_report_that_two_corrections_void_counts_only_when_both_are_reverted(begin, arrived):
    await recorded(begin, arrived(day=1, events=60))
    ids = await kept_ids(begin)
    await applied(begin, voiding(*ids, correction_id="c1"))
    await applied(begin, voiding(*ids, correction_id="c2"))
    await reverted(begin, "c1")
    assert (await explained(begin)).usage.to_date == 0
    await reverted(begin, "c2", now=NOW + 3 * HOUR)
    assert (await explained(begin)).usage.to_date == 60


@pytest.mark.usefixtures("acme")
async def test_the_same_correction_again_is_a_repeat_and_another_under_its_id_a_conflict(begin, arrived):
    await recorded(begin, arrived(day=1, events=60), arrived(day=2, events=80))
    first, second = await kept_ids(begin)
    assert not (await applied(begin, voiding(first))).is_repeat
    before = await state(begin)
    assert (await applied(begin, voiding(first))).is_repeat
    with pytest.raises(CorrectionConflict):
        await applied(begin, voiding(second))
    with pytest.raises(CorrectionConflict):
        await applied(begin, voiding(first, reason="another"))
    assert await state(begin) == before
    assert not (await reverted(begin, "c1")).is_repeat
    assert (await reverted(begin, "c1")).is_repeat


@pytest.mark.usefixtures("acme")
async def test_what_cannot_be_done_is_refused_with_its_field_and_changes_nothing(begin, arrived):
    await recorded(begin, arrived(day=1, events=60), arrived(day=2, hours=(0, 12), events=1))
    await applied(begin, replacing({5: {"events": 1}}, correction_id="r0", days=(5, 6)))
    ids = await kept_ids(begin)
    before = await state(begin)
    for order, code in (
        (voiding(ids[0], 10**9), "unknown_report"),
        (voiding(ids[-1]), "is_a_correction"),
        (replacing({1: {"events": 1}}), "window_left_out"),
        (replacing({1: {"events": 1}, 2: {"events": 1}}), "overlapping_window"),
        (replacing({7: {"events": 1}}), "invalid_input"),
    ):
        with pytest.raises(InvalidCorrection) as refused:
            await applied(begin, order)
        assert refused.value.code == code
    assert await state(begin) == before
    with pytest.raises(UnknownCorrection):
        await reverted(begin, "nobody-made-this")
    with pytest.raises(UnknownOrganization):
        await applied(begin, replace(voiding(1), organization_id="nobody"))


class _GivenUp(Exception):
    pass


@pytest.mark.usefixtures("acme")
async def test_a_preview_says_exactly_what_applying_does_and_changes_nothing(begin, arrived):
    await recorded(begin, arrived(day=1, events=60), arrived(day=2, events=80))
    order = replacing({1: {"events": 10}, 2: {"events": 20}})
    before = await state(begin)
    with suppress(_GivenUp):
        async with begin() as (tx, corrections):
            previewed = await apply_correction(
                order, tx=tx, events=events_of(tx), corrections=corrections, now=NOW + HOUR
            )
            raise _GivenUp
    assert await state(begin) == before
    assert (await applied(begin, order)).correction.effects == previewed.correction.effects


@pytest.mark.usefixtures("acme")
async def test_as_of_tells_what_was_known_before_and_after_a_correction(begin, arrived):
    """L5."""
    await recorded(begin, arrived(day=1, events=60), now=NOW)
    await recorded(begin, arrived(day=2, events=80), now=NOW + HOUR)
    await applied(begin, voiding((await kept_ids(begin))[0]), now=NOW + 2 * HOUR)

    async def known(at):
        async with begin() as (tx, corrections):
            organization = await tx.organization("acme")
            answer = await usage_as_of(organization, OCTOBER, at, counters={"events"}, tx=tx, corrections=corrections)
            return answer.then.get("events", CounterUsage()), answer.now["events"]

    live = await events(begin)
    assert await known(NOW - HOUR) == (CounterUsage(), live)
    assert await known(NOW) == (CounterUsage(60, 0, 60), live)
    assert await known(NOW + HOUR) == (CounterUsage(140, 0, 140), live)
    assert await known(NOW + 2 * HOUR) == (live, live)


@pytest.mark.usefixtures("acme")
async def test_a_backfill_answers_for_each_report_what_it_changed(begin, arrived):
    await recorded(begin, arrived(day=1, at=5, events=60))
    async with begin() as (tx, _):
        answers = await backfill_reports(
            [
                arrived(day=1, at=1, events=99),
                arrived(day=2, events=4),
                arrived(day=2, at=2, events=9),
                arrived("nobody", events=1),
            ],
            tx=tx,
            now=NOW,
        )
    assert [getattr(each.outcome, "code", each.outcome) for each in answers] == [
        Verdict.SUPERSEDED,
        Verdict.APPLIED,
        Verdict.APPLIED,
        "unknown_organization",
    ]
    moved = [{name: (c.before.quantity, c.after.quantity) for name, c in each.changes.items()} for each in answers]
    assert moved == [{}, {"events": (0, 4)}, {"events": (4, 9)}, {}]
    assert (await explained(begin)).usage.to_date == 69


@pytest.mark.integration
async def test_each_correction_and_its_reversion_is_an_event_with_actor_before_and_after(
    database, arrived, organization
):
    """L20."""
    slots = CounterSlots()
    async with database.begin() as transaction:
        tx, corrections = PostgresUsage(transaction, slots), PostgresCorrections(transaction)
        await project_customers([organization()], tx=tx)
        await record_reports([arrived(day=1, events=60)], tx=tx, now=NOW, is_publication_due=False)
        (kept,) = await tx.kept_reports("acme", window_start=None, after_id=0, limit=2)
        await apply_correction(voiding(kept.id), tx=tx, events=events_of(tx), corrections=corrections, now=NOW)
        await revert_correction(
            "acme", "c1", actor="bob", reason="no", tx=tx, events=events_of(tx), corrections=corrections, now=NOW + HOUR
        )
        stored = await PostgresEventStream(transaction).read(stream_of("acme", "c1"))
    assert [(event.type, event.actor, event.data["reason"]) for event in stored] == [
        ("usage.corrected", "ada", "counted twice"),
        ("usage.correction-reverted", "bob", "no"),
    ]
    assert [
        [event.data[side][0]["counters"]["events"]["to_date"] for side in ("before", "after")] for event in stored
    ] == [[60, 0], [0, 60]]


@pytest.mark.integration
async def test_of_two_operators_at_once_the_second_sees_what_the_first_did(database, arrived, organization):
    """The row lock decides: one content under one id is done once, and the other is told of it."""
    slots = CounterSlots()
    async with database.begin() as transaction:
        tx = PostgresUsage(transaction, slots)
        await project_customers([organization()], tx=tx)
        await record_reports(
            [arrived(day=1, events=60), arrived(day=2, events=80)], tx=tx, now=NOW, is_publication_due=False
        )
        first, second = [kept.id for kept in await tx.kept_reports("acme", window_start=None, after_id=0, limit=9)]

    async def operator(order):
        async with database.begin() as transaction:
            tx = PostgresUsage(transaction, slots)
            return await apply_correction(
                order, tx=tx, events=events_of(tx), corrections=PostgresCorrections(transaction), now=NOW
            )

    outcomes = await asyncio.gather(*(operator(voiding(report)) for report in (first, second)), return_exceptions=True)
    assert sorted(type(each).__name__ for each in outcomes) == ["Corrected", "CorrectionConflict"]
    repeats = await asyncio.gather(*(operator(voiding(first, correction_id="c9")) for _ in range(4)))
    assert sorted(each.is_repeat for each in repeats) == [False, True, True, True]
    assert len({each.correction.applied_at for each in repeats}) == 1
