from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st
from quill_pricing.rounding import to_minor_units


@pytest.mark.parametrize(
    ("exact", "minor"),
    [
        (Fraction(0), 0),
        (Fraction(49, 100), 0),
        (Fraction(1, 2), 1),
        (Fraction(3, 2), 2),
        (Fraction(5, 2), 3),  # half-even would say 2
        (Fraction(1116, 10), 112),  # the third line of the paid Stripe invoice: 31 x 3.6 cents
        (Fraction(49855, 100000), 0),
        (Fraction(1475000295, 100000), 14750),
        (Fraction(-1, 2), -1),
        (Fraction(-3, 2), -2),
        (Fraction(-49, 100), 0),
    ],
)
def test_the_nearest_minor_unit_is_taken_and_a_half_goes_away_from_zero(exact, minor):
    assert to_minor_units(exact) == minor


def test_an_integer_of_sub_units_is_rounded_like_the_fraction_it_stands_for():
    assert to_minor_units(14_999, sub_units=10_000) == 1
    assert to_minor_units(15_000, sub_units=10_000) == 2
    assert to_minor_units(-15_000, sub_units=10_000) == -2


@given(st.fractions())
def test_a_credit_mirrors_its_charge(exact):
    assert to_minor_units(-exact) == -to_minor_units(exact)


@given(st.fractions(), st.integers(1, 10**12))
def test_a_rounded_amount_is_at_most_half_a_minor_unit_away(exact, sub_units):
    assert abs(to_minor_units(exact, sub_units=sub_units) - exact / sub_units) <= Fraction(1, 2)


@given(st.integers(), st.integers(1, 10**12))
def test_integers_and_fractions_agree(scaled, sub_units):
    assert to_minor_units(scaled, sub_units=sub_units) == to_minor_units(Fraction(scaled, sub_units))


@pytest.mark.parametrize("wrong", [1.5, True, "1", None])
def test_anything_but_an_exact_number_is_refused(wrong):
    with pytest.raises(TypeError, match="L11"):
        to_minor_units(wrong)


def test_a_minor_unit_has_at_least_one_sub_unit():
    with pytest.raises(ValueError, match="sub_units"):
        to_minor_units(1, sub_units=0)
