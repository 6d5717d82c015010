from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st
from quill_pricing.observed_usage import InvalidObservation, LimitInForce, UsageObservation, billed_quantity
from quill_pricing.quantity import InvalidQuantity

START = datetime(2026, 3, 1, tzinfo=UTC)


def day(number):
    return START + timedelta(days=number)


def used(*steps):
    return [UsageObservation(day(number), quantity) for number, quantity in steps]


def limited(*steps):
    return [LimitInForce(day(number), limit) for number, limit in steps]


@pytest.mark.parametrize(
    ("story", "usage", "limits", "billed"),
    [
        ("nothing was used", [], limited((0, 10)), 0),
        ("no limit was ever set", used((1, 50), (9, 120)), [], 120),
        ("usage stays below the limit", used((1, 50)), limited((0, 100)), 50),
        ("usage beyond the limit is not billed", used((1, 50), (9, 120)), limited((0, 100)), 100),
        ("a limit lowered later does not shrink what was used", used((1, 80)), limited((0, 100), (5, 10)), 80),
        ("a limit raised later bills what stands above it", used((1, 120)), limited((0, 100), (5, 110)), 110),
        ("a limit lifted later bills all that was used", used((1, 120)), limited((0, 100), (5, None)), 120),
        ("a limit that comes after the usage finds it billed", used((1, 120)), limited((2, 100)), 120),
        ("a limit at the very instant of the usage holds", used((2, 120)), limited((2, 100)), 100),
        ("a limit of zero bills nothing", used((1, 120)), limited((0, 0)), 0),
        (
            "a corrected usage bills the lower value if the limit rises after",
            used((1, 120), (3, 40)),
            limited((0, 30), (5, 100)),
            40,
        ),
        ("of two limits at one instant the last given holds", used((1, 120)), limited((0, 10), (0, 60)), 60),
        ("the order given does not matter", used((9, 120), (1, 50)), limited((5, 70), (0, 10)), 70),
    ],
)
def test_usage_is_billed_as_far_as_the_limit_in_force_allowed_it(story, usage, limits, billed):
    assert billed_quantity(usage, limits) == billed, story


days = st.integers(0, 30)
usages = st.lists(st.tuples(days, st.integers(0, 200)), max_size=8)
limit_lists = st.lists(st.tuples(days, st.one_of(st.none(), st.integers(0, 200))), max_size=8)


@given(usages, limit_lists)
def test_the_billed_quantity_agrees_with_looking_at_every_day(usage, limits):
    usage_by_day, limit_by_day = dict(usage), dict(limits)
    greatest, quantity, limit = 0, 0, None
    for number in range(31):
        quantity = usage_by_day.get(number, quantity)
        limit = limit_by_day.get(number, limit)
        greatest = max(greatest, quantity if limit is None else min(quantity, limit))
    assert billed_quantity(used(*usage), limited(*limits)) == greatest


@given(usages, limit_lists, st.tuples(st.integers(31, 60), st.integers(0, 200)))
def test_time_passing_never_lowers_the_billed_quantity(usage, limits, later):
    assert billed_quantity(used(*usage), limited(*limits)) <= billed_quantity(used(*usage, later), limited(*limits))


def test_broken_observations_are_refused():
    for instant in (datetime(2026, 3, 1), datetime(2026, 3, 1, tzinfo=timezone(timedelta(hours=1)))):  # noqa: DTZ001
        with pytest.raises(InvalidObservation):
            UsageObservation(instant, 1)
        with pytest.raises(InvalidObservation):
            LimitInForce(instant, 1)
    with pytest.raises(InvalidQuantity):
        UsageObservation(START, -1)
    with pytest.raises(InvalidQuantity):
        LimitInForce(START, -1)
