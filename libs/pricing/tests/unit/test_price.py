import pytest
from quill_pricing.money import Money
from quill_pricing.price import (
    FlatPrice,
    GraduatedPrice,
    InvalidPrice,
    PackagePrice,
    PerUnitPrice,
    VolumePrice,
    price_from_document,
    price_to_document,
)
from quill_pricing.quantity import QUANTITY_MAX
from quill_pricing.tiers import TIER_COUNT_MAX, Tier
from quill_pricing.unit_amount import InvalidUnitAmount, UnitAmount

FREE = UnitAmount(0)
CENT = UnitAmount.from_decimal_string("0.01")


@pytest.mark.parametrize(
    ("document", "price"),
    [
        ({"model": "flat", "currency": "usd", "amount": "450.00"}, FlatPrice(Money(45_000))),
        ({"model": "per_unit", "currency": "usd", "unit_amount": "0.00005"}, PerUnitPrice(UnitAmount(50_000_000))),
        ({"model": "per_unit", "currency": "jpy", "unit_amount": "20"}, PerUnitPrice(UnitAmount(20 * 10**12), "jpy")),
        (
            {"model": "package", "currency": "usd", "package_size": 1_000, "package_amount": "10.00"},
            PackagePrice(1_000, Money(1_000)),
        ),
        (
            {
                "model": "graduated",
                "currency": "usd",
                "tiers": [
                    {"up_to": 10, "unit_amount": "0"},
                    {"up_to": None, "unit_amount": "0.01", "flat_amount": "5.00"},
                ],
            },
            GraduatedPrice((Tier(10, FREE), Tier(None, CENT, Money(500)))),
        ),
        (
            {
                "model": "volume",
                "currency": "usd",
                "tiers": [{"up_to": None, "unit_amount": "0.01", "flat_amount": "0.00"}],
            },
            VolumePrice((Tier(None, CENT, Money(0)),)),
        ),
    ],
)
def test_a_price_and_its_document_are_two_forms_of_one_thing(document, price):
    assert price_from_document(document) == price
    assert price_to_document(price) == document


def test_a_document_that_names_every_field_with_null_for_the_absent_ones_is_read():
    document = {
        "model": "graduated",
        "currency": "usd",
        "amount": None,
        "unit_amount": None,
        "package_size": None,
        "package_amount": None,
        "tiers": [{"up_to": None, "unit_amount": "0.01", "flat_amount": None}],
    }
    assert price_from_document(document) == GraduatedPrice((Tier(None, CENT),))


@pytest.mark.parametrize("unit_amount", [{}, {"unit_amount": None}, {"unit_amount": "0"}])
def test_a_tier_with_a_flat_amount_needs_no_unit_amount(unit_amount):
    """K3: it counts as 0 and is written as 0."""
    document = {"model": "volume", "tiers": [{"up_to": None, "flat_amount": "5.00", **unit_amount}]}
    price = price_from_document(document)
    assert price == VolumePrice((Tier(None, flat_amount=Money(500)),))
    assert price_to_document(price)["tiers"] == [{"up_to": None, "unit_amount": "0", "flat_amount": "5.00"}]


@pytest.mark.parametrize(
    "document",
    [
        {"model": "flat", "currency": "usd", "amount": "450.00"},
        {"model": "per_unit", "currency": "usd", "unit_amount": "20"},
        {"model": "package", "currency": "usd", "package_size": 5, "package_amount": "50.00"},
        {"model": "graduated", "currency": "usd", "tiers": [{"up_to": None, "unit_amount": "20"}]},
        {"model": "volume", "currency": "usd", "tiers": [{"up_to": None, "unit_amount": "20"}]},
    ],
)
def test_every_model_says_whether_it_is_prorated(document):
    """K5: it is, unless the document says otherwise."""
    assert price_from_document(document).prorated
    assert price_from_document({**document, "prorated": True}) == price_from_document(document)
    whole = price_from_document({**document, "prorated": False})
    assert not whole.prorated
    assert whole != price_from_document(document)
    assert price_to_document(whole) == {**document, "prorated": False}


def graduated(*tiers):
    return {"model": "graduated", "tiers": list(tiers)}


LAST = {"up_to": None, "unit_amount": "0.01"}


