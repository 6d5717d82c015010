"""Seats and flat fees that change inside a billing period, as tables that a finance person can check (K5, D18)."""

from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal, localcontext
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st
from quill_pricing.licensed_quantity import LicensedStep, licensed_amount, licensed_lines
from quill_pricing.money import CurrencyMismatch, Money
from quill_pricing.period import BillingPeriod
from quill_pricing.price import price_from_document
from quill_pricing.quantity import InvalidQuantity

OCTOBER = BillingPeriod(datetime(2026, 10, 1, tzinfo=UTC), datetime(2026, 11, 1, tzinfo=UTC))
SECONDS = 31 * 86_400


def october(day, hour=0, minute=0):
    return datetime(2026, 10, day, hour, minute, tzinfo=UTC)


SEAT = {"model": "per_unit", "unit_amount": "20.00"}
PLAN = {"model": "flat", "amount": "450.00"}
FIVES = {"model": "package", "package_size": 5, "package_amount": "50.00"}
TIERS = [
    {"up_to": 5, "unit_amount": "5", "flat_amount": "10"},
    {"up_to": 10, "unit_amount": "4", "flat_amount": "20"},
    {"unit_amount": "3", "flat_amount": "30"},
]
GRADUATED = {"model": "graduated", "tiers": TIERS}
VOLUME = {"model": "volume", "tiers": TIERS}
BEFORE = datetime(2026, 8, 17, tzinfo=UTC)


def steps(document, *changes):
    price = price_from_document(document)
    return [LicensedStep(at, quantity, price) for at, quantity in changes]


@pytest.mark.parametrize(
    ("document", "changes", "lines"),
    [
        # Held over the whole month: the full price, exactly.
        (SEAT, [(BEFORE, 3)], ["60.00"]),
        (SEAT, [(october(1), 3)], ["60.00"]),
        (PLAN, [(BEFORE, 1)], ["450.00"]),
        # 3 to 30 seats for the last day: 27 x 20.00 x 1/31 = 17.4193...
        (SEAT, [(BEFORE, 3), (october(31), 30)], ["60.00", "17.42"]),
        # Subscribed on the 16th at 12:00: 3 x 20.00 x 15.5/31.
        (SEAT, [(october(16, 12), 3)], ["30.00"]),
        (PLAN, [(october(16, 12), 1)], ["225.00"]),
        # Cancelled at the same instant: the second half is given back.
        (SEAT, [(BEFORE, 3), (october(16, 12), 0)], ["60.00", "-30.00"]),
        (PLAN, [(BEFORE, 1), (october(16, 12), 0)], ["450.00", "-225.00"]),
        # Subscribed on the 11th, cancelled on the 21st: 10 of 31 days. 451.612... rounded alone is 451.61.
        (PLAN, [(october(11), 1), (october(21), 0)], ["304.84", "-159.68"]),
        # Down and up again.
        (SEAT, [(BEFORE, 10), (october(11), 4), (october(21), 6)], ["200.00", "-81.29", "14.19"]),
        # Packages: 4 and 5 seats are one package, 6 are two: 50.00 x 21/31.
        (FIVES, [(BEFORE, 4), (october(5), 5), (october(11), 6)], ["50.00", "0.00", "33.87"]),
        # Tiers: 5 seats cost 35.00 in both; 12 cost 111.00 graduated and 66.00 by volume; 15.5 of 31 days are left.
        (GRADUATED, [(BEFORE, 5), (october(16, 12), 12)], ["35.00", "38.00"]),
        (VOLUME, [(BEFORE, 5), (october(16, 12), 12)], ["35.00", "15.50"]),
        # Volume: 10 seats cost 60.00, 9 cost 56.00, so fewer seats give back.
        (VOLUME, [(BEFORE, 10), (october(16, 12), 9)], ["60.00", "-2.00"]),
        # Nothing held costs nothing: the flat amount of the first tier belongs to a subscription.
        (GRADUATED, [], []),
        (GRADUATED, [(BEFORE, 0)], []),
        (GRADUATED, [(october(16, 12), 5)], ["17.50"]),
        # The end of the period and what follows belong to the next one.
        (SEAT, [(BEFORE, 3), (OCTOBER.end, 30)], ["60.00"]),
        (SEAT, [(OCTOBER.end, 30)], []),
        (SEAT, [(BEFORE, 3), (OCTOBER.end - timedelta(microseconds=1), 30)], ["60.00", "0.00"]),
        # Nothing changes: no line. Of several steps at one instant the last holds.
        (SEAT, [(BEFORE, 3), (october(9), 3)], ["60.00"]),
        (SEAT, [(BEFORE, 3), (october(9), 30), (october(9), 3)], ["60.00"]),
        (SEAT, [(october(1), 30), (october(1), 3)], ["60.00"]),
        # Any order.
        (SEAT, [(october(31), 30), (BEFORE, 3)], ["60.00", "17.42"]),
        # Cancelled before the period.
        (SEAT, [(BEFORE, 3), (datetime(2026, 9, 30, tzinfo=UTC), 0)], []),
        (SEAT, [(BEFORE, 3), (october(1), 0)], []),
    ],
)
def test_each_change_is_a_line_for_the_time_left(document, changes, lines):
    """K5: a full line for the quantity at the start, then one line per change."""
    found = licensed_lines(steps(document, *changes), OCTOBER)
    assert [line.amount.to_decimal_string() for line in found] == lines
    total = licensed_amount(steps(document, *changes), OCTOBER)
    assert total == Money.sum_of(Money.from_decimal_string(line) for line in lines)


