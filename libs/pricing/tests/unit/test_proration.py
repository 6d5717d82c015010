from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from quill_pricing.money import Money
from quill_pricing.period import BillingPeriod, InvalidPeriod
from quill_pricing.proration import InvalidProration, prorate, prorate_parts

START = datetime(2026, 4, 1, tzinfo=UTC)
APRIL = BillingPeriod(START, datetime(2026, 5, 1, tzinfo=UTC))
SECONDS = 30 * 24 * 3600


def second(number):
    return START + timedelta(seconds=number)


@pytest.mark.parametrize(
    ("amount", "first_second", "last_second", "share"),
    [
        ("30.00", 0, SECONDS, "30.00"),
        ("30.00", 0, SECONDS // 2, "15.00"),
        ("20.00", 10 * 86_400, SECONDS, "13.33"),  # 20 of 30 days: 13.3333
        ("20.00", 0, 10 * 86_400, "6.67"),  # 10 of 30 days: 6.6667
        ("-20.00", 0, 10 * 86_400, "-6.67"),  # the credit mirrors the charge
        ("0.01", 0, SECONDS // 2, "0.01"),  # half a cent goes up
        ("0.01", 0, SECONDS // 2 - 1, "0.00"),
        ("30.00", 0, 1, "0.00"),
    ],
)
def test_a_part_owes_its_share_of_the_seconds(amount, first_second, last_second, share):
    part = BillingPeriod(second(first_second), second(last_second))
    assert prorate(Money.from_decimal_string(amount), APRIL, part) == Money.from_decimal_string(share)


def test_a_seat_added_on_the_11th_and_the_21st_splits_the_month_into_three_that_sum_to_it():
    parts = prorate_parts(Money(2_000), APRIL, [second(10 * 86_400), second(20 * 86_400)])
    assert parts == (Money(667), Money(667), Money(666))


def test_no_cut_leaves_the_whole():
    assert prorate_parts(Money(2_000), APRIL, []) == (Money(2_000),)


cuts = st.lists(st.integers(1, SECONDS - 1), unique=True, max_size=8).map(sorted)
amounts = st.integers(-(10**9), 10**9)


@given(amounts, cuts)
def test_the_parts_sum_to_the_whole(amount_minor, seconds):
    parts = prorate_parts(Money(amount_minor), APRIL, [second(number) for number in seconds])
    assert len(parts) == len(seconds) + 1
    assert Money.sum_of(parts) == Money(amount_minor)


@given(amounts, cuts)
def test_a_part_among_others_is_within_a_minor_unit_of_the_part_alone(amount_minor, seconds):
    edges = [0, *seconds, SECONDS]
    parts = prorate_parts(Money(amount_minor), APRIL, [second(number) for number in seconds])
    for part, first, last in zip(parts, edges, edges[1:], strict=False):
        alone = prorate(Money(amount_minor), APRIL, BillingPeriod(second(first), second(last)))
        assert abs(part.amount_minor - alone.amount_minor) <= 1


@pytest.mark.parametrize(("first", "last"), [(-1, 10), (10, SECONDS + 1)])
def test_a_part_outside_the_whole_is_refused(first, last):
    with pytest.raises(InvalidProration):
        prorate(Money(100), APRIL, BillingPeriod(second(first), second(last)))


@pytest.mark.parametrize("seconds", [[0], [SECONDS], [-1], [5, 5], [6, 5]])
def test_cuts_that_do_not_rise_inside_the_whole_are_refused(seconds):
    with pytest.raises(InvalidProration):
        prorate_parts(Money(100), APRIL, [second(number) for number in seconds])


def test_a_cut_that_is_not_aware_utc_is_refused():
    with pytest.raises(InvalidPeriod):
        prorate_parts(Money(100), APRIL, [datetime(2026, 4, 5)])  # noqa: DTZ001