@pytest.mark.parametrize(
    ("document", "field"),
    [
        ({}, "model"),
        ({"model": "auction"}, "model"),
        ({"model": ["flat"]}, "model"),
        ({"model": "flat", "amount": "1.00", "currency": "doge"}, "currency"),
        ({"model": "flat", "amount": "1.00", "currency": 1}, "currency"),
        ({"model": "flat"}, "amount"),
        ({"model": "flat", "amount": "1.005"}, "amount"),
        ({"model": "flat", "amount": "-1.00"}, "amount"),
        ({"model": "flat", "amount": 1.0}, "amount"),
        ({"model": "flat", "amount": "1.00", "unit_amount": "1"}, "unit_amount"),
        ({"model": "flat", "amount": "1.00", "colour": "red"}, "colour"),
        ({"model": "flat", "amount": "1.00", "prorated": "no"}, "prorated"),
        ({"model": "per_unit", "unit_amount": "1", "prorated": 0}, "prorated"),
        ({"model": "per_unit"}, "unit_amount"),
        ({"model": "per_unit", "unit_amount": 0.5}, "unit_amount"),
        ({"model": "per_unit", "unit_amount": "NaN"}, "unit_amount"),
        ({"model": "per_unit", "unit_amount": "-0.5"}, "unit_amount"),
        ({"model": "per_unit", "unit_amount": "5E-7"}, "unit_amount"),
        ({"model": "per_unit", "unit_amount": "0.0000000000001"}, "unit_amount"),
        ({"model": "package", "package_amount": "1.00"}, "package_size"),
        ({"model": "package", "package_size": 0, "package_amount": "1.00"}, "package_size"),
        ({"model": "package", "package_size": True, "package_amount": "1.00"}, "package_size"),
        ({"model": "package", "package_size": 10.0, "package_amount": "1.00"}, "package_size"),
        ({"model": "package", "package_size": 10, "package_amount": "-1.00"}, "package_amount"),
        ({"model": "graduated"}, "tiers"),
        ({"model": "graduated", "tiers": []}, "tiers"),
        ({"model": "graduated", "tiers": "free"}, "tiers"),
        ({"model": "graduated", "tiers": [LAST] * (TIER_COUNT_MAX + 1)}, "tiers"),
        (graduated("free"), "tiers.0"),
        (graduated({"up_to": 10, "unit_amount": "0"}), "tiers.0.up_to"),
        (graduated(LAST, LAST), "tiers.0.up_to"),
        (graduated({"up_to": 0, "unit_amount": "0"}, LAST), "tiers.0.up_to"),
        (graduated({"up_to": 10, "unit_amount": "0"}, {"up_to": 10, "unit_amount": "0"}, LAST), "tiers.1.up_to"),
        (graduated({"up_to": 10, "unit_amount": "0"}, {"up_to": 9, "unit_amount": "0"}, LAST), "tiers.1.up_to"),
        (graduated({"up_to": "10", "unit_amount": "0"}, LAST), "tiers.0.up_to"),
        (graduated({"up_to": True, "unit_amount": "0"}, LAST), "tiers.0.up_to"),
        (graduated({"up_to": QUANTITY_MAX + 1, "unit_amount": "0"}, LAST), "tiers.0.up_to"),
        (graduated({"up_to": 10}, LAST), "tiers.0.unit_amount"),
        (graduated({"up_to": 10, "unit_amount": "x"}, LAST), "tiers.0.unit_amount"),
        (graduated({"up_to": 10, "unit_amount": "0", "flat_amount": 1}, LAST), "tiers.0.flat_amount"),
        (graduated({"up_to": 10, "unit_amount": "0", "flat_amount": "-1.00"}, LAST), "tiers.0.flat_amount"),
        (graduated({"up_to": 10, "unit_amount": "0", "from": 1}, LAST), "tiers.0.from"),
    ],
)
def test_a_price_that_cannot_be_billed_is_refused_by_the_name_of_its_field(document, field):
    with pytest.raises(InvalidPrice) as refused:
        price_from_document(document)
    assert refused.value.field == field
    assert refused.value.reason


def test_a_flat_amount_in_another_currency_is_refused():
    with pytest.raises(InvalidPrice) as refused:
        GraduatedPrice((Tier(None, CENT, Money(1, "eur")),), "usd")
    assert refused.value.field == "tiers.0.flat_amount"


@pytest.mark.parametrize(
    ("text", "shortest"),
    [
        ("0.00005", "0.00005"),
        ("0.10", "0.1"),
        ("20.00", "20"),
        ("0", "0"),
        ("100", "100"),
        ("0.000000000001", "0.000000000001"),
    ],
)
def test_a_unit_amount_is_written_in_its_shortest_exact_form(text, shortest):
    assert UnitAmount.from_decimal_string(text).to_decimal_string() == shortest


@pytest.mark.parametrize("wrong", [0.5, True, -1, "1"])
def test_a_scaled_unit_amount_that_is_not_an_integer_of_0_or_more_is_refused(wrong):
    with pytest.raises(InvalidUnitAmount):
        UnitAmount(wrong)


@pytest.mark.parametrize("wrong", [0.5, 1, None, "", "1" * 16, "1.", "+1", "1\n", "\N{ARABIC-INDIC DIGIT ONE}"])
def test_text_that_is_not_a_unit_amount_is_refused(wrong):
    with pytest.raises(InvalidUnitAmount):
        UnitAmount.from_decimal_string(wrong)


def test_a_whole_amount_of_money_is_a_unit_amount_unless_it_is_a_credit():
    assert UnitAmount.from_money(Money(45_000)).to_decimal_string() == "450"
    assert UnitAmount.from_money(Money(5, "jpy")).to_decimal_string() == "5"
    with pytest.raises(InvalidUnitAmount):
        UnitAmount.from_money(Money(-1))
