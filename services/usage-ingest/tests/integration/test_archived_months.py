"""What an archived month means to everybody else, on the memory store and on Postgres: refused, never answered smaller."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime, timedelta

import pytest
from quill_pricing.period import BillingSchedule, Interval
from quill_runtime.database import Database
from quill_usage_ingest.domain.archived_month import MonthArchived, MonthStillNeeded, refuse_archived, refuse_needed
from quill_usage_ingest.domain.correction import CorrectionKind, CorrectionOrder, InvalidCorrection, Replacement
from quill_usage_ingest.domain.period_usage import CounterUsage
from quill_usage_ingest.domain.team_cells import TeamsReport
from quill_usage_ingest.domain.usage_book import Refusal, Verdict
from quill_usage_ingest.domain.usage_month import month_named
from quill_usage_ingest.domain.usage_report import UsageWindow
from quill_usage_ingest.ports import Corrections, TeamTransaction, UsageTransaction
from quill_usage_ingest.store.archive_tables import ArchiveState, archived_months
from quill_usage_ingest.store.corrections import MemoryCorrections, PostgresCorrections
from quill_usage_ingest.store.counter_slots import CounterSlots
from quill_usage_ingest.store.memory import MemoryUsage
from quill_usage_ingest.store.memory_events import MemoryEvents
from quill_usage_ingest.store.memory_teams import MemoryTeams
from quill_usage_ingest.store.meter_events import PostgresEvents
from quill_usage_ingest.store.postgres import PostgresUsage
from quill_usage_ingest.store.teams import PostgresTeams
from quill_usage_ingest.usecases import recompute
from quill_usage_ingest.usecases.correct_usage import apply_correction, revert_correction
from quill_usage_ingest.usecases.explain_usage import explain_usage, usage_as_of
from quill_usage_ingest.usecases.project_customers import project_customers
from quill_usage_ingest.usecases.recompute import audit_organizations, recompute_organization
from quill_usage_ingest.usecases.record_reports import record_reports
from quill_usage_ingest.usecases.record_teams import record_teams
from sqlalchemy import insert

OCTOBER = datetime(2026, 10, 1, tzinfo=UTC)
NOVEMBER = datetime(2026, 11, 1, tzinfo=UTC)
DECEMBER = datetime(2026, 12, 1, tzinfo=UTC)
NOW = datetime(2028, 2, 15, tzinfo=UTC)
DAY = timedelta(days=1)


class Store:
    """One store: transactions, and a way to put October 2026 out of reach without moving it."""

    def __init__(
        self,
        begin: Callable[[], AbstractAsyncContextManager[tuple[UsageTransaction, TeamTransaction, Corrections]]],
        put_out_of_reach: Callable[[], Awaitable[None]],
    ) -> None:
        self.begin = begin
        self.put_october_out_of_reach = put_out_of_reach

    async def record(self, *arrived) -> list[Verdict | Refusal]:
        async with self.begin() as (tx, _, _):
            return await record_reports(arrived, tx=tx, now=DECEMBER, is_publication_due=False)

    async def used(self) -> dict[datetime, CounterUsage]:
        async with self.begin() as (tx, _, _):
            held = await tx.periods_in_force("acme", newest=None)
            return {usage.period.start: usage.counters["events"] for usage in held}


@pytest.fixture(params=["memory", pytest.param("postgres", marks=pytest.mark.integration)])
def store(request: pytest.FixtureRequest) -> Store:
    if request.param == "memory":
        usage, teams, corrections = MemoryUsage(), MemoryTeams(), MemoryCorrections()

        @asynccontextmanager
        async def in_memory() -> AsyncIterator[tuple[UsageTransaction, TeamTransaction, Corrections]]:
            async with usage.begin():
                yield usage, teams, corrections

        async def forget() -> None:
            usage.months_out_of_reach = teams.months_out_of_reach = frozenset({OCTOBER})

        return Store(in_memory, forget)
    database: Database = request.getfixturevalue("database")
    slots = CounterSlots()

    @asynccontextmanager
    async def in_postgres() -> AsyncIterator[tuple[UsageTransaction, TeamTransaction, Corrections]]:
        async with database.begin() as transaction:
            yield PostgresUsage(transaction, slots), PostgresTeams(transaction, slots), PostgresCorrections(transaction)

    async def remember() -> None:
        async with database.begin() as transaction:
            row = {"month": OCTOBER, "state": ArchiveState.DETACHED.value, "folder": "", "rows": 0, "manifest": {}}
            await transaction.connection.execute(insert(archived_months).values(**row, archived_at=NOW))

    return Store(in_postgres, remember)


@pytest.fixture
async def filled(store: Store, arrived, organization) -> Store:
    """acme used 10 + 5 in October and 7 in November 2026; October is out of reach."""
    async with store.begin() as (tx, _, _):
        await project_customers([organization()], tx=tx)
    await store.record(arrived(day=1, events=10), arrived(day=31, events=5), arrived(day=40, events=7))
    assert await store.used() == USED
    return store


USED = {OCTOBER: CounterUsage(15, 0, 15), NOVEMBER: CounterUsage(7, 0, 7)}


async def test_a_late_report_for_an_archived_month_is_refused_with_the_way_back(filled: Store, arrived):
    await filled.put_october_out_of_reach()
    late, on_time, again = await filled.record(
        arrived(day=2, events=4), arrived(day=41, events=1), arrived(day=1, events=10)
    )
    assert isinstance(late, Refusal)
    assert (late.code, late.attribute, late.subject) == ("month_archived", "window_start", "acme")
    assert late.detail.startswith("window_start: 2026-10 is archived: ")
    assert "attach 2026-10" in late.detail
    assert "restore 2026-10 --from FOLDER" in late.detail
    assert on_time is Verdict.APPLIED
    assert isinstance(again, Refusal), "whether it is known cannot be seen without the month"
    assert await filled.used() == {OCTOBER: CounterUsage(15, 0, 15), NOVEMBER: CounterUsage(8, 0, 8)}


async def test_teams_of_a_refused_report_are_not_entered_without_it(filled: Store, claim):
    await filled.put_october_out_of_reach()
    async with filled.begin() as (_, teams, _):
        late, other = (TeamsReport(claim(day=day, events=3), {"17": {"events": 3}}) for day in (2, 41))
        assert await record_teams([late, other], tx=teams, now=NOW) == 1
        assert {key.start for key in await teams.team_rows_of_days({late.report.day_key, other.report.day_key})} == {
            other.report.window.start
        }


async def test_questions_about_an_archived_month_are_refused_and_others_answered(filled: Store, organization):
    await filled.put_october_out_of_reach()
    october, november = (organization().schedule.period_containing(start) for start in (OCTOBER, NOVEMBER))
    async with filled.begin() as (tx, teams, corrections):
        known = await tx.organization("acme")
        for ask in (
            lambda: explain_usage(known, october, "events", tx=tx, corrections=corrections),
            lambda: usage_as_of(known, october, NOW, counters=["events"], tx=tx, corrections=corrections),
            lambda: tx.windows_between("acme", OCTOBER + 30 * DAY, NOVEMBER + DAY),
            lambda: tx.kept_claims("acme", OCTOBER - DAY, NOVEMBER + DAY),
            lambda: tx.kept_reports("acme", window_start=OCTOBER, after_id=0, limit=10),
            lambda: teams.team_ids("acme", OCTOBER, NOVEMBER, limit=10),
            lambda: teams.team_amounts(
                "acme", OCTOBER, NOVEMBER, interval="day", counters=["events"], team_ids=None, limit=10
            ),
        ):
            with pytest.raises(MonthArchived, match="2026-10"):
                await ask()
        assert (await explain_usage(known, november, "events", tx=tx, corrections=corrections)).is_equal
        assert len(await tx.windows_between("acme", NOVEMBER, DECEMBER)) == 1
        assert await teams.team_ids("acme", NOVEMBER, DECEMBER, limit=10) == []


async def test_the_audit_leaves_periods_of_archived_months_as_they_are(filled: Store):
    """The cells of October are not there: adding up what is left would make its period zero (L2, L3)."""
    await filled.put_october_out_of_reach()
    async with filled.begin() as (tx, _, _):
        await tx.delete_windows(
            [key for key, _ in await tx.windows_after("acme", None, limit=10) if key.start < NOVEMBER]
        )
    async with filled.begin() as (tx, _, _):
        assert await audit_organizations(tx=tx, after="", limit=10) == ("", [])
    assert await filled.used() == USED


@pytest.mark.parametrize("page", [1, 2, 3])
async def test_adding_up_page_by_page_is_adding_up_at_once(filled: Store, page, monkeypatch: pytest.MonkeyPatch):
    """However many windows there are, none is left out: what is left out would be repaired away."""
    monkeypatch.setattr(recompute, "WINDOWS_PER_PAGE", page)
    async with filled.begin() as (tx, _, _):
        result = await recompute_organization("acme", tx=tx)
        assert (result.repaired, result.retired) == ((), 0)
    assert await filled.used() == USED


async def test_the_audit_still_repairs_periods_that_are_wholly_here(filled: Store):
    await filled.put_october_out_of_reach()
    async with filled.begin() as (tx, _, _):
        await tx.delete_windows(
            [key for key, _ in await tx.windows_after("acme", None, limit=10) if key.start >= NOVEMBER]
        )
        repaired = await recompute_organization("acme", tx=tx)
        assert repaired.retired == 1
    assert await filled.used() == {OCTOBER: CounterUsage(15, 0, 15)}


async def test_a_changed_schedule_neither_retires_nor_makes_periods_of_an_archived_month(
    filled: Store, arrived, organization
):
    """15 October to 15 November would hold a part that nobody can add up: it is not made, and reports for it wait."""
    await filled.record(arrived(day=50, events=2))
    await filled.put_october_out_of_reach()
    async with filled.begin() as (tx, _, _):
        await project_customers([organization(revision=2, anchor=OCTOBER + 14 * DAY)], tx=tx)
    middle = datetime(2026, 11, 15, tzinfo=UTC)
    assert await filled.used() == {OCTOBER: CounterUsage(15, 0, 15), middle: CounterUsage(2, 0, 2)}
    within, after = await filled.record(arrived(day=42, events=1), arrived(day=51, events=3))
    assert isinstance(within, Refusal)
    assert within.code == "month_archived"
    assert after is Verdict.APPLIED


async def test_nothing_of_an_archived_month_is_corrected_or_taken_back(filled: Store):
    def order(correction_id: str, **given) -> CorrectionOrder:
        return CorrectionOrder(correction_id, "acme", actor="ada", reason="bots", **given)

    async with filled.begin() as (tx, _, corrections):
        first = (await tx.kept_reports("acme", window_start=OCTOBER, after_id=0, limit=1))[0]
        voided = order("before", kind=CorrectionKind.VOID, kept_ids=(first.id,))
        await apply_correction(voided, tx=tx, events=MemoryEvents(), corrections=corrections, now=NOW)
    assert (await filled.used())[OCTOBER] == CounterUsage(5, 0, 5)
    await filled.put_october_out_of_reach()
    replacement = Replacement(UsageWindow(OCTOBER, OCTOBER + DAY), {"events": 1})
    replaced = order(
        "r", kind=CorrectionKind.REPLACE, source="us", start=OCTOBER, end=OCTOBER + DAY, windows=(replacement,)
    )
    async with filled.begin() as (tx, _, corrections):
        with pytest.raises(MonthArchived, match="2026-10"):
            await apply_correction(replaced, tx=tx, events=MemoryEvents(), corrections=corrections, now=NOW)
    async with filled.begin() as (tx, _, corrections):
        with pytest.raises(MonthArchived, match="2026-10"):
            await revert_correction(
                "acme",
                "before",
                actor="ada",
                reason="no",
                tx=tx,
                events=MemoryEvents(),
                corrections=corrections,
                now=NOW,
            )
    assert (await filled.used())[OCTOBER] == CounterUsage(5, 0, 5)


@pytest.mark.integration
async def test_reports_of_an_archived_month_cannot_be_voided(database: Database, arrived, organization):
    async with database.begin() as transaction:
        tx, events = PostgresUsage(transaction, CounterSlots()), PostgresEvents(transaction)
        await project_customers([organization()], tx=tx)
        unknown = CorrectionOrder("v", "acme", CorrectionKind.VOID, "ada", "bots", kept_ids=(7,))
        with pytest.raises(InvalidCorrection, match="or its month is archived"):
            await apply_correction(unknown, tx=tx, events=events, corrections=PostgresCorrections(transaction), now=NOW)


@pytest.mark.parametrize(
    ("start", "end", "refused"),
    [
        ("2025-03-31T23:59:59", "2025-04-01T00:00:00", True),
        ("2025-02-01T00:00:00", "2025-03-01T00:00:00", False),
        ("2025-02-01T00:00:00", "2025-03-01T00:00:01", True),
        ("2025-04-01T00:00:00", "2025-05-01T00:00:00", False),
        ("2025-01-01T00:00:00", "2026-01-01T00:00:00", True),
    ],
)
def test_a_span_is_refused_when_it_shares_an_instant_with_an_archived_month(start, end, refused):
    span = [datetime.fromisoformat(each).replace(tzinfo=UTC) for each in (start, end)]
    if refused:
        with pytest.raises(MonthArchived, match="2025-03"):
            refuse_archived({month_named("2025-03")}, *span)
    else:
        refuse_archived({month_named("2025-03")}, *span)


@pytest.mark.parametrize(
    ("interval", "anchor", "keep_months", "first_day_it_may_go"),
    [
        # March 2025 is in the period to 1 April; 14 months later is 1 June 2026.
        ("month", "2025-01-01", 14, "2026-06-01"),
        # Its last day is in the period from 15 March to 15 April.
        ("month", "2025-01-15", 14, "2026-06-15"),
        # 28 February to 31 March ends before its last day, which is in the period to 30 April.
        ("month", "2025-01-31", 14, "2026-06-30"),
        # A year of billing ends on 10 February 2026.
        ("year", "2025-02-10", 14, "2027-04-10"),
        ("month", "2025-01-01", 0, "2025-04-01"),
        ("month", "2025-01-15", 0, "2025-04-15"),
    ],
)
def test_a_month_is_kept_until_its_last_billing_period_is_old_enough(
    interval, anchor, keep_months, first_day_it_may_go
):
    schedule = BillingSchedule(datetime.fromisoformat(anchor).replace(tzinfo=UTC), Interval.parse(interval))
    may_go = datetime.fromisoformat(first_day_it_may_go).replace(tzinfo=UTC)
    month = month_named("2025-03")
    refuse_needed(month, [("acme", schedule)], keep_months=keep_months, now=may_go)
    with pytest.raises(MonthStillNeeded, match=r"2025-03: the billing period .* of acme"):
        refuse_needed(month, [("acme", schedule)], keep_months=keep_months, now=may_go - timedelta(microseconds=1))
