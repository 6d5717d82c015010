"""What teams used, as one behaviour on both stores: marks, sums, revisions, sweeps (L2, L6, L10)."""

import itertools
import random
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from quill_pricing.period import BillingSchedule, Interval
from quill_runtime.database import Database
from quill_usage_ingest.domain.completeness import Completeness
from quill_usage_ingest.domain.meters import MeteredProduct
from quill_usage_ingest.domain.organization import CustomerFacts, Organization
from quill_usage_ingest.domain.team_cells import TeamsReport
from quill_usage_ingest.domain.team_usage import TeamMeterUsage, TeamName, TeamUsage
from quill_usage_ingest.domain.usage_report import UsageReport, UsageWindow
from quill_usage_ingest.ports import Arrival, ArrivedReport, TeamTransaction, TeamUsageTransaction, UsageTransaction
from quill_usage_ingest.store.counter_slots import CounterSlots
from quill_usage_ingest.store.memory import MemoryUsage
from quill_usage_ingest.store.memory_team_usage import MemoryTeamUsage
from quill_usage_ingest.store.memory_teams import MemoryTeams
from quill_usage_ingest.store.postgres import PostgresUsage
from quill_usage_ingest.store.team_usage import PostgresTeamUsage
from quill_usage_ingest.store.teams import PostgresTeams
from quill_usage_ingest.usecases.count_team_usage import count_team_usage
from quill_usage_ingest.usecases.project_customers import project_customers
from quill_usage_ingest.usecases.project_products import project_products
from quill_usage_ingest.usecases.record_reports import record_reports
from quill_usage_ingest.usecases.record_teams import rebuild_team_windows, record_teams

OCTOBER = datetime(2026, 10, 1, tzinfo=UTC)
NOW = datetime(2026, 10, 20, tzinfo=UTC)
DAY = timedelta(days=1)
EVENTS = MeteredProduct("product_analytics", 1, "events", "event_count")
RECORDINGS = MeteredProduct("session_replay", 1, "recordings", "recording_count")


@dataclass
class Stores:
    """The three sides of one transaction."""

    usage: UsageTransaction
    teams: TeamTransaction
    team_usage: TeamUsageTransaction


Begin = Callable[[], AbstractAsyncContextManager[Stores]]


def in_memory() -> Begin:
    usage, teams = MemoryUsage(), MemoryTeams()
    stores = Stores(usage, teams, MemoryTeamUsage(teams, usage))

    @asynccontextmanager
    async def begin() -> AsyncIterator[Stores]:
        yield stores

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
            yield Stores(
                PostgresUsage(transaction, slots),
                PostgresTeams(transaction, slots),
                PostgresTeamUsage(transaction, slots),
            )

    return begin


@pytest.fixture
def teams_of(claim) -> Callable[..., TeamsReport]:
    """``teams_of({"1": 3}, day=2)``: what teams used of ``event_count``, or by counter."""

    def build(teams: dict[str, Any], organization_id: str = "acme", **given: Any) -> TeamsReport:
        by_counter = {
            team_id: used if isinstance(used, dict) else {"event_count": used} for team_id, used in teams.items()
        }
        return TeamsReport(claim(organization_id, **given), by_counter)

    return build


async def know(begin: Begin, *known: Organization | MeteredProduct) -> None:
    """Customers and products, with what their consumers ask for beside."""
    customers = [each for each in known if isinstance(each, Organization)]
    products = [each for each in known if isinstance(each, MeteredProduct)]
    async with begin() as tx:
        projected = await project_customers(customers, tx=tx.usage)
        await project_products(products, tx=tx.usage)
        everybody = await tx.usage.organizations_after("", limit=100)
        await tx.team_usage.begin_sweeps(everybody if products else [*projected.first_seen, *projected.rescheduled])


async def enter(begin: Begin, *claims: TeamsReport, now: datetime = NOW) -> None:
    async with begin() as tx:
        await record_teams(claims, tx=tx.teams, now=now)


async def count(begin: Begin, *, now: datetime = NOW, limit: int = 100) -> int:
    """Everything that is marked or must be, until nothing is left; returns how many teams were added up."""
    done = 0
    while True:
        async with begin() as tx:
            swept = await tx.team_usage.sweep_teams(limit=limit)
        async with begin() as tx:
            counted = await count_team_usage(None, tx=tx.team_usage, now=now, limit=limit)
        done += counted
        if not swept and not counted:
            return done


