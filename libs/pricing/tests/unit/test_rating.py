"""Rating as tables that a finance person can check by hand."""

import pytest
from quill_pricing.money import Money
from quill_pricing.price import price_from_document
from quill_pricing.quantity import QUANTITY_MAX, InvalidQuantity
from quill_pricing.rating import amount_minor, rate

EVENTS = price_from_document(
    {
        "model": "graduated",
        "tiers": [
            {"up_to": 1_000_000, "unit_amount": "0"},
            {"up_to": 2_000_000, "unit_amount": "0.00005"},
            {"up_to": 15_000_000, "unit_amount": "0.0000343"},
            {"up_to": None, "unit_amount": "0.0000295"},
        ],
    }
)


@pytest.mark.parametrize(
    ("quantity", "line_amounts_minor", "total_minor"),
    [
        (0, [], 0),
        (999_999, [0], 0),
        (1_000_000, [0], 0),
        (1_000_001, [0, 0], 0),  # 0.005 cents
        (1_000_100, [0, 1], 1),  # 0.5 -> 1
        (1_000_300, [0, 2], 2),  # 1.5 -> 2
        (2_000_000, [0, 5_000], 5_000),
        (2_000_150, [0, 5_000, 1], 5_001),  # 0.5145 -> 1
        (2_345_678, [0, 5_000, 1_186], 6_186),  # 1185.67554 -> 1186
        (12_000_000, [0, 5_000, 34_300], 39_300),  # the published example: $393.00
        (15_000_169, [0, 5_000, 44_590, 0], 49_590),  # 0.49855 -> 0
        (20_000_001, [0, 5_000, 44_590, 14_750], 64_340),  # 14750.00295 -> 14750
    ],
)
def test_every_tier_reached_is_a_line_rounded_on_its_own(quantity, line_amounts_minor, total_minor):
    rating = rate(price=EVENTS, quantity=quantity)
    assert [line.amount.amount_minor for line in rating.lines] == line_amounts_minor
    assert rating.total == Money(total_minor)
    assert amount_minor(EVENTS, quantity) == total_minor


def test_a_line_explains_its_amount():
    line = rate(price=EVENTS, quantity=2_345_678).lines[2]
    assert (line.kind, line.tier_index, line.first_unit, line.last_unit) == ("tier", 2, 2_000_001, 2_345_678)
    assert (line.quantity, line.unit_amount, line.exact_amount) == (345_678, "0.0000343", "11.8567554")
    assert line.amount == Money.from_decimal_string("11.86")


def test_lines_are_rounded_before_they_are_summed_not_after():
    price = price_from_document(
        {"model": "graduated", "tiers": [{"up_to": 333, "unit_amount": "0.015"}, {"unit_amount": "0.005"}]}
    )
    rating = rate(price=price, quantity=334)  # 499.5 -> 500 and 0.5 -> 1; rounding the sum once would give 500
    assert [line.amount.amount_minor for line in rating.lines] == [500, 1]
    assert rating.total == Money(501)


def test_the_lines_of_a_paid_stripe_invoice_come_out_the_same():
    # 1,031 credits: 1000 at 0 and 9.00 flat, 31 at 3.6 cents and a flat amount of zero that is a line all the same.
    price = price_from_document(
        {
            "model": "graduated",
            "tiers": [
                {"up_to": 1_000, "unit_amount": "0", "flat_amount": "9.00"},
                {"unit_amount": "0.036", "flat_amount": "0.00"},
            ],
        }
    )
    rating = rate(price=price, quantity=1_031)
    assert [(line.kind, line.tier_index, line.amount.amount_minor) for line in rating.lines] == [
        ("tier", 0, 0),
        ("flat_fee", 0, 900),
        ("tier", 1, 112),
        ("flat_fee", 1, 0),
    ]
    assert rating.total == Money(1_012)
    assert amount_minor(price, 1_031) == 1_012


TIERS = [
    {"up_to": 10, "unit_amount": "1.00", "flat_amount": "2.00"},
    {"up_to": 100, "unit_amount": "0.50"},
    {"unit_amount": "0.10", "flat_amount": "7.00"},
]


