import pytest
from hypothesis import given
from hypothesis import strategies as st
from quill_pricing.currency import UnknownCurrency
from quill_pricing.money import CurrencyMismatch, InvalidMoney, InvalidSplit, Money

amounts = st.integers(-(10**15), 10**15)
currencies = st.sampled_from(["usd", "eur", "jpy", "kwd"])
weights = st.lists(st.integers(0, 10**9), min_size=1, max_size=12).filter(any)


@pytest.mark.parametrize(
    ("text", "currency", "amount_minor"),
    [
        ("393.00", "usd", 39_300),
        ("393", "usd", 39_300),
        ("0.5", "usd", 50),
        ("-0.05", "usd", -5),
        ("100", "jpy", 100),
        ("1.234", "kwd", 1_234),
    ],
)
def test_a_decimal_string_is_read_exactly(text, currency, amount_minor):
    assert Money.from_decimal_string(text, currency) == Money(amount_minor, currency)


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        (Money(39_300), "393.00"),
        (Money(5), "0.05"),
        (Money(-5), "-0.05"),
        (Money(0), "0.00"),
        (Money(100, "jpy"), "100"),
        (Money(-1_234, "kwd"), "-1.234"),
    ],
)
def test_money_is_written_with_all_places_of_its_currency(amount, text):
    assert amount.to_decimal_string() == text


@pytest.mark.parametrize(
    "text", ["", "1.005", "1,00", "1e2", "NaN", "Infinity", "+1", " 1", "1\n", ".5", "1.", "\N{ARABIC-INDIC DIGIT ONE}"]
)
def test_text_that_is_not_an_exact_amount_is_refused(text):
    with pytest.raises(InvalidMoney):
        Money.from_decimal_string(text)


@pytest.mark.parametrize("wrong", [1.0, True, "1", None])
def test_an_amount_that_is_not_an_integer_is_refused(wrong):
    with pytest.raises(InvalidMoney):
        Money(wrong)


@pytest.mark.parametrize("currency", ["USD", "xyz", "", None])
def test_an_unknown_currency_is_refused(currency):
    with pytest.raises(UnknownCurrency):
        Money(1, currency)


@pytest.mark.parametrize(
    "combine",
    [
        lambda left, right: left + right,
        lambda left, right: left - right,
        lambda left, right: left < right,
        lambda left, right: left <= right,
        lambda left, right: left > right,
        lambda left, right: left >= right,
        lambda left, right: Money.sum_of([left, right]),
    ],
)
def test_two_currencies_are_never_put_together(combine):
    with pytest.raises(CurrencyMismatch, match=r"usd.*eur"):
        combine(Money(1, "usd"), Money(1, "eur"))


def test_money_adds_subtracts_negates_and_compares():
    assert Money(3) + Money(4) - Money(5) == Money(2)
    assert -Money(3) == Money(-3)
    assert Money(1) < Money(2) <= Money(2) < Money(3)
    assert Money(3) > Money(2) >= Money(2)
    assert Money(1, "usd") != Money(1, "eur")
    assert Money.sum_of([]) == Money.zero()
    assert Money.sum_of([Money(1, "jpy"), Money(2, "jpy")], "jpy") == Money(3, "jpy")


@pytest.mark.parametrize(
    ("amount_minor", "shares", "parts"),
    [
        (100, [1, 1, 1], [34, 33, 33]),
        (101, [1, 1, 1], [34, 34, 33]),
        (100, [1, 0, 3], [25, 0, 75]),
        (1, [1, 2], [0, 1]),
        (-100, [1, 1, 1], [-34, -33, -33]),
        (0, [5, 7], [0, 0]),
    ],
)
def test_odd_minor_units_go_to_the_largest_remainders_the_earlier_first(amount_minor, shares, parts):
    assert Money(amount_minor).split(shares) == tuple(Money(part) for part in parts)


@pytest.mark.parametrize("wrong", [[], [0, 0], [1, -1], [1, 0.5], [True]])
def test_weights_that_describe_no_shares_are_refused(wrong):
    with pytest.raises(InvalidSplit):
        Money(100).split(wrong)


@given(amounts, currencies)
def test_text_and_money_are_two_forms_of_one_amount(amount_minor, currency):
    money = Money(amount_minor, currency)
    assert Money.from_decimal_string(money.to_decimal_string(), currency) == money


@given(amounts, weights)
def test_a_split_loses_nothing(amount_minor, shares):
    assert Money.sum_of(Money(amount_minor).split(shares)) == Money(amount_minor)


@given(amounts, weights)
def test_every_part_of_a_split_is_within_a_minor_unit_of_its_share(amount_minor, shares):
    total = sum(shares)
    for part, weight in zip(Money(amount_minor).split(shares), shares, strict=True):
        assert abs(part.amount_minor * total - amount_minor * weight) < total


@given(amounts, weights)
def test_a_credit_splits_as_the_mirror_of_its_charge(amount_minor, shares):
    assert Money(-amount_minor).split(shares) == tuple(-part for part in Money(amount_minor).split(shares))