async def told(begin: Begin, *team_ids: str, organization_id: str = "acme", now: datetime = NOW) -> list[TeamUsage]:
    """What is kept of these teams."""
    teams = [TeamName(organization_id, team_id) for team_id in team_ids]
    async with begin() as tx:
        await tx.teams.mark_teams(teams)
        held = await tx.team_usage.take_marked_teams([organization_id], limit=100)
        return [held[team] for team in teams]


def shown(usage: TeamUsage) -> list[tuple[int, dict[str, tuple[int, int]]]]:
    return [
        (each.period.start.month, {meter: tuple(used) for meter, used in each.meters.items()}) for each in usage.periods
    ]


async def test_a_snapshot_holds_the_open_and_the_previous_period_by_meter(begin, teams_of, organization):
    await know(begin, organization(), EVENTS, RECORDINGS)
    await enter(
        begin,
        teams_of({"1": {"event_count": 5, "recording_count": 2, "other": 9}, "2": 7}, day=1),
        teams_of({"1": 3}, day=1, source="eu"),
        teams_of({"1": 4}, day=19, complete=False),
        teams_of({"1": 100}, day=-3),
        teams_of({"1": 1_000}, day=-40),
        teams_of({"1": 10_000}, "globex"),
    )
    await count(begin)
    one, two = await told(begin, "1", "2")
    assert shown(one) == [(10, {"events": (8, 4), "recordings": (2, 0)}), (9, {"events": (100, 0)})]
    assert shown(two) == [(10, {"events": (7, 0)})]
    assert (one.revision, two.revision) == (1, 1)


async def test_what_is_sent_again_changes_nothing_and_marks_nobody(begin, teams_of, organization):
    await know(begin, organization(), EVENTS)
    claims = [teams_of({"1": 5, "2": 7}, day=day) for day in (1, 2)]
    await enter(begin, *claims)
    assert await count(begin) == 2
    await enter(begin, *claims)
    assert await count(begin) == 0
    await enter(begin, teams_of({"1": 9}, day=1, at=1))
    assert await count(begin) == 1
    one, two = await told(begin, "1", "2")
    assert (one.revision, shown(one)) == (2, [(10, {"events": (14, 0)})])
    assert (two.revision, shown(two)) == (1, [(10, {"events": (14, 0)})])


async def test_a_late_report_of_an_old_period_is_no_new_snapshot(begin, teams_of, organization):
    await know(begin, organization(), EVENTS)
    await enter(begin, teams_of({"1": 5}))
    await count(begin)
    await enter(begin, teams_of({"1": 5}, day=-60))
    assert await count(begin) == 1
    (one,) = await told(begin, "1")
    assert one.revision == 1


async def test_a_window_made_again_lowers_the_teams_and_a_team_may_use_nothing_any_more(begin, teams_of, organization):
    await know(begin, organization(), EVENTS)
    first, wrong = teams_of({"1": 3}, at=1), teams_of({"1": 99, "2": 9}, at=2)
    await enter(begin, first, wrong)
    await count(begin)
    async with begin() as tx:
        await rebuild_team_windows([wrong.report.window_key], [first], tx=tx.teams)
    await count(begin)
    one, two = await told(begin, "1", "2")
    assert (one.revision, shown(one)) == (2, [(10, {"events": (3, 0)})])
    assert (two.revision, shown(two)) == (2, [])


