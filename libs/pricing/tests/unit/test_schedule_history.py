"""Periods of a customer whose schedule changed, also inside a period (L21)."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from quill_pricing.period import BillingSchedule, Interval, InvalidPeriod
from quill_pricing.schedule_history import ScheduleChange, ScheduleHistory

INSTANT = timedelta(microseconds=1)


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def schedule(text: str) -> BillingSchedule:
    """``2026-01-31 month``."""
    anchor, interval = text.split(" ", 1)
    return BillingSchedule(at(anchor), Interval.parse(interval))


def agreed(on: datetime, becomes: BillingSchedule, begins: datetime | None = None) -> ScheduleChange:
    """A change as subscriptions tells it: with the period of the new schedule that holds the day."""
    return ScheduleChange(becomes, begins or becomes.period_containing(on).start, on)


def told(history, start: str, count: int) -> list[str]:
    """Periods one after the other."""
    found, instant = [], at(start)
    for _ in range(count):
        period = history.period_containing(instant)
        found.append(f"{period.start.date()}..{period.end.date()}")
        instant = period.end
    return found


@dataclass(frozen=True)
class Case:
    was: str
    changes: list[tuple[str, str]]
    """(agreed on, becomes)."""
    expected: str
    since: str = "2026-01-01"


CASES = {
    "the anchor moves on inside the period": Case(
        "2026-01-01 month", [("2026-01-20", "2026-01-15 month")], "2026-01-01..2026-01-15 2026-01-15..2026-02-15"
    ),
    "the anchor moves from the 31st to the 15th": Case(
        "2026-01-31 month",
        [("2026-03-16", "2026-03-15 month")],
        "2026-01-31..2026-02-28 2026-02-28..2026-03-15 2026-03-15..2026-04-15",
        since="2026-01-31",
    ),
    "month to year in the middle": Case(
        "2026-01-01 month",
        [("2026-02-10", "2026-02-10 year")],
        "2026-01-01..2026-02-01 2026-02-01..2026-02-10 2026-02-10..2027-02-10 2027-02-10..2028-02-10",
    ),
    "year to month in the middle": Case(
        "2026-01-01 year",
        [("2026-06-10", "2026-06-10 month")],
        "2026-01-01..2026-06-10 2026-06-10..2026-07-10 2026-07-10..2026-08-10",
    ),
    "the year begins with the present month": Case(
        "2026-01-01 month",
        [("2026-02-10", "2026-02-01 year")],
        "2026-01-01..2026-02-01 2026-02-01..2027-02-01",
    ),
    "the new period begins before the present one: the present one stays whole": Case(
        "2026-01-01 month",
        [("2026-02-10", "2026-01-15 year")],
        "2026-01-01..2026-02-01 2026-02-01..2026-03-01 2026-03-01..2027-01-15 2027-01-15..2028-01-15",
    ),
    "a change at the edge cuts nothing": Case(
        "2026-01-01 month", [("2026-02-01", "2026-02-01 year")], "2026-01-01..2026-02-01 2026-02-01..2027-02-01"
    ),
    "two changes in one period": Case(
        "2026-01-01 month",
        [("2026-01-10", "2026-01-10 week"), ("2026-01-12", "2026-01-12 month")],
        "2026-01-01..2026-01-10 2026-01-10..2026-01-12 2026-01-12..2026-02-12",
    ),
    "a change that had not begun gives way to the next": Case(
        "2026-01-01 month",
        [("2026-02-10", "2026-01-15 year"), ("2026-02-20", "2026-02-18 month")],
        "2026-01-01..2026-02-01 2026-02-01..2026-02-18 2026-02-18..2026-03-18",
    ),
    "there and back: what was cut stays cut": Case(
        "2026-01-01 month",
        [("2026-02-10", "2026-02-10 year"), ("2026-02-11", "2026-01-01 month")],
        "2026-01-01..2026-02-01 2026-02-01..2026-02-10 2026-02-10..2027-02-10 2027-02-10..2027-03-01",
    ),
    "there and back with one and the same beginning": Case(
        "2026-02-01 month",
        [("2026-02-10", "2026-02-01 year"), ("2026-02-11", "2026-02-01 month")],
        "2026-01-01..2026-02-01 2026-02-01..2026-03-01 2026-03-01..2026-04-01",
    ),
    "the same schedule again": Case(
        "2026-01-01 month", [("2026-01-20", "2026-01-01 month")], "2026-01-01..2026-02-01 2026-02-01..2026-03-01"
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_changed_schedule_cuts_the_period_it_was_agreed_in(case: Case):
    history = ScheduleHistory(schedule(case.was))
    for day, becomes in case.changes:
        history = history.changed(agreed(at(day), schedule(becomes)))
    periods = case.expected.split()
    assert told(history, case.since, len(periods)) == periods


def test_a_schedule_that_comes_back_where_it_left_needs_no_history():
    month = ScheduleHistory(schedule("2026-02-01 month"))
    year = month.changed(agreed(at("2026-02-10"), schedule("2026-02-01 year")))
    assert len(year.ended) == 1
    assert year.changed(agreed(at("2026-02-11"), month.schedule)) == month


def test_instants_are_utc():
    with pytest.raises(InvalidPeriod):
        ScheduleHistory(schedule("2026-02-01 month")).period_containing(datetime(2026, 1, 1))  # noqa: DTZ001


schedules = st.builds(
    BillingSchedule,
    st.dates(at("2025-11-01").date(), at("2026-06-30").date()).map(lambda day: at(day.isoformat())),
    st.sampled_from(["day", "week", "month", "3 months", "year"]).map(Interval.parse),
)
days = st.integers(0, 150).map(lambda day: at("2026-01-01") + timedelta(days=day, hours=13))


@given(first=schedules, changes=st.lists(st.tuples(days, schedules), max_size=5))
def test_periods_never_overlap_and_leave_no_hole_and_what_was_over_stays(first, changes):
    history = ScheduleHistory(first)
    for day, becomes in sorted(changes, key=lambda change: change[0]):
        before = history
        history = before.changed(agreed(day, becomes))
        edge = before.period_containing(day).start
        # Whatever ended before the change was agreed may be closed: it is as it was.
        for back in (INSTANT, timedelta(days=40), timedelta(days=400)):
            assert history.period_containing(edge - back) == before.period_containing(edge - back)
        assert history.period_containing(edge).start == edge
        assert history.changed(agreed(day, becomes)) == history
    periods = [history.period_containing(at("2026-01-01"))]
    for _ in range(40):
        periods.append(history.period_containing(periods[-1].end))
    assert all(earlier.end == later.start for earlier, later in pairwise(periods))
    assert all(history.period_containing(period.end - INSTANT) == period for period in periods)
