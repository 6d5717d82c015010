import pytest
from quill_pricing.budget import greatest_quantity_within
from quill_pricing.money import CurrencyMismatch, Money
from quill_pricing.price import price_from_document
from quill_pricing.quantity import InvalidQuantity

SURVEYS = price_from_document(
    {
        "model": "graduated",
        "tiers": [
            {"up_to": 1_500, "unit_amount": "0"},
            {"up_to": 2_000, "unit_amount": "0.10"},
            {"unit_amount": "0.01"},
        ],
    }
)
PACKS = price_from_document({"model": "package", "package_size": 1_000, "package_amount": "10.00"})
FREE_AT_THE_END = price_from_document(
    {"model": "graduated", "tiers": [{"up_to": 100, "unit_amount": "1.00"}, {"unit_amount": "0"}]}
)
FLAT = price_from_document({"model": "flat", "amount": "450.00"})


@pytest.mark.parametrize(
    ("price", "budget", "quantity"),
    [
        (SURVEYS, "0.00", 1_500),
        (SURVEYS, "0.09", 1_500),
        (SURVEYS, "0.10", 1_501),
        (SURVEYS, "50.00", 2_000),
        (SURVEYS, "50.01", 2_001),
        (SURVEYS, "100.00", 7_000),
        (PACKS, "0.00", 0),
        (PACKS, "9.99", 0),
        (PACKS, "10.00", 1_000),
        (PACKS, "35.00", 3_000),
        (FREE_AT_THE_END, "99.99", 99),
        (FREE_AT_THE_END, "100.00", None),
        (FLAT, "449.99", 0),
        (FLAT, "450.00", None),
    ],
)
def test_a_budget_buys_whole_units(price, budget, quantity):
    assert greatest_quantity_within(price=price, budget=Money.from_decimal_string(budget)) == quantity


@pytest.mark.parametrize(
    ("budget", "quantity"),
    [
        ("0.00", 0),
        ("5.00", 5),
        ("10.00", 20),  # the first 10 cost up to $10.00; from the 11th all cost $0.50, and the 21st makes $10.50
        ("9.99", 9),  # the 10th would make $10.00; that 11 to 19 are cheaper again cannot be reached
        ("50.00", 100),  # the fee of the last tier makes $80.20 at once
        ("80.20", 101),
    ],
)
def test_a_volume_price_ends_at_the_first_quantity_over_the_budget(budget, quantity):
    price = price_from_document(
        {
            "model": "volume",
            "tiers": [
                {"up_to": 10, "unit_amount": "1.00"},
                {"up_to": 100, "unit_amount": "0.50"},
                {"unit_amount": "0.20", "flat_amount": "60.00"},
            ],
        }
    )
    assert greatest_quantity_within(price=price, budget=Money.from_decimal_string(budget)) == quantity


@pytest.mark.parametrize("model", ["graduated", "volume"])
@pytest.mark.parametrize(
    ("budget", "at_least", "quantity"),
    [
        ("0.00", 0, 0),
        ("9.99", 0, 0),  # not even quantity 0 fits: its flat fee is $10.00
        ("9.99", 3, 3),
        ("10.00", 0, 0),
        ("14.99", 0, 0),
        ("15.00", 0, 1),
        ("15.00", 4, 4),
    ],
)
def test_a_budget_below_the_flat_fee_grants_only_what_is_granted_anyway(model, budget, at_least, quantity):
    """K3: the flat fee of the first tier is spent before the first unit."""
    tiers = [{"up_to": 5, "unit_amount": "5", "flat_amount": "10"}, {"unit_amount": "3", "flat_amount": "30"}]
    price = price_from_document({"model": model, "tiers": tiers})
    budget = Money.from_decimal_string(budget)
    assert greatest_quantity_within(price=price, budget=budget, at_least=at_least) == quantity


def test_units_that_still_round_to_nothing_fit_a_budget_of_zero():
    price = price_from_document({"model": "per_unit", "unit_amount": "0.00005"})
    assert greatest_quantity_within(price=price, budget=Money(0)) == 99  # 100 units are half a cent, which is a cent


def test_the_answer_is_never_below_what_is_granted_anyway():
    assert greatest_quantity_within(price=SURVEYS, budget=Money(0), at_least=1_800) == 1_800
    assert greatest_quantity_within(price=SURVEYS, budget=Money(-1), at_least=0) == 0
    assert greatest_quantity_within(price=FLAT, budget=Money(1), at_least=7) == 7
    assert greatest_quantity_within(price=FREE_AT_THE_END, budget=Money(10_000), at_least=7) is None


def test_a_budget_in_another_currency_or_a_broken_floor_is_refused():
    with pytest.raises(CurrencyMismatch):
        greatest_quantity_within(price=SURVEYS, budget=Money(1, "eur"))
    with pytest.raises(InvalidQuantity):
        greatest_quantity_within(price=SURVEYS, budget=Money(1), at_least=-1)
