"""What the use cases do, on the memory store and on Postgres: one suite, so that the fake cannot lie."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from quill_pricing.period import BillingPeriod
from quill_runtime.database import Database
from quill_usage_ingest.domain.meters import MeteredProduct
from quill_usage_ingest.domain.period_usage import CounterUsage
from quill_usage_ingest.domain.usage_book import PeriodKey, Refusal, Verdict
from quill_usage_ingest.ports import Arrival, ArrivedReport, TooManyCounters, UsageTransaction
from quill_usage_ingest.store import counter_slots
from quill_usage_ingest.store.counter_slots import CounterSlots
from quill_usage_ingest.store.memory import MemoryUsage
from quill_usage_ingest.store.postgres import PostgresUsage
from quill_usage_ingest.usecases.project_customers import project_customers
from quill_usage_ingest.usecases.project_products import project_products
from quill_usage_ingest.usecases.rebuild_windows import OverlappingWindows, rebuild_windows
from quill_usage_ingest.usecases.recompute import audit_organizations, recompute_organization
from quill_usage_ingest.usecases.record_reports import NotYours, record_daily_report, record_reports

OCTOBER = datetime(2026, 10, 1, tzinfo=UTC)
NOVEMBER = datetime(2026, 11, 1, tzinfo=UTC)
NOW = datetime(2026, 11, 5, tzinfo=UTC)

Begin = Callable[[], AbstractAsyncContextManager[UsageTransaction]]


@pytest.fixture(params=["memory", pytest.param("postgres", marks=pytest.mark.integration)])
def begin(request: pytest.FixtureRequest) -> Begin:
    if request.param == "memory":
        return MemoryUsage().begin
    database: Database = request.getfixturevalue("database")
    slots = CounterSlots()

    @asynccontextmanager
    async def begin() -> AsyncIterator[UsageTransaction]:
        async with database.begin() as transaction:
            yield PostgresUsage(transaction, slots)

    return begin


async def recorded(begin: Begin, *arrived: ArrivedReport) -> list[Verdict | Refusal]:
    async with begin() as tx:
        return await record_reports(arrived, tx=tx, now=NOW, is_publication_due=False)


async def used(begin: Begin, organization_id: str = "acme") -> dict[datetime, dict[str, CounterUsage]]:
    async with begin() as tx:
        held = await tx.periods_in_force(organization_id, newest=None)
        return {usage.period.start: dict(usage.counters) for usage in held}


async def revision(begin: Begin, organization_id: str = "acme") -> int:
    async with begin() as tx:
        known = await tx.organization(organization_id)
        assert known is not None
        return known.usage_revision


async def test_reports_become_period_usage_with_a_revision(begin, arrived, organization):
    async with begin() as tx:
        await project_customers([organization()], tx=tx)
    verdicts = await recorded(begin, arrived(day=1, events=10, recordings=0), arrived(day=2, complete=False, events=4))
    assert verdicts == [Verdict.APPLIED] * 2
    assert await used(begin) == {OCTOBER: {"events": CounterUsage(10, 4, 14), "recordings": CounterUsage(0, 0, 0)}}
    assert await revision(begin) == 1
    assert await recorded(begin, arrived(day=1, events=10, recordings=0)) == [Verdict.NO_CHANGE]
    assert await revision(begin) == 1
    await recorded(begin, arrived(day=32, events=3))
    assert (await used(begin))[NOVEMBER] == {"events": CounterUsage(3, 0, 3)}
    assert await revision(begin) == 2


async def test_any_order_repetition_and_cut_gives_the_same_cells_and_sums(begin, arrived, organization):
    ids = ["acme", "globex", "initech"]
    claims = [
        arrived(name, day=day, at=at, source=source, complete=complete, events=7 * day + at, **{f"c{day}": at})
        for name in ids
        for day in (1, 2, 32)
        for at in (0, 1)
        for source in ("us", "eu")
        for complete in (False, True)
    ]
    async with begin() as tx:
        await project_customers([organization(f"{run}-{name}") for run in "ab" for name in ids], tx=tx)

    def of_run(run: str) -> list[ArrivedReport]:
        return [
            replace(c, report=replace(c.report, organization_id=f"{run}-{c.report.organization_id}")) for c in claims
        ]

    await recorded(begin, *of_run("a"))
    shuffled = of_run("b") * 2
    random.Random(7).shuffle(shuffled)
    while shuffled:
        batch, shuffled = shuffled[:13], shuffled[13:]
        await recorded(begin, *batch)
    async with begin() as tx:
        for name in ids:
            cells = [
                [
                    (key.start, key.source, held)
                    for key, held in await tx.windows_after(f"{run}-{name}", None, limit=1_000)
                ]
                for run in "ab"
            ]
            assert cells[0] == cells[1]
    for name in ids:
        sums = [
            {
                start: {c: (u.complete, u.partial) for c, u in held.items()}
                for start, held in (await used(begin, f"{run}-{name}")).items()
            }
            for run in "ab"
        ]
        assert sums[0] == sums[1]


async def test_an_unknown_organization_is_refused_and_its_neighbours_are_not(begin, arrived, organization):
    async with begin() as tx:
        await project_customers([organization()], tx=tx)
    refused, applied = await recorded(begin, arrived("nobody", events=1), arrived(events=1))
    assert isinstance(refused, Refusal)
    assert refused.code == "unknown_organization"
    assert applied is Verdict.APPLIED
    async with begin() as tx:
        assert await tx.kept_reports("nobody", window_start=None, after_id=0, limit=10) == []


async def test_two_contents_under_one_name_are_both_kept(begin, arrived, organization):
    async with begin() as tx:
        await project_customers([organization()], tx=tx)
    await recorded(begin, arrived(events=5, report_id="r"))
    assert await recorded(begin, arrived(at=1, events=9, report_id="r")) == [Verdict.CONFLICT]
    await recorded(begin, arrived(events=5, report_id="r"))
    async with begin() as tx:
        kept = await tx.kept_reports("acme", window_start=OCTOBER, after_id=0, limit=10)
        assert [(report.report_id, report.verdict) for report in kept] == [("r", "applied"), ("r", "conflict")]
        assert [report.offset for report in kept] == [1, 1]
        after = await tx.kept_reports("acme", window_start=None, after_id=kept[0].id, limit=10)
        assert [report.verdict for report in after] == ["conflict"]


async def test_a_correction_is_kept_with_who_and_why(begin, arrived, organization):
    async with begin() as tx:
        await project_customers([organization()], tx=tx)
    await recorded(begin, arrived(events=100))
    await recorded(begin, arrived(at=1, correction=True, events=40))
    assert await used(begin) == {OCTOBER: {"events": CounterUsage(40, 0, 40)}}
    async with begin() as tx:
        kept = await tx.kept_reports("acme", window_start=None, after_id=0, limit=10)
        assert (kept[1].correction_actor, kept[1].correction_reason) == ("ada@example.org", "counted twice")


async def test_only_a_newer_customer_snapshot_is_taken(begin, organization):
    async with begin() as tx:
        assert (await project_customers([organization(revision=5)], tx=tx)).first_seen == ("acme",)
    async with begin() as tx:
        again = await project_customers([organization(revision=5), organization(revision=4, license_id="x")], tx=tx)
        assert (again.first_seen, again.rescheduled) == ((), ())
        known = await tx.organization("acme")
        assert known is not None
        assert (known.customer_revision, known.license_id) == (5, "license-1")
    async with begin() as tx:
        await project_customers(
            [organization(revision=6, license_id="y"), organization(revision=7, license_id="z")], tx=tx
        )
        assert (await tx.lock_organizations({"acme", "nobody"})) == {"acme": organization(revision=7, license_id="z")}


async def test_a_new_schedule_moves_windows_and_keeps_what_was_published(begin, arrived, organization):
    async with begin() as tx:
        await project_customers([organization()], tx=tx)
    await recorded(begin, arrived(day=5, events=10), arrived(day=20, complete=False, events=50))
    await recorded(begin, arrived(day=20, at=1, events=1))
    async with begin() as tx:
        moved = await project_customers([organization(revision=2, anchor=OCTOBER + timedelta(days=14))], tx=tx)
        assert moved.rescheduled == ("acme",)
    assert await used(begin) == {
        OCTOBER: {"events": CounterUsage(10, 0, 10)},
        datetime(2026, 10, 15, tzinfo=UTC): {"events": CounterUsage(1, 0, 1)},
    }
    assert await revision(begin) == 3
    async with begin() as tx:
        old = PeriodKey("acme", BillingPeriod(OCTOBER, NOVEMBER))
        assert (await tx.periods([old]))[old].counters["events"] == CounterUsage(11, 0, 60)
    async with begin() as tx:
        await project_customers([organization(revision=3)], tx=tx)
    assert await used(begin) == {OCTOBER: {"events": CounterUsage(11, 0, 60)}}


async def test_the_audit_repairs_what_does_not_agree_with_the_cells_and_keeps_the_maximum(begin, arrived, organization):
    async with begin() as tx:
        await project_customers([organization(), organization("globex")], tx=tx)
    await recorded(begin, arrived(events=10), arrived("globex", events=1))
    async with begin() as tx:
        assert await audit_organizations(tx=tx, after="", limit=2) == ("globex", [])
        assert await audit_organizations(tx=tx, after="globex", limit=2) == ("", [])
    async with begin() as tx:
        (usage,) = await tx.periods_in_force("acme", newest=None)
        broken = replace(usage, counters={"events": CounterUsage(3, 4, 12), "ghost": CounterUsage(1, 1, 1)})
        await tx.save_periods({PeriodKey("acme", usage.period): broken})
    async with begin() as tx:
        _, repaired = await audit_organizations(tx=tx, after="", limit=5)
        assert [result.organization_id for result in repaired] == ["acme"]
    assert await used(begin) == {OCTOBER: {"events": CounterUsage(10, 0, 12)}}
    assert (await revision(begin), await revision(begin, "globex")) == (2, 1)


async def test_recomputing_nobody_changes_nothing(begin):
    async with begin() as tx:
        assert (await recompute_organization("nobody", tx=tx)).repaired == ()


async def test_a_meter_added_later_makes_every_organization_due(begin, arrived, organization):
    async with begin() as tx:
        await project_customers([organization(), organization("silent")], tx=tx)
    await recorded(begin, arrived(events=10))
    product = MeteredProduct("analytics", 1, "events", "events")
    async with begin() as tx:
        assert await project_products([product], tx=tx) == 1
        assert await project_products([product], tx=tx) == 0
        assert await project_products([replace(product, revision=2)], tx=tx) == 0
        assert await project_products([MeteredProduct("analytics", 1, "events", "other")], tx=tx) == 0
        assert await project_products([MeteredProduct("seats", 1, None, None)], tx=tx) == 0
        assert await project_products([MeteredProduct("analytics", 3, "events", "other")], tx=tx) == 1
        assert [held.revision for held in await tx.metered_products()] == [3, 1]
    assert (await revision(begin), await revision(begin, "silent")) == (3, 0)


async def test_a_daily_report_reads_back_the_present_period(begin, claim, organization):
    async with begin() as tx:
        await project_customers([organization()], tx=tx)
    async with begin() as tx:
        arrived = ArrivedReport(claim(day=33, events=9), Arrival("http", b"{}", note={"left_out": ["x"]}))
        current = await record_daily_report(arrived, license_id="license-1", is_of_region=False, tx=tx, now=NOW)
        assert not isinstance(current, Refusal)
        assert current.period.start == NOVEMBER
        assert current.usage is not None
        assert current.usage.counters == {"events": CounterUsage(9, 0, 9)}
        (kept,) = await tx.kept_reports("acme", window_start=None, after_id=0, limit=1)
        assert (kept.intake, kept.note, kept.topic) == ("http", {"left_out": ["x"]}, None)


@pytest.mark.parametrize(("organization_id", "license_id"), [("acme", "license-2"), ("nobody", "license-1")])
async def test_a_daily_report_for_another_license_and_for_nobody_is_the_same_refusal(
    begin, arrived, organization, organization_id, license_id
):
    async with begin() as tx:
        await project_customers([organization()], tx=tx)
    with pytest.raises(NotYours):
        async with begin() as tx:
            await record_daily_report(
                arrived(organization_id, events=1), license_id=license_id, is_of_region=False, tx=tx, now=NOW
            )
    assert await used(begin) == {}


async def test_a_failed_transaction_leaves_nothing(begin, arrived, organization):
    async with begin() as tx:
        await project_customers([organization()], tx=tx)

    class Crash(Exception):
        pass

    async def crash_before_the_commit() -> None:
        async with begin() as tx:
            await record_reports([arrived(events=1)], tx=tx, now=NOW, is_publication_due=True)
            raise Crash

    with pytest.raises(Crash):
        await crash_before_the_commit()
    assert await used(begin) == {}
    assert await recorded(begin, arrived(events=1)) == [Verdict.APPLIED]


async def test_counter_names_are_bounded(begin, arrived, organization):
    async with begin() as tx:
        await project_customers([organization()], tx=tx)
    with pytest.raises(TooManyCounters) as full:
        await recorded(begin, arrived(**{f"c{number:04}": number for number in range(counter_slots.SLOTS_MAX + 1)}))
    assert full.value.counter == f"c{counter_slots.SLOTS_MAX:04}"
    fitting = {f"c{number:04}": number for number in range(counter_slots.SLOTS_MAX)}
    assert await recorded(begin, arrived(**fitting)) == [Verdict.APPLIED]
    assert {c: u.complete for c, u in (await used(begin))[OCTOBER].items()} == fitting


@pytest.mark.integration
async def test_writers_of_one_organization_take_turns(database, arrived, organization):
    """Twenty transactions at once, each with a cell of its own and a counter name of its own: no update is lost."""
    slots = CounterSlots()
    async with database.begin() as transaction:
        await project_customers([organization()], tx=PostgresUsage(transaction, slots))

    async def record(number: int) -> None:
        async with database.begin() as transaction:
            await record_reports(
                [arrived(day=1 + number, events=1, **{f"own_{number}": number})],
                tx=PostgresUsage(transaction, CounterSlots()),
                now=NOW,
                is_publication_due=False,
            )

    await asyncio.gather(*(record(number) for number in range(20)))
    async with database.begin() as transaction:
        usage = PostgresUsage(transaction, CounterSlots())
        (held,) = await usage.periods_in_force("acme", newest=None)
        assert held.counters["events"] == CounterUsage(20, 0, 20)
        assert {f"own_{n}": n for n in range(20)}.items() <= {c: u.complete for c, u in held.counters.items()}.items()
        assert (await usage.organization("acme")).usage_revision == 20


async def test_cells_are_the_join_of_the_kept_claims_whatever_is_voided_and_taken_back(begin, arrived, organization):
    async with begin() as tx:
        await project_customers([organization()], tx=tx)
    first, second, partial = (
        arrived(day=1, at=0, events=10, recordings=7),
        arrived(day=1, at=1, events=6),
        arrived(day=2, complete=False, events=4),
    )
    await recorded(begin, first, second, partial)
    key = second.report.window_key
    assert (await used(begin))[OCTOBER]["events"] == CounterUsage(6, 4, 10)

    async def toggle(report_id: str, verdict: Verdict) -> None:
        async with begin() as tx:
            claims = await tx.kept_claims("acme", OCTOBER, NOVEMBER)
            ids = [claim.kept.id for claim in claims if claim.report.report_id == report_id]
            assert ids
            await tx.set_verdict(ids, verdict)
            await rebuild_windows([key], tx=tx)

    await toggle(second.report.report_id, Verdict.VOIDED)
    assert (await used(begin))[OCTOBER] == {"events": CounterUsage(10, 4, 14), "recordings": CounterUsage(7, 0, 7)}
    assert await recorded(begin, second) == [Verdict.NO_CHANGE]
    assert (await used(begin))[OCTOBER]["events"] == CounterUsage(10, 4, 14)
    await toggle(first.report.report_id, Verdict.VOIDED)
    assert (await used(begin))[OCTOBER] == {"events": CounterUsage(0, 4, 4)}
    async with begin() as tx:
        assert [held for held, _ in await tx.windows_after("acme", None, limit=1_000)] == [partial.report.window_key]
    await toggle(first.report.report_id, Verdict.APPLIED)
    await toggle(second.report.report_id, Verdict.APPLIED)
    assert (await used(begin))[OCTOBER] == {"events": CounterUsage(6, 4, 10), "recordings": CounterUsage(7, 0, 7)}
    async with begin() as tx:
        repaired = await recompute_organization("acme", tx=tx)
        assert (repaired.repaired, repaired.retired) == ((), 0)


async def test_a_report_taken_back_into_count_may_not_lie_across_another(begin, arrived, organization):
    async with begin() as tx:
        await project_customers([organization()], tx=tx)
    whole_day, half_day = arrived(day=1, events=10), arrived(day=1, hours=(12, 24), events=6)
    await recorded(begin, whole_day)
    async with begin() as tx:
        (claim,) = await tx.kept_claims("acme", OCTOBER, NOVEMBER)
        await tx.set_verdict([claim.kept.id], Verdict.VOIDED)
        await rebuild_windows([whole_day.report.window_key], tx=tx)
    assert await recorded(begin, half_day) == [Verdict.APPLIED]

    async def take_back() -> None:
        async with begin() as tx:
            await tx.set_verdict([claim.kept.id], Verdict.APPLIED)
            await rebuild_windows([whole_day.report.window_key], tx=tx)

    with pytest.raises(OverlappingWindows):
        await take_back()
    assert (await used(begin))[OCTOBER] == {"events": CounterUsage(6, 0, 6)}


async def test_claims_that_did_not_come_as_native_messages_are_read_back_exactly(begin, claim, organization):
    async with begin() as tx:
        await project_customers([organization()], tx=tx)
    report = claim(day=3, complete=False, events=12)
    await recorded(begin, ArrivedReport(report, Arrival("http", b'{"anything": 1}', note={"left_out": ["x"]})))
    async with begin() as tx:
        (kept,) = await tx.kept_claims("acme", OCTOBER, NOVEMBER, source="us")
        assert (kept.report, kept.body) == (report, b'{"anything": 1}')
        assert kept.kept.verdict == Verdict.APPLIED
        assert await tx.kept_claims("acme", OCTOBER, NOVEMBER, source="eu") == []
