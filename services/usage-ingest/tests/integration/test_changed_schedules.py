"""A changed schedule moves windows to other periods at once, calendar by calendar, on both stores (L2, L3, L21)."""

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

NOW = datetime(2033, 1, 1, tzinfo=UTC)

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
    """One unit on each day, counted by one schedule and then by another."""

    was: tuple[str, str]
    becomes: tuple[str, str]
    days: str
    before: list[str]
    after: list[str]


MOVES = {
    "first of the month to its last day": Move(
        was=("2026-01-01", "month"),
        becomes=("2026-01-31", "month"),
        days="2026-01-30 2026-01-31 2026-02-27 2026-02-28 2026-03-30 2026-03-31 2026-04-30",
        before=[
            "2026-01-01..2026-02-01: 2",
            "2026-02-01..2026-03-01: 2",
            "2026-03-01..2026-04-01: 2",
            "2026-04-01..2026-05-01: 1",
        ],
        after=[
            "2025-12-31..2026-01-31: 1",
            "2026-01-31..2026-02-28: 2",
            "2026-02-28..2026-03-31: 2",
            "2026-03-31..2026-04-30: 1",
            "2026-04-30..2026-05-31: 1",
        ],
    ),
    "31st to 29th in a leap year": Move(
        was=("2028-01-31", "month"),
        becomes=("2028-01-29", "month"),
        days="2028-01-29 2028-02-28 2028-02-29 2028-03-29 2028-03-30 2028-03-31",
        before=[
            "2027-12-31..2028-01-31: 1",
            "2028-01-31..2028-02-29: 1",
            "2028-02-29..2028-03-31: 3",
            "2028-03-31..2028-04-30: 1",
        ],
        after=["2028-01-29..2028-02-29: 2", "2028-02-29..2028-03-29: 1", "2028-03-29..2028-04-29: 3"],
    ),
    "30th to the 28th of February": Move(
        was=("2026-01-30", "month"),
        becomes=("2026-02-28", "month"),
        days="2026-02-28 2026-03-27 2026-03-28 2026-03-30",
        before=["2026-02-28..2026-03-30: 3", "2026-03-30..2026-04-30: 1"],
        after=["2026-02-28..2026-03-28: 2", "2026-03-28..2026-04-28: 2"],
    ),
    "month to year on a leap day": Move(
        was=("2028-02-29", "month"),
        becomes=("2028-02-29", "year"),
        days="2028-02-28 2028-02-29 2028-12-31 2029-02-27 2029-02-28 2032-02-28 2032-02-29",
        before=[
            "2028-01-29..2028-02-29: 1",
            "2028-02-29..2028-03-29: 1",
            "2028-12-29..2029-01-29: 1",
            "2029-01-29..2029-02-28: 1",
            "2029-02-28..2029-03-29: 1",
            "2032-01-29..2032-02-29: 1",
            "2032-02-29..2032-03-29: 1",
        ],
        after=[
            "2027-02-28..2028-02-29: 1",
            "2028-02-29..2029-02-28: 3",
            "2029-02-28..2030-02-28: 1",
            "2031-02-28..2032-02-29: 1",
            "2032-02-29..2033-02-28: 1",
        ],
    ),
    "year to quarter": Move(
        was=("2026-06-15", "year"),
        becomes=("2026-06-15", "3 months"),
        days="2026-06-14 2026-06-15 2026-09-14 2026-09-15 2027-06-14",
        before=["2025-06-15..2026-06-15: 1", "2026-06-15..2027-06-15: 4"],
        after=[
            "2026-03-15..2026-06-15: 1",
            "2026-06-15..2026-09-15: 2",
            "2026-09-15..2026-12-15: 1",
            "2027-03-15..2027-06-15: 1",
        ],
    ),
}


@pytest.mark.parametrize("move", MOVES.values(), ids=MOVES)
async def test_windows_follow_a_changed_schedule_there_and_back(begin, arrived, organization, move: Move):
    def customer(revision: int, schedule: tuple[str, str]):
        return organization(revision=revision, anchor=at(schedule[0]), interval=schedule[1])

    async with begin() as tx:
        await project_customers([customer(1, move.was)], tx=tx)
        reports = [on_day(arrived(events=1), day) for day in move.days.split()]
        await record_reports(reports, tx=tx, now=NOW, is_publication_due=False)
    assert await told(begin) == move.before
    async with begin() as tx:
        assert (await project_customers([customer(2, move.becomes)], tx=tx)).rescheduled == ("acme",)
    assert await told(begin) == move.after
    async with begin() as tx:
        assert (await recompute_organization("acme", tx=tx)).repaired == ()
        await project_customers([customer(3, move.was)], tx=tx)
    assert await told(begin) == move.before


async def test_a_period_out_of_force_keeps_its_maximum_and_has_it_when_it_comes_back(begin, arrived, organization):
    """31 January was counted as 50, then as 20: what was published stays the maximum of its own period alone (L3)."""
    async with begin() as tx:
        await project_customers([organization(anchor=at("2026-01-31"))], tx=tx)
        first, second, later = arrived(complete=False, events=50), arrived(events=20), arrived(events=3)
        reports = [on_day(first, "2026-01-31"), on_day(second, "2026-01-31"), on_day(later, "2026-02-28")]
        await record_reports(reports, tx=tx, now=NOW, is_publication_due=False)
    assert await told(begin) == ["2026-01-31..2026-02-28: 20/50", "2026-02-28..2026-03-31: 3"]
    async with begin() as tx:
        await project_customers([organization(revision=2, anchor=at("2026-01-31"), interval="year")], tx=tx)
    assert await told(begin) == ["2026-01-31..2027-01-31: 23"]
    async with begin() as tx:
        await record_reports([on_day(arrived(events=7), "2026-02-27")], tx=tx, now=NOW, is_publication_due=False)
        await project_customers([organization(revision=3, anchor=at("2026-01-31"))], tx=tx)
    assert await told(begin) == ["2026-01-31..2026-02-28: 27/50", "2026-02-28..2026-03-31: 3"]