def test_a_line_says_what_changed_and_when():
    first, second, third = licensed_lines(steps(SEAT, (BEFORE, 3), (october(11), 30), (october(31, 12), 0)), OCTOBER)
    assert (first.before, first.quantity, first.span) == (0, 3, OCTOBER)
    assert (second.before, second.quantity, second.span) == (3, 30, BillingPeriod(october(11), OCTOBER.end))
    assert (third.before, third.quantity, third.span) == (30, 0, BillingPeriod(october(31, 12), OCTOBER.end))


@pytest.mark.parametrize("document", [SEAT, PLAN, FIVES, GRADUATED, VOLUME])
@pytest.mark.parametrize(
    ("changes", "quantity"),
    [
        ([(BEFORE, 3), (october(31), 30)], 30),
        ([(BEFORE, 30), (october(2), 3)], 3),
        ([(october(31, 23, 59), 3)], 3),
        ([(BEFORE, 3), (october(11), 7), (october(20), 0)], 7),  # cancelled: the last quantity held
        ([(BEFORE, 3), (october(11), 0), (october(20), 8)], 8),
    ],
)
def test_a_price_that_is_not_prorated_owes_the_last_quantity_in_full(document, changes, quantity):
    """K5: proration is switched off by the price."""
    whole = {**document, "prorated": False}
    (line,) = licensed_lines(steps(whole, *changes), OCTOBER)
    (full,) = licensed_lines(steps(document, (BEFORE, quantity)), OCTOBER)
    assert (line.amount, line.quantity, line.before, line.span) == (full.amount, quantity, 0, OCTOBER)


def test_without_proration_nothing_held_still_costs_nothing():
    assert licensed_lines(steps({**SEAT, "prorated": False}, (BEFORE, 3), (october(1), 0)), OCTOBER) == ()


def test_another_price_from_the_middle_on_is_a_change_too():
    """$20 seats become $30 seats on the 16th at 12:00: 3 x 10.00 x 15.5/31."""
    dearer = price_from_document({"model": "per_unit", "unit_amount": "30.00"})
    changed = [*steps(SEAT, (BEFORE, 3)), LicensedStep(october(16, 12), 3, dearer)]
    assert [line.amount.to_decimal_string() for line in licensed_lines(changed, OCTOBER)] == ["60.00", "15.00"]


def test_the_price_held_last_decides_whether_the_period_is_prorated():
    whole = price_from_document({**SEAT, "prorated": False})
    to_whole = [*steps(SEAT, (BEFORE, 3)), LicensedStep(october(16, 12), 4, whole)]
    assert licensed_amount(to_whole, OCTOBER) == Money(8_000)
    to_parts = [LicensedStep(BEFORE, 3, whole), *steps(SEAT, (october(16, 12), 4))]
    assert licensed_amount(to_parts, OCTOBER) == Money(7_000)


