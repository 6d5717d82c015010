from calendar import monthrange
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st
from quill_pricing.period import BillingPeriod, BillingSchedule, Interval, InvalidPeriod, PeriodOutsideCalendar

FIRST_YEAR, LAST_YEAR = 1970, 2100
TICK = timedelta(microseconds=1)


def day(year, month, day_of_month, *clock):
    return datetime(year, month, day_of_month, *clock, tzinfo=UTC)


@pytest.mark.parametrize(
    ("anchor", "interval", "starts"),
    [
        (day(2026, 1, 31), "month", [day(2026, 1, 31), day(2026, 2, 28), day(2026, 3, 31), day(2026, 4, 30)]),
        (day(2028, 1, 30), "month", [day(2028, 1, 30), day(2028, 2, 29), day(2028, 3, 30)]),
        (day(2026, 11, 30), "3 months", [day(2026, 11, 30), day(2027, 2, 28), day(2027, 5, 30)]),
        (
            day(2028, 2, 29),
            "year",
            [day(2028, 2, 29), day(2029, 2, 28), day(2030, 2, 28), day(2031, 2, 28), day(2032, 2, 29)],
        ),
        (day(2026, 1, 1, 12, 30), "week", [day(2026, 1, 1, 12, 30), day(2026, 1, 8, 12, 30)]),
        (day(2026, 3, 28, 23), "day", [day(2026, 3, 28, 23), day(2026, 3, 29, 23), day(2026, 3, 30, 23)]),
    ],
)
def test_periods_are_reckoned_from_the_anchor_without_drift(anchor, interval, starts):
    schedule = BillingSchedule(anchor, Interval.parse(interval))
    assert [schedule.period(number).start for number in range(len(starts))] == starts


def test_a_boundary_belongs_to_the_period_it_starts():
    schedule = BillingSchedule(day(2026, 1, 31), Interval(1, "month"))
    february = schedule.period(1)
    assert february == BillingPeriod(day(2026, 2, 28), day(2026, 3, 31))
    assert day(2026, 2, 28) in february
    assert day(2026, 3, 31) not in february
    assert day(2026, 3, 31) - TICK in february
    assert schedule.period_containing(day(2026, 3, 31)) == schedule.period(2)
    assert schedule.period_containing(day(2026, 1, 31) - TICK) == schedule.period(-1)
    assert schedule.next(february) == schedule.period(2)
    assert schedule.previous(february) == schedule.period(0)


@pytest.mark.parametrize("interval", [Interval(1, "month"), Interval(3, "month"), Interval(1, "year")], ids=str)
@pytest.mark.parametrize("anchor_day", range(1, 32))
def test_every_calendar_period_of_130_years_meets_the_next(anchor_day, interval):
    schedule = BillingSchedule(day(2035, 1, anchor_day, 17, 45), interval)
    number = schedule.number_of(day(FIRST_YEAR, 1, 1))
    period = schedule.period(number)
    while period.end.year <= LAST_YEAR:
        assert period.start.day == min(anchor_day, monthrange(period.start.year, period.start.month)[1])
        assert schedule.number_of(period.start) == number
        assert schedule.number_of(period.end - TICK) == number
        following = schedule.period(number + 1)
        assert following.start == period.end
        number, period = number + 1, following


@pytest.mark.parametrize(
    ("anchor", "interval"),
    [(day(2035, 1, 17, 6), Interval(1, "day"))]
    + [(day(2035, 1, weekday, 6), Interval(1, "week")) for weekday in range(1, 8)],
)
def test_every_period_of_days_of_130_years_meets_the_next(anchor, interval):
    schedule = BillingSchedule(anchor, interval)
    number = schedule.number_of(day(FIRST_YEAR, 1, 1))
    period = schedule.period(number)
    while period.end.year <= LAST_YEAR:
        assert period.duration == timedelta(days=7 if interval.unit == "week" else 1)
        assert schedule.number_of(period.start) == schedule.number_of(period.end - TICK) == number
        following = schedule.period(number + 1)
        assert following.start == period.end
        number, period = number + 1, following


instants = st.datetimes(datetime(1900, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001
intervals = st.builds(Interval, st.integers(1, 24), st.sampled_from(["day", "week", "month", "year"]))


@given(instants, intervals, instants)
def test_every_instant_is_in_the_one_period_that_contains_it(anchor, interval, instant):
    schedule = BillingSchedule(anchor, interval)
    period = schedule.period_containing(instant)
    assert instant in period
    assert instant not in schedule.next(period)
    assert instant not in schedule.previous(period)
    assert schedule.previous(schedule.next(period)) == period


@pytest.mark.parametrize(
    ("text", "interval"),
    [
        ("month", Interval(1, "month")),
        ("1 month", Interval(1, "month")),
        ("3 months", Interval(3, "month")),
        ("year", Interval(1, "year")),
        ("2 weeks", Interval(2, "week")),
        ("14 days", Interval(14, "day")),
    ],
)
def test_an_interval_is_read_from_words(text, interval):
    assert Interval.parse(text) == interval
    assert Interval.parse(str(interval)) == interval


@pytest.mark.parametrize(
    "text", ["", "monthly", "0 months", "-1 month", "1.5 months", "quarter", "9999 days", "month "]
)
def test_other_words_are_refused(text):
    with pytest.raises(InvalidPeriod):
        Interval.parse(text)


@pytest.mark.parametrize(("count", "unit"), [(0, "month"), (True, "month"), (1.0, "month"), (1, "quarter")])
def test_an_interval_of_no_length_or_of_an_unknown_unit_is_refused(count, unit):
    with pytest.raises(InvalidPeriod):
        Interval(count, unit)


@pytest.mark.parametrize("instant", [datetime(2026, 1, 1), datetime(2026, 1, 1, tzinfo=timezone(timedelta(hours=2)))])  # noqa: DTZ001
def test_an_instant_that_is_not_aware_utc_is_refused_everywhere(instant):
    schedule = BillingSchedule(day(2026, 1, 1), Interval(1, "month"))
    period = schedule.period(0)
    for use in (
        lambda: BillingSchedule(instant, Interval(1, "month")),
        lambda: BillingPeriod(instant, day(2027, 1, 1)),
        lambda: BillingPeriod(day(2025, 1, 1), instant),
        lambda: instant in period,
        lambda: schedule.period_containing(instant),
    ):
        with pytest.raises(InvalidPeriod, match="L21"):
            use()


def test_an_empty_or_reversed_span_is_refused():
    for end in (day(2026, 1, 1), day(2025, 1, 1)):
        with pytest.raises(InvalidPeriod):
            BillingPeriod(day(2026, 1, 1), end)


def test_a_period_of_another_schedule_has_no_neighbours_here():
    schedule = BillingSchedule(day(2026, 1, 1), Interval(1, "month"))
    for neighbour in (schedule.next, schedule.previous):
        with pytest.raises(InvalidPeriod):
            neighbour(BillingPeriod(day(2026, 1, 1), day(2026, 1, 15)))


@pytest.mark.parametrize("interval", [Interval(1, "day"), Interval(1, "month"), Interval(1000, "year")], ids=str)
def test_a_period_that_cannot_be_written_is_refused(interval):
    schedule = BillingSchedule(day(2026, 1, 1), interval)
    for number in (10**7, -(10**7)):
        with pytest.raises(PeriodOutsideCalendar):
            schedule.period(number)
