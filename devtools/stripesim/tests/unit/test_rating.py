"""The simulator's own arithmetic, against the worked tables of the Stripe facts."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from quill_stripesim.rating import rate, rated_units, share


def tier(up_to, unit, flat=None):
    return {"up_to": up_to, "unit_amount_decimal": unit, "flat_amount_decimal": flat}


def tiered(*tiers, mode="graduated"):
    return {"billing_scheme": "tiered", "tiers_mode": mode, "tiers": list(tiers)}


EVENTS = tiered(tier(1_000_000, "0"), tier(2_000_000, "0.005"), tier(15_000_000, "0.00343"), tier(None, "0.00295"))


@pytest.mark.parametrize(
    ("quantity", "amounts"),
    [
        (0, [0]),
        (1, [0]),
        (999_999, [0]),
        (1_000_000, [0]),
        (1_000_001, [0, 0]),
        (1_000_100, [0, 1]),
        (1_000_300, [0, 2]),
        (2_000_000, [0, 5_000]),
        (2_000_150, [0, 5_000, 1]),
        (2_345_678, [0, 5_000, 1_186]),
        (15_000_000, [0, 5_000, 44_590]),
        (15_000_169, [0, 5_000, 44_590, 0]),
        (12_000_000, [0, 5_000, 34_300]),
    ],
)
def test_a_graduated_price_makes_one_part_per_tier_each_rounded_half_up(quantity, amounts):
    parts = rate(EVENTS, quantity)

    assert [part.amount for part in parts] == amounts
    assert sum(part.quantity for part in parts) == quantity


def test_flat_fees_are_parts_of_their_own_even_when_they_are_zero():
    price = tiered(tier(1_000, "0", "900"), tier(None, "3.6", "0"))

    assert [(part.quantity, part.amount, part.is_flat) for part in rate(price, 1_031)] == [
        (1_000, 0, False),
        (0, 900, True),
        (31, 112, False),
        (0, 0, True),
    ]


FEES = (tier(5, "500", "1000"), tier(10, "400", "2000"), tier(None, "300", "3000"))


@pytest.mark.parametrize(
    ("quantity", "volume", "graduated"), [(0, 1_000, 1_000), (6, 4_400, 5_900), (12, 6_600, 11_100)]
)
def test_the_first_tier_counts_as_reached_without_usage(quantity, volume, graduated):
    """K3: as Stripe's page on tiered pricing says."""
    assert sum(part.amount for part in rate(tiered(*FEES, mode="volume"), quantity)) == volume
    assert sum(part.amount for part in rate(tiered(*FEES), quantity)) == graduated


@pytest.mark.parametrize("mode", ["graduated", "volume"])
def test_no_usage_makes_a_line_of_no_units_and_the_first_flat_fee(mode):
    parts = rate(tiered(*FEES, mode=mode), 0)

    assert [(part.quantity, part.amount, part.is_flat) for part in parts] == [(0, 0, False), (0, 1_000, True)]


def test_a_tier_without_a_unit_amount_costs_its_flat_fee():
    price = tiered(tier(100, None, "4900"), tier(None, "50"))

    assert [sum(part.amount for part in rate(price, quantity)) for quantity in (0, 100, 101)] == [4_900, 4_900, 4_950]


def test_a_tier_that_is_not_reached_charges_no_flat_fee():
    price = tiered(tier(10, "1"), tier(None, "1", "500"))

    assert sum(part.amount for part in rate(price, 10)) == 10
    assert sum(part.amount for part in rate(price, 11)) == 511


@pytest.mark.parametrize(("quantity", "total"), [(0, 0), (10, 100), (11, 55 + 7), (100, 507), (101, 202)])
def test_a_volume_price_prices_everything_at_the_tier_reached(quantity, total):
    price = tiered(tier(10, "10"), tier(100, "5", "7"), tier(None, "2"), mode="volume")

    assert sum(part.amount for part in rate(price, quantity)) == total


@pytest.mark.parametrize(
    ("round_to", "quantity", "amount"), [("up", 0, 0), ("up", 1, 500), ("up", 11, 1_000), ("down", 19, 500)]
)
def test_packages_are_bought_whole(round_to, quantity, amount):
    price = {
        "billing_scheme": "per_unit",
        "unit_amount_decimal": "500",
        "transform_quantity": {"divide_by": 10, "round": round_to},
    }

    assert [part.amount for part in rate(price, quantity)] == [amount]


@pytest.mark.parametrize(
    ("quantity", "unit", "amount"), [(30, "0.05", 2), (1, "2.5", 3), (1, "2.4", 2), (1, "-0.5", -1)]
)
def test_units_are_multiplied_exactly_and_rounded_once(quantity, unit, amount):
    assert rated_units(quantity, Decimal(unit)) == amount


def test_a_share_of_an_amount_is_rounded_half_up():
    assert share(1_001, numerator=1, denominator=2) == 501
    assert share(100, numerator=1, denominator=3) == 33


def test_a_negative_quantity_is_refused():
    with pytest.raises(ValueError, match="negative"):
        rate(EVENTS, -1)


@given(st.integers(0, 30_000_000), st.integers(0, 1_000))
def test_more_usage_never_costs_less(quantity, more):
    less = sum(part.amount for part in rate(EVENTS, quantity))

    assert sum(part.amount for part in rate(EVENTS, quantity + more)) >= less
