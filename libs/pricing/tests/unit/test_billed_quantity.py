"""L12 by time of use: tables that a person can check, and an oracle that looks at every day."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from quill_pricing.billed_quantity import (
    BillingTerms,
    InvalidTerms,
    MeteredUsage,
    billed_quantity,
    chargeable_quantity,
    cuts_between,
    quantity_against_limit,
)
from quill_pricing.period import BillingPeriod
from quill_pricing.quantity import InvalidQuantity

START = datetime(2026, 10, 1, tzinfo=UTC)
OCTOBER = BillingPeriod(START, datetime(2026, 11, 1, tzinfo=UTC))
M = 1_000_000


def day(number):
    """Midnight of a day of October; 32 is 1 November."""
    return START + timedelta(days=number - 1)


def paid(number, limit=None):
    return BillingTerms(day(number), is_paid=True, limit=limit)


def unpaid(number, limit=None):
    return BillingTerms(day(number), is_paid=False, limit=limit)


def used(total, **before):
    """``d15=9``: nine units before 15 October."""
    return MeteredUsage(total, {day(int(name[1:])): quantity for name, quantity in before.items()})


@pytest.mark.parametrize(
    ("story", "usage", "terms", "billed"),
    [
        ("nothing was used", used(0), [paid(1)], 0),
        ("no limit was ever set", used(120), [paid(1)], 120),
        ("never subscribed", used(120), [unpaid(1, 50)], 0),
        ("nobody knows the terms", used(120), [], 0),
        ("usage beyond the limit is not billed", used(120), [paid(1, 100)], 100),
        ("usage exactly at the limit is billed", used(100), [paid(1, 100)], 100),
        ("K6: a limit of zero after 12 M were used", used(12 * M, d20=12 * M), [paid(1), paid(20, 0)], 12 * M),
        ("K2: cancelled after 12 M were used", used(12 * M, d15=12 * M), [paid(1), unpaid(15, M)], 12 * M),
        ("K2: and used on for free", used(13 * M, d15=12 * M), [paid(1), unpaid(15, M)], 12 * M),
        ("K11: 5 M in a trial, 0.1 M after it", used(5_100_000, d21=5 * M), [unpaid(1), paid(21)], 100_000),
        ("a limit lowered later keeps what was used", used(80, d5=80), [paid(1, 100), paid(5, 10)], 80),
        ("and lets nothing more through", used(95, d5=80), [paid(1, 100), paid(5, 10)], 80),
        ("a lowered limit still holds usage above it back", used(95, d5=8), [paid(1, 100), paid(5, 10)], 10),
        ("a limit raised later bills what stands above it", used(120), [paid(1, 100), paid(5, 110)], 110),
        ("a limit lifted later bills all that was used", used(120), [paid(1, 100), paid(5)], 120),
        ("subscribed twice: both spans count", used(100, d10=30, d20=60), [paid(1), unpaid(10), paid(20)], 70),
        ("the limit counts over both spans", used(100, d10=30, d20=60), [paid(1, 50), unpaid(10), paid(20, 50)], 50),
        ("leaving never raises the bill", used(500, d10=400), [paid(1, 100), unpaid(10, 1_000)], 100),
        ("terms from before the period hold in it", used(70), [BillingTerms(day(-40), is_paid=True)], 70),
        ("terms from after the period do not", used(70), [unpaid(1), paid(32)], 0),
        ("a change at the very start holds from there", used(70), [unpaid(-3), paid(1)], 70),
        ("of two changes at one instant the last holds", used(70), [paid(1, 0), paid(1, 60)], 60),
        ("the order given does not matter", used(95, d5=80), [paid(5, 10), paid(1, 100)], 80),
        ("a cut nobody has counted yet: all lies before it", used(80), [paid(1, 100), paid(5, 10)], 80),
        ("a cut above the total is no more than the total", used(80, d5=90), [paid(1), paid(5, 10)], 80),
    ],
)
def test_usage_is_billed_where_it_was_paid_and_as_far_as_the_limit_allowed(story, usage, terms, billed):
    assert billed_quantity(usage, terms, OCTOBER) == billed, story


@pytest.mark.parametrize(
    ("story", "total", "before", "terms", "billed"),
    [
        ("K14: 9 on the 3rd, 5 on the 5th", 5, {}, [paid(1)], 5),
        ("as far as the limit allows", 9, {}, [paid(1, 6)], 6),
        ("cancelled at 7, then 2", 2, {15: 7}, [paid(1), unpaid(15)], 7),
        ("the value when the trial ended does not matter", 4, {21: 9}, [unpaid(1), paid(21)], 4),
        ("never paid", 4, {}, [unpaid(1)], 0),
        ("a lower limit holds for the last value", 8, {15: 9}, [paid(1), paid(15, 6)], 6),
    ],
)
def test_a_gauge_bills_its_last_value_of_the_time_it_was_paid(story, total, before, terms, billed):
    usage = MeteredUsage(total, {day(number): value for number, value in before.items()}, is_last_value=True)
    assert billed_quantity(usage, terms, OCTOBER) == billed, story


@pytest.mark.parametrize(
    ("story", "terms", "now", "compared"),
    [
        ("while paid: what is chargeable", [unpaid(1), paid(21)], 25, 30),
        ("in the trial: all that was used", [unpaid(1)], 25, 130),
        ("after leaving: all that was used", [paid(1), unpaid(21)], 25, 130),
        ("before the customer was known", [], 25, 130),
    ],
)
def test_a_limit_looks_at_chargeable_usage_while_paid(story, terms, now, compared):
    usage = used(130, d21=100)
    assert quantity_against_limit(usage, terms, OCTOBER, now=day(now)) == compared, story


daily = st.lists(st.integers(0, 60), min_size=31, max_size=31)
changes = st.lists(st.tuples(st.integers(1, 31), st.booleans(), st.one_of(st.none(), st.integers(0, 900))), max_size=6)


@settings(max_examples=2_000)
@given(daily, changes)
def test_the_bill_is_that_of_looking_at_every_day(usage_by_day, changed):
    terms = [BillingTerms(day(number), is_paid=is_paid, limit=limit) for number, is_paid, limit in changed]
    by_day = {number: (is_paid, limit) for number, is_paid, limit in changed}
    is_paid, limit, chargeable, greatest = False, None, 0, 0
    for number in range(1, 32):
        is_paid, limit = by_day.get(number, (is_paid, limit))
        if is_paid:
            greatest = max(greatest, chargeable if limit is None else min(chargeable, limit))
            chargeable += usage_by_day[number - 1]
            greatest = max(greatest, chargeable if limit is None else min(chargeable, limit))
    cuts = cuts_between(terms, OCTOBER)
    usage = MeteredUsage(sum(usage_by_day), {cut: sum(usage_by_day[: (cut - START).days]) for cut in cuts})
    assert billed_quantity(usage, terms, OCTOBER) == greatest
    assert chargeable_quantity(usage, terms, OCTOBER) == chargeable


@given(daily, changes, st.integers(0, 500))
def test_more_usage_never_lowers_the_bill(usage_by_day, changed, more):
    terms = [BillingTerms(day(number), is_paid=is_paid, limit=limit) for number, is_paid, limit in changed]
    before = {cut: sum(usage_by_day[: (cut - START).days]) for cut in cuts_between(terms, OCTOBER)}
    total = sum(usage_by_day)
    less = billed_quantity(MeteredUsage(total, before), terms, OCTOBER)
    assert less <= billed_quantity(MeteredUsage(total + more, before), terms, OCTOBER)


def test_cuts_are_where_paid_spans_begin_or_end_or_a_limit_falls():
    terms = [unpaid(1, 5), unpaid(3, 1), paid(7, 100), paid(9, 200), paid(11, 150), paid(13), paid(15, 300), unpaid(20)]
    assert cuts_between(terms, OCTOBER) == (day(7), day(11), day(15), day(20))


def test_broken_terms_are_refused():
    for instant in (datetime(2026, 3, 1), datetime(2026, 3, 1, tzinfo=timezone(timedelta(hours=1)))):  # noqa: DTZ001
        with pytest.raises(InvalidTerms):
            BillingTerms(instant, is_paid=True)
        with pytest.raises(InvalidTerms):
            MeteredUsage(1, {instant: 1})
    for broken in (-1, 1.5, True):
        with pytest.raises(InvalidQuantity):
            MeteredUsage(broken)
        with pytest.raises(InvalidQuantity):
            BillingTerms(START, is_paid=True, limit=broken)