async def test_what_a_person_replaced_counts_for_no_team_until_it_is_taken_back(begin, teams_of, organization):
    """Nobody said which team used what is left of the window; the counters not named stay with their teams (L3)."""
    await know(begin, organization(), EVENTS, RECORDINGS)
    claims = [teams_of({"1": {"event_count": 5, "recording_count": 2}}, day=day) for day in (1, 2)]
    await enter(begin, *claims)
    replaced = UsageReport(
        report_id="correction:r1",
        organization_id="acme",
        source="us",
        window=UsageWindow(OCTOBER, OCTOBER + DAY),
        completeness=Completeness.CORRECTED,
        as_of=NOW,
        counters={"event_count": 1},
        content_hash=b"r1",
    )
    async with begin() as tx:
        await record_reports(
            [ArrivedReport(replaced, Arrival("kafka", b"{}"))], tx=tx.usage, now=NOW, is_publication_due=True
        )
    await count(begin)
    await enter(begin, teams_of({"1": {"event_count": 7, "recording_count": 3}}, day=1, at=1))
    await count(begin)
    (one,) = await told(begin, "1")
    assert shown(one) == [(10, {"events": (5, 0), "recordings": (5, 0)})]
    async with begin() as tx:
        await tx.usage.delete_windows([replaced.window_key])
        await tx.team_usage.begin_sweeps(["acme"])
    await count(begin)
    (one,) = await told(begin, "1")
    assert shown(one) == [(10, {"events": (12, 0), "recordings": (5, 0)})]


async def test_teams_of_an_organization_nobody_knows_are_told_of_when_the_customer_arrives(
    begin, teams_of, organization
):
    await know(begin, EVENTS)
    await enter(begin, teams_of({"1": 5, "2": 7}))
    assert await count(begin) == 2
    assert [each.revision for each in await told(begin, "1", "2")] == [0, 0]
    await count(begin)
    await know(begin, organization())
    assert await count(begin, limit=1) == 2
    assert [shown(each) for each in await told(begin, "1", "2")] == [
        [(10, {"events": (5, 0)})],
        [(10, {"events": (7, 0)})],
    ]


async def test_the_catalog_says_what_counts_for_whom_and_from_when(begin, teams_of, organization):
    await know(begin, organization())
    await enter(begin, *(teams_of({"1": 10}, day=day) for day in (1, 10, 11)))
    await count(begin)
    assert [each.revision for each in await told(begin, "1")] == [0], "no meter, nothing to tell"
    since = OCTOBER + 9 * DAY
    dated = MeteredProduct("gateway", 1, "gateway_events", "event_count", counts_from=since)
    await know(begin, EVENTS, dated)
    await count(begin)
    (one,) = await told(begin, "1")
    assert shown(one) == [(10, {"events": (30, 0), "gateway_events": (20, 0)})]


async def test_a_changed_schedule_cuts_the_teams_periods_too(begin, teams_of, organization):
    await know(begin, organization(), EVENTS)
    await enter(begin, *(teams_of({"1": 10}, day=day) for day in (1, 10, 15)))
    await count(begin)
    cut = OCTOBER + 9 * DAY
    await know(begin, organization(revision=2, anchor=cut, agreed=cut))
    await count(begin)
    (one,) = await told(begin, "1")
    assert [(each.period.start, each.period.end, dict(each.meters)) for each in one.periods] == [
        (cut, datetime(2026, 11, 10, tzinfo=UTC), {"events": TeamMeterUsage(20, 0)}),
        (OCTOBER, cut, {"events": TeamMeterUsage(10, 0)}),
    ]


async def test_the_next_period_is_told_as_soon_as_it_has_usage(begin, teams_of, organization):
    await know(begin, organization(), EVENTS)
    late = OCTOBER + 30 * DAY
    await enter(begin, teams_of({"1": 5}), teams_of({"1": 3}, day=-1), now=late)
    await count(begin, now=late)
    (one,) = await told(begin, "1")
    assert [month for month, _ in shown(one)] == [10, 9]
    await enter(begin, teams_of({"1": 1}, day=32, complete=False), now=late)
    await count(begin, now=late)
    (one,) = await told(begin, "1")
    assert shown(one) == [(11, {"events": (0, 1)}), (10, {"events": (5, 0)})]


async def test_only_the_named_organizations_are_counted_and_no_more_than_asked(begin, teams_of, organization):
    await know(begin, organization(), organization("globex"), EVENTS)
    await enter(begin, teams_of({str(n): 1 for n in range(5)}), teams_of({"1": 1}, "globex"))
    async with begin() as tx:
        assert await count_team_usage(["acme"], tx=tx.team_usage, now=NOW, limit=2) == 2
    async with begin() as tx:
        assert await count_team_usage(["acme"], tx=tx.team_usage, now=NOW, limit=100) == 3
    async with begin() as tx:
        assert await count_team_usage(["acme"], tx=tx.team_usage, now=NOW, limit=100) == 0
    async with begin() as tx:
        assert await count_team_usage(None, tx=tx.team_usage, now=NOW, limit=100) == 1