def test_a_price_in_another_currency_is_refused_only_while_both_are_held():
    euros = price_from_document({"model": "per_unit", "unit_amount": "20.00", "currency": "eur"})
    with pytest.raises(CurrencyMismatch):
        licensed_lines([*steps(SEAT, (BEFORE, 3)), LicensedStep(october(9), 3, euros)], OCTOBER)
    began = [LicensedStep(BEFORE, 0, euros), *steps(SEAT, (october(16, 12), 3))]
    assert licensed_amount(began, OCTOBER) == Money(3_000)
    ended = [*steps(SEAT, (BEFORE, 3)), LicensedStep(october(16, 12), 0, euros)]
    assert licensed_amount(ended, OCTOBER) == Money(3_000)


@pytest.mark.parametrize("wrong", [-1, 1.5, True, None])
def test_a_step_needs_a_quantity(wrong):
    with pytest.raises(InvalidQuantity):
        LicensedStep(BEFORE, wrong, price_from_document(SEAT))


documents = st.one_of(
    st.builds(lambda cents: {"model": "per_unit", "unit_amount": f"{cents / 1000:.3f}"}, st.integers(0, 50_000)),
    st.builds(lambda cents: {"model": "flat", "amount": f"{cents // 100}.{cents % 100:02d}"}, st.integers(0, 10**6)),
    st.sampled_from([SEAT, PLAN, FIVES, GRADUATED, VOLUME]),
)
instants = st.integers(0, SECONDS - 1).map(lambda second: OCTOBER.start + timedelta(seconds=second))
histories = st.lists(st.tuples(instants, st.integers(0, 60)), max_size=8, unique_by=lambda change: change[0])


def full_price(document, quantity):
    """What a whole month costs, from one full line; 0 where nothing is held."""
    return sum(line.amount.amount_minor for line in licensed_lines(steps(document, (BEFORE, quantity)), OCTOBER))


@given(documents, histories, instants, st.integers(0, 60))
def test_a_change_undone_at_the_same_instant_costs_nothing(document, history, at, quantity):
    history = sorted(history)
    held = next((each for when, each in reversed(history) if when <= at), 0)
    before = [change for change in history if change[0] != at]
    undone = [*before, (at, quantity), (at, held)]
    assert licensed_amount(steps(document, *undone), OCTOBER) == licensed_amount(steps(document, *history), OCTOBER)


@given(documents, st.integers(0, 60), st.integers(0, 60), instants)
def test_an_increase_and_a_decrease_of_two_customers_cancel_out(document, low, high, at):
    """A seat that moves from one customer to another is paid once."""
    leaving = licensed_amount(steps(document, (BEFORE, high), (at, low)), OCTOBER)
    joining = licensed_amount(steps(document, (BEFORE, low), (at, high)), OCTOBER)
    assert (leaving + joining).amount_minor == full_price(document, low) + full_price(document, high)


@given(documents, histories)
def test_the_parts_sum_to_the_time_weighted_whole(document, history):
    """Each line is at most half a minor unit away from its exact share (D18)."""
    history = sorted(history)
    exact, held, since = Fraction(0), 0, OCTOBER.start
    for at, quantity in [*history, (OCTOBER.end, 0)]:
        exact += full_price(document, held) * Fraction((at - since) // timedelta(seconds=1), SECONDS)
        held, since = quantity, at
    lines = licensed_lines(steps(document, *history), OCTOBER)
    total = sum(line.amount.amount_minor for line in lines)
    assert abs(total - exact) <= Fraction(len(lines), 2)


@given(documents, histories)
def test_every_line_is_its_difference_times_the_time_left_half_up(document, history):
    """An oracle in decimals of its own: HU((price(r) - price(q)) x seconds left / seconds of the period)."""
    held = 0
    for at, quantity in sorted(history):
        with localcontext(prec=60):
            left = Decimal((OCTOBER.end - at) // timedelta(seconds=1))
            share = Decimal(full_price(document, quantity) - full_price(document, held)) * left / SECONDS
            expected = int(share.quantize(Decimal(1), rounding=ROUND_HALF_UP))
        found = licensed_lines(steps(document, *history), OCTOBER)
        amounts = {line.span.start: line.amount.amount_minor for line in found}
        assert amounts.get(at, 0) == expected
        held = quantity


@given(documents, st.integers(0, 60), st.lists(instants, max_size=4))
def test_a_quantity_held_all_month_costs_exactly_the_full_price(document, quantity, repeats):
    repeated = [(BEFORE, quantity), *((at, quantity) for at in repeats)]
    assert licensed_amount(steps(document, *repeated), OCTOBER).amount_minor == full_price(document, quantity)
