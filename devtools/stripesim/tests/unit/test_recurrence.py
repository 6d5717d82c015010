"""Periods without drift (L21)."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from quill_stripesim.recurrence import Recurrence, day_of_month, next_day_of_month


def at(*parts):
    return int(datetime(*parts, tzinfo=UTC).timestamp())


MONTHLY_31 = Recurrence(anchor=at(2026, 1, 31, 12), day_of_month=31, interval="month", interval_count=1)


@pytest.mark.parametrize(
    ("number", "boundary"),
    [
        (-1, at(2025, 12, 31, 12)),
        (0, at(2026, 1, 31, 12)),
        (1, at(2026, 2, 28, 12)),
        (2, at(2026, 3, 31, 12)),
        (3, at(2026, 4, 30, 12)),
        (25, at(2028, 2, 29, 12)),
    ],
)
def test_an_anchor_on_the_31st_is_clamped_to_the_month_and_comes_back(number, boundary):
    assert MONTHLY_31.boundary(number) == boundary


def test_an_anchor_that_was_clamped_itself_still_returns_to_its_day():
    clamped = Recurrence(anchor=at(2026, 2, 28), day_of_month=31, interval="month", interval_count=1)

    assert clamped.boundary(1) == at(2026, 3, 31)


def test_a_leap_day_anchor_has_a_birthday_every_year():
    yearly = Recurrence(anchor=at(2028, 2, 29), day_of_month=29, interval="year", interval_count=1)

    assert [yearly.boundary(number) for number in (1, 4)] == [at(2029, 2, 28), at(2032, 2, 29)]


@given(
    st.integers(at(2020, 1, 1), at(2032, 1, 1)),
    st.integers(at(2015, 1, 1), at(2037, 1, 1)),
    st.sampled_from(["day", "week", "month", "year"]),
    st.integers(1, 7),
)
def test_every_instant_lies_in_exactly_the_period_it_is_given(anchor, instant, interval, count):
    rhythm = Recurrence(anchor=anchor, day_of_month=day_of_month(anchor), interval=interval, interval_count=count)

    start, end = rhythm.period_at(instant)

    assert start <= instant < end
    assert rhythm.period_at(start) == (start, end)
    assert rhythm.period_at(end)[0] == end


@pytest.mark.parametrize(
    ("after", "found"),
    [
        (at(2026, 2, 10), at(2026, 2, 28)),
        (at(2026, 2, 28), at(2026, 3, 31)),
        (at(2026, 12, 31), at(2027, 1, 31)),
        (at(2026, 4, 29, 23), at(2026, 4, 30)),
    ],
)
def test_the_next_31st_is_the_end_of_a_shorter_month(after, found):
    assert next_day_of_month(after, day=31, hour=0, minute=0, second=0) == found