@pytest.mark.parametrize(
    ("quantity", "graduated_total", "volume_total"),
    [
        (0, "2.00", "2.00"),
        (1, "3.00", "3.00"),
        (10, "12.00", "12.00"),
        (11, "12.50", "5.50"),
        (100, "57.00", "50.00"),
        (101, "64.10", "17.10"),
        (1_000, "154.00", "107.00"),
    ],
)
def test_the_edges_of_tiers_are_inclusive_above_and_exclusive_below(quantity, graduated_total, volume_total):
    for model, total in (("graduated", graduated_total), ("volume", volume_total)):
        price = price_from_document({"model": model, "tiers": TIERS})
        assert rate(price=price, quantity=quantity).total.to_decimal_string() == total
        assert amount_minor(price, quantity) == Money.from_decimal_string(total).amount_minor


STRIPE_TIERS = [
    {"up_to": 5, "unit_amount": "5.00", "flat_amount": "10.00"},
    {"up_to": 10, "unit_amount": "4.00", "flat_amount": "20.00"},
    {"unit_amount": "3.00", "flat_amount": "30.00"},
]
"""Stripe's documentation of tiered pricing, "add flat rates"."""

STRIPE_UNIT_TIERS = [
    {"up_to": 5, "unit_amount": "7.00"},
    {"up_to": 10, "unit_amount": "6.50"},
    {"unit_amount": "6.00"},
]
"""The same page without flat amounts."""


@pytest.mark.parametrize(
    ("tiers", "quantity", "volume_total", "graduated_total"),
    [
        (STRIPE_TIERS, 0, "10.00", "10.00"),
        (STRIPE_TIERS, 1, "15.00", "15.00"),
        (STRIPE_TIERS, 5, "35.00", "35.00"),
        (STRIPE_TIERS, 6, "44.00", "59.00"),
        (STRIPE_TIERS, 10, "60.00", "75.00"),
        (STRIPE_TIERS, 11, "63.00", "108.00"),
        (STRIPE_TIERS, 12, "66.00", "111.00"),
        (STRIPE_TIERS, 20, "90.00", "135.00"),
        (STRIPE_UNIT_TIERS, 0, "0.00", "0.00"),
        (STRIPE_UNIT_TIERS, 1, "7.00", "7.00"),
        (STRIPE_UNIT_TIERS, 5, "35.00", "35.00"),
        (STRIPE_UNIT_TIERS, 6, "39.00", "41.50"),
        (STRIPE_UNIT_TIERS, 20, "120.00", "127.50"),
        (STRIPE_UNIT_TIERS, 25, "150.00", "157.50"),
    ],
)
def test_published_tier_examples_come_out_to_the_cent(tiers, quantity, volume_total, graduated_total):
    """K3: the first tier counts as reached at quantity 0."""
    for model, total in (("volume", volume_total), ("graduated", graduated_total)):
        price = price_from_document({"model": model, "tiers": tiers})
        assert rate(price=price, quantity=quantity).total.to_decimal_string() == total
        assert amount_minor(price, quantity) == Money.from_decimal_string(total).amount_minor


@pytest.mark.parametrize("model", ["volume", "graduated"])
def test_no_usage_owes_the_flat_fee_of_the_first_tier_on_one_line(model):
    """K3: one line for the fee, none for units that were not used."""
    rating = rate(price=price_from_document({"model": model, "tiers": STRIPE_TIERS}), quantity=0)
    assert [(line.kind, line.tier_index, line.amount) for line in rating.lines] == [("flat_fee", 0, Money(1_000))]


@pytest.mark.parametrize("model", ["volume", "graduated"])
def test_a_flat_fee_of_a_later_tier_waits_for_its_first_unit(model):
    tiers = [{"up_to": 5, "unit_amount": "0"}, {"unit_amount": "1.00", "flat_amount": "20.00"}]
    price = price_from_document({"model": model, "tiers": tiers})
    owed = [amount_minor(price, quantity) for quantity in (0, 5, 6)]
    assert owed == [0, 0, 2_600 if model == "volume" else 2_100]


