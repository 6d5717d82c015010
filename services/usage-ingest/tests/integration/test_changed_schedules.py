"""A changed schedule moves windows from its cut on to new periods at once, on both stores (L2, L3, L21)."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import pytest
from quill_runtime.database import Database
from quill_usage_ingest.domain.usage_report import UsageWindow
from quill_usage_ingest.ports import ArrivedReport, UsageTransaction
from quill_usage_ingest.store.counter_slots import CounterSlots
from quill_usage_ingest.store.memory import MemoryUsage
from quill_usage_ingest.store.postgres import PostgresUsage
from quill_usage_ingest.usecases.project_customers import project_customers
from quill_usage_ingest.usecases.recompute import recompute_organization
from quill_usage_ingest.usecases.record_reports import record_reports


async def entered(tx, reports) -> None:
    """A day after the last of their windows."""
    now = max((each.report.window.end for each in reports), default=datetime(2026, 1, 1, tzinfo=UTC))
    await record_reports(reports, tx=tx, now=now + timedelta(days=1), is_publication_due=False)


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


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def on_day(item: ArrivedReport, day: str) -> ArrivedReport:
    """The report as one of this day."""
    window = UsageWindow(at(day), at(day) + timedelta(days=1))
    name = f"{day} {item.report.report_id}"
    report = replace(item.report, window=window, as_of=window.end, report_id=name, content_hash=name.encode())
    return replace(item, report=report)


async def told(begin: Begin) -> list[str]:
    """Periods in force as ``2026-01-31..2026-02-28: 3``, with ``/5`` behind it when the maximum is another one."""
    async with begin() as tx:
        held = await tx.periods_in_force("acme", newest=None)
    found = []
    for usage in held:
        counted = usage.counters["events"]
        maximum = f"/{counted.maximum}" if counted.maximum != counted.to_date else ""
        found.append(f"{usage.period.start.date()}..{usage.period.end.date()}: {counted.to_date}{maximum}")
    return found


@dataclass(frozen=True)
class Move:
    """One unit on each day, counted by one schedule and then, from the cut on, by another as well."""

    was: tuple[str, str]
    becomes: tuple[str, str]
    agreed: str
    days: str
    before: list[str]
    after: list[str]


MOVES = {
    "the anchor moves from the 31st to the 15th": Move(
        was=("2026-01-31", "month"),
        becomes=("2026-03-15", "month"),
        agreed="2026-03-20",
        days="2026-02-27 2026-02-28 2026-03-14 2026-03-15 2026-03-19",
        before=["2026-01-31..2026-02-28: 1", "2026-02-28..2026-03-31: 4"],
        after=["2026-01-31..2026-02-28: 1", "2026-02-28..2026-03-15: 2", "2026-03-15..2026-04-15: 2"],
    ),
    "month to year": Move(
        was=("2026-01-01", "month"),
        becomes=("2026-02-10", "year"),
        agreed="2026-02-12",
        days="2026-01-05 2026-02-01 2026-02-09 2026-02-10 2026-02-11",
        before=["2026-01-01..2026-02-01: 1", "2026-02-01..2026-03-01: 4"],
        after=["2026-01-01..2026-02-01: 1", "2026-02-01..2026-02-10: 2", "2026-02-10..2027-02-10: 2"],
    ),
    "year to month": Move(
        was=("2025-12-31", "year"),
        becomes=("2026-06-15", "month"),
        agreed="2026-06-15",
        days="2025-12-30 2025-12-31 2026-06-14 2026-06-15 2026-07-15",
        before=["2024-12-31..2025-12-31: 1", "2025-12-31..2026-12-31: 4"],
        after=[
            "2024-12-31..2025-12-31: 1",
            "2025-12-31..2026-06-15: 2",
            "2026-06-15..2026-07-15: 1",
            "2026-07-15..2026-08-15: 1",
        ],
    ),
    "month to year on a leap day, at the edge": Move(
        was=("2027-12-29", "month"),
        becomes=("2028-02-29", "year"),
        agreed="2028-02-29",
        days="2028-02-28 2028-02-29 2028-03-29 2029-02-27 2029-02-28",
        before=[
            "2028-01-29..2028-02-29: 1",
            "2028-02-29..2028-03-29: 1",
            "2028-03-29..2028-04-29: 1",
            "2029-01-29..2029-02-28: 1",
            "2029-02-28..2029-03-29: 1",
        ],
        after=["2028-01-29..2028-02-29: 1", "2028-02-29..2029-02-28: 3", "2029-02-28..2030-02-28: 1"],
    ),
    "a schedule whose period began before the present one follows it": Move(
        was=("2026-01-01", "month"),
        becomes=("2026-01-15", "year"),
        agreed="2026-02-10",
        days="2026-01-20 2026-02-05 2026-02-28 2026-03-01 2027-01-14 2027-01-15",
        before=[
            "2026-01-01..2026-02-01: 1",
            "2026-02-01..2026-03-01: 2",
            "2026-03-01..2026-04-01: 1",
            "2027-01-01..2027-02-01: 2",
        ],
        after=[
            "2026-01-01..2026-02-01: 1",
            "2026-02-01..2026-03-01: 2",
            "2026-03-01..2027-01-15: 2",
            "2027-01-15..2028-01-15: 1",
        ],
    ),
}


@pytest.mark.parametrize("move", MOVES.values(), ids=MOVES)
@pytest.mark.parametrize("told_late", [0, 2], ids=["reports before", "two reports after"])
async def test_a_changed_schedule_cuts_the_period_it_was_agreed_in(
    begin, arrived, organization, move: Move, told_late: int
):
    """Whether a day is reported before the change or after it, it counts in the same period."""

    def customer(revision: int, schedule: tuple[str, str], agreed: str | None = None):
        when = at(agreed) if agreed else None
        return organization(revision=revision, anchor=at(schedule[0]), interval=schedule[1], agreed=when)

    reports = [on_day(arrived(events=1), day) for day in move.days.split()]
    early, late = reports[told_late:], reports[:told_late]
    async with begin() as tx:
        await project_customers([customer(1, move.was)], tx=tx)
        await entered(tx, early)
    if not late:
        assert await told(begin) == move.before
    async with begin() as tx:
        projected = await project_customers([customer(2, move.becomes, move.agreed)], tx=tx)
        assert projected.rescheduled == ("acme",)
    async with begin() as tx:
        await entered(tx, late)
    assert await told(begin) == move.after
    async with begin() as tx:
        assert (await recompute_organization("acme", tx=tx)).repaired == ()
        repeated = [customer(2, move.becomes, move.agreed), customer(1, move.was)]
        assert (await project_customers(repeated, tx=tx)).rescheduled == ()
        known = await tx.organization("acme")
        standing = (await tx.lock_standings({"acme"}))["acme"]
        assert known is not None
        assert standing.schedules == known.schedules
    assert await told(begin) == move.after


@pytest.mark.parametrize("batches", [[[1, 2, 3]], [[1], [2, 3]], [[1, 2], [3]], [[1], [2], [3]], [[1], [3, 2, 1], [2]]])
async def test_where_periods_end_does_not_depend_on_how_the_log_was_cut(begin, arrived, organization, batches):
    customers = {
        1: organization(anchor=at("2026-01-01")),
        2: organization(revision=2, anchor=at("2026-01-10"), interval="week", agreed=at("2026-01-11")),
        3: organization(revision=3, anchor=at("2026-01-14"), interval="year", agreed=at("2026-01-14")),
    }
    for batch in batches:
        async with begin() as tx:
            await project_customers([customers[revision] for revision in batch], tx=tx)
    async with begin() as tx:
        days = ["2026-01-09", "2026-01-10", "2026-01-13", "2026-01-14"]
        reports = [on_day(arrived(events=1), day) for day in days]
        await entered(tx, reports)
    assert await told(begin) == ["2026-01-01..2026-01-10: 1", "2026-01-10..2026-01-14: 2", "2026-01-14..2027-01-14: 1"]


async def test_of_a_change_that_was_never_read_no_cut_is_kept(begin, arrived, organization):
    """Only the highest revision counts: a compacted log may have lost those between."""
    async with begin() as tx:
        await project_customers([organization(anchor=at("2026-01-01"))], tx=tx)
        newest = organization(revision=3, anchor=at("2026-01-14"), interval="year", agreed=at("2026-01-14"))
        await project_customers([newest], tx=tx)
        skipped = organization(revision=2, anchor=at("2026-01-10"), interval="week", agreed=at("2026-01-11"))
        assert (await project_customers([skipped], tx=tx)).rescheduled == ()
        reports = [on_day(arrived(events=1), day) for day in ("2026-01-09", "2026-01-13", "2026-01-14")]
        await entered(tx, reports)
    assert await told(begin) == ["2026-01-01..2026-01-14: 2", "2026-01-14..2027-01-14: 1"]


async def test_a_period_keeps_its_own_maximum_and_a_cut_one_begins_with_its_own_days(begin, arrived, organization):
    """31 January was counted as 50, then as 20: what was published stays the maximum of that very period (L3)."""
    async with begin() as tx:
        await project_customers([organization(anchor=at("2026-01-31"))], tx=tx)
        first, second, later = arrived(complete=False, events=50), arrived(events=20), arrived(events=3)
        reports = [on_day(first, "2026-01-31"), on_day(second, "2026-01-31"), on_day(later, "2026-02-20")]
        await entered(tx, reports)
    assert await told(begin) == ["2026-01-31..2026-02-28: 23/50"]
    async with begin() as tx:
        year = organization(revision=2, anchor=at("2026-02-15"), interval="year", agreed=at("2026-02-21"))
        await project_customers([year], tx=tx)
    assert await told(begin) == ["2026-01-31..2026-02-15: 20", "2026-02-15..2027-02-15: 3"]
    async with begin() as tx:
        await entered(tx, [on_day(arrived(events=7), "2026-02-14")])
    assert await told(begin) == ["2026-01-31..2026-02-15: 27", "2026-02-15..2027-02-15: 3"]


async def test_a_change_ahead_leaves_present_periods_as_they_are(begin, arrived, organization):
    async with begin() as tx:
        await project_customers([organization(anchor=at("2026-01-31"))], tx=tx)
        first, second = arrived(complete=False, events=50), arrived(events=20)
        reports = [on_day(first, "2026-01-31"), on_day(second, "2026-01-31")]
        await entered(tx, reports)
        edge = organization(revision=2, anchor=at("2026-02-28"), interval="year", agreed=at("2026-02-28"))
        await project_customers([edge], tx=tx)
    assert await told(begin) == ["2026-01-31..2026-02-28: 20/50"]
