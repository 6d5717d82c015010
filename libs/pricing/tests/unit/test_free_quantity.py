"""What an allowance may promise: units that cost exactly nothing (K17)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from quill_pricing.free_quantity import free_quantity
from quill_pricing.price import price_from_document


def tiered(model, *tiers):
    return {"model": model, "tiers": list(tiers)}


FREE_100 = {"up_to": 100, "unit_amount": "0"}


@pytest.mark.parametrize(
    ("document", "free"),
    [
        ({"model": "per_unit", "unit_amount": "0.00001"}, 0),  # 499 units round to nothing and are charged later
        ({"model": "per_unit", "unit_amount": "0.000000000001"}, 0),
        ({"model": "per_unit", "unit_amount": "0"}, None),
        ({"model": "flat", "amount": "450.00"}, None),  # owed without usage: no unit costs anything
        ({"model": "package", "package_size": 1_000, "package_amount": "0.01"}, 0),
        ({"model": "package", "package_size": 1_000, "package_amount": "0.00"}, None),
        (tiered("graduated", FREE_100, {"unit_amount": "0.00001"}), 100),
        (tiered("graduated", {"up_to": 5, "unit_amount": "0"}, FREE_100, {"unit_amount": "1"}), 100),
        (tiered("graduated", {**FREE_100, "flat_amount": "49.00"}, {"unit_amount": "1"}), 100),  # a base fee
        (tiered("graduated", FREE_100, {"unit_amount": "0", "flat_amount": "9.00"}), 100),
        (tiered("graduated", FREE_100, {"unit_amount": "0", "flat_amount": "0.00"}), None),
        (tiered("volume", FREE_100, {"unit_amount": "0.001"}), 100),
        (tiered("volume", {"up_to": 9, "flat_amount": "5.00"}, {"flat_amount": "5.00"}), None),
        (tiered("volume", {"up_to": 9, "flat_amount": "5.00"}, {"flat_amount": "5.01"}), 9),
        (tiered("graduated", {"up_to": 9, "flat_amount": "5.00"}, {"flat_amount": "5.00"}), 9),
    ],
)
def test_units_that_only_round_to_nothing_are_not_free(document, free):
    """K17: free means exactly free."""
    assert free_quantity(price_from_document(document)) == free


@given(st.integers(1, 1_000), st.integers(1, 10**12))
def test_the_first_unit_that_costs_anything_ends_what_is_free(up_to, scaled):
    price = price_from_document(
        tiered(
            "graduated",
            {"up_to": up_to, "unit_amount": "0"},
            {"unit_amount": f"{scaled // 10**12}.{scaled % 10**12:012d}"},
        )
    )
    assert free_quantity(price) == up_to