@pytest.mark.parametrize(
    ("quantity", "graduated_total", "volume_total"),
    [(0, "49.00", "49.00"), (100, "49.00", "49.00"), (101, "49.50", "50.50"), (1_001, "598.00", "99.00")],
)
def test_a_tier_may_have_a_flat_amount_alone(quantity, graduated_total, volume_total):
    """K3: its units then cost nothing beyond the flat amount."""
    tiers = [
        {"up_to": 100, "flat_amount": "49.00"},
        {"up_to": 1_000, "unit_amount": "0.50"},
        {"flat_amount": "99.00"},
    ]
    for model, total in (("graduated", graduated_total), ("volume", volume_total)):
        price = price_from_document({"model": model, "tiers": tiers})
        rating = rate(price=price, quantity=quantity)
        assert rating.total.to_decimal_string() == total
        assert sum(line.quantity for line in rating.lines if line.kind == "tier") == quantity
        assert amount_minor(price, quantity) == rating.total.amount_minor


def test_a_volume_price_bills_all_units_in_one_line_at_the_tier_of_the_last():
    rating = rate(price=price_from_document({"model": "volume", "tiers": TIERS}), quantity=101)
    units, fee = rating.lines
    assert (units.kind, units.tier_index, units.first_unit, units.last_unit, units.quantity) == ("tier", 2, 1, 101, 101)
    assert (fee.kind, fee.tier_index, fee.quantity, fee.amount) == ("flat_fee", 2, 1, Money(700))


@pytest.mark.parametrize(("quantity", "packages"), [(0, 0), (1, 1), (1_000, 1), (1_001, 2), (2_000, 2), (2_001, 3)])
def test_a_package_once_begun_is_owed_in_full(quantity, packages):
    price = price_from_document({"model": "package", "package_size": 1_000, "package_amount": "10.00"})
    rating = rate(price=price, quantity=quantity)
    assert rating.total == Money(packages * 1_000)
    assert [(line.kind, line.quantity, line.last_unit) for line in rating.lines] == (
        [("package", packages, quantity)] if quantity else []
    )


@pytest.mark.parametrize(("quantity", "total_minor"), [(0, 0), (1, 0), (9, 0), (10, 1), (29, 1), (30, 2), (50, 3)])
def test_a_per_unit_price_rounds_the_line_not_the_unit(quantity, total_minor):
    # 0.05 cents a unit: 10 are half a cent, 30 are one and a half.
    price = price_from_document({"model": "per_unit", "unit_amount": "0.0005"})
    assert rate(price=price, quantity=quantity).total == Money(total_minor)


@pytest.mark.parametrize("quantity", [0, 1, 1_000])
def test_a_flat_price_is_owed_whatever_the_quantity(quantity):
    price = price_from_document({"model": "flat", "amount": "450.00"})
    rating = rate(price=price, quantity=quantity)
    assert [(line.kind, line.quantity) for line in rating.lines] == [("flat", 1)]
    assert rating.total == Money(45_000)


def test_a_currency_without_minor_unit_is_rounded_to_whole_units():
    price = price_from_document({"model": "per_unit", "currency": "jpy", "unit_amount": "0.5"})
    assert rate(price=price, quantity=3).total == Money(2, "jpy")


def test_the_largest_quantity_is_rated_exactly():
    price = price_from_document({"model": "per_unit", "unit_amount": "0.000000000001"})
    line = rate(price=price, quantity=QUANTITY_MAX).lines[0]
    assert line.exact_amount == "9223372.036854775807"
    assert line.amount == Money.from_decimal_string("9223372.04")


@pytest.mark.parametrize("wrong", [-1, 1.0, True, "1", QUANTITY_MAX + 1])
def test_what_is_not_a_quantity_is_not_rated(wrong):
    with pytest.raises(InvalidQuantity):
        rate(price=EVENTS, quantity=wrong)
    with pytest.raises(InvalidQuantity):
        amount_minor(EVENTS, wrong)