async def test_any_order_repetition_and_cut_gives_the_same_snapshots(begin, teams_of, organization):
    await know(begin, organization(), organization("globex"), EVENTS)
    claims = [
        teams_of({"1": 3 * day + at, "2": at}, day=day, at=at, source=source, complete=complete)
        for day in (-20, 1, 2)
        for at in (0, 1)
        for source in ("us", "eu")
        for complete in (False, True)
    ]
    await enter(begin, *(TeamsReport(_of(each.report, "globex"), each.teams) for each in claims))
    await count(begin)
    shuffled = claims * 2
    random.Random(7).shuffle(shuffled)
    revisions = []
    while shuffled:
        batch, shuffled = shuffled[:5], shuffled[5:]
        await enter(begin, *batch)
        await count(begin)
        (one,) = await told(begin, "1")
        revisions.append((one.revision, shown(one)))
    assert [shown(each) for each in await told(begin, "1", "2")] == [
        shown(each) for each in await told(begin, "1", "2", organization_id="globex")
    ]
    for (before, was), (after, now_is) in itertools.pairwise(revisions):
        assert after == before + (was != now_is)


def _of(report: UsageReport, organization_id: str) -> UsageReport:
    return UsageReport(
        report_id=report.report_id,
        organization_id=organization_id,
        source=report.source,
        window=report.window,
        completeness=report.completeness,
        as_of=report.as_of,
        counters=report.counters,
        content_hash=report.content_hash,
    )


QUANTITIES = st.dictionaries(st.sampled_from(["1", "2", "3"]), st.integers(0, 1_000), min_size=1)


@settings(deadline=None, max_examples=60)
@given(
    st.dictionaries(
        st.tuples(st.integers(-30, 18), st.sampled_from(["us", "eu"])),
        st.lists(st.tuples(QUANTITIES, st.booleans()), min_size=1, max_size=3),
        min_size=1,
        max_size=8,
    ),
    st.randoms(use_true_random=False),
)
async def test_the_teams_of_an_organization_add_up_to_it_when_reports_carry_their_sums(windows, dice):
    """Every team of the window is named in each of its reports, as regions do; then the sums agree, meter by meter."""
    begin = in_memory()
    arrived, claims = [], []
    for (day, source), told_of in windows.items():
        named = {team_id for teams, _ in told_of for team_id in teams}
        for at, (teams, is_complete) in enumerate(told_of):
            by_team = {team_id: {"event_count": teams.get(team_id, 0)} for team_id in named}
            start = OCTOBER + day * DAY
            report = UsageReport(
                report_id=f"{day}:{at}",
                organization_id="acme",
                source=source,
                window=UsageWindow(start, start + DAY),
                completeness=Completeness.COMPLETE if is_complete else Completeness.PARTIAL,
                as_of=start + timedelta(hours=at),
                counters={"event_count": sum(teams.values())},
                content_hash=f"{day}:{source}:{at}".encode(),
            )
            arrived.append(ArrivedReport(report, Arrival("kafka", b"")))
            claims.append(TeamsReport(report, by_team))
    dice.shuffle(arrived)
    dice.shuffle(claims)
    schedule = _customer()
    await know(begin, schedule, EVENTS)
    async with begin() as tx:
        await record_reports(arrived, tx=tx.usage, now=NOW, is_publication_due=True)
    await enter(begin, *claims)
    await count(begin)
    async with begin() as tx:
        whole = {
            each.period: (each.counters["event_count"].complete, each.counters["event_count"].partial)
            for each in await tx.usage.periods_in_force("acme", newest=2)
        }
    sums: dict[Any, tuple[int, int]] = {}
    for usage in await told(begin, *sorted({team_id for claim in claims for team_id in claim.teams})):
        for each in usage.periods:
            complete, partial = sums.get(each.period, (0, 0))
            used = each.meters["events"]
            sums[each.period] = (complete + used.complete, partial + used.partial)
    assert sums == whole


def _customer() -> Organization:
    return Organization(
        "acme", "license-1", 1, BillingSchedule(OCTOBER, Interval.parse("month")), CustomerFacts("c", "cloud")
    )
