import pytest
from quill_pricing.money import Money
from quill_pricing.price import price_from_document
from quill_pricing.quantity import InvalidQuantity
from quill_pricing.quota import quota_for

RECORDINGS = price_from_document(
    {"model": "graduated", "tiers": [{"up_to": 5_000, "unit_amount": "0"}, {"unit_amount": "0.005"}]}
)


@pytest.mark.parametrize(
    ("price", "allowance", "subscribed", "billing_limit", "quota"),
    [
        (RECORDINGS, 5_000, False, None, 5_000),
        (RECORDINGS, 5_000, False, Money(10_000), 5_000),  # nobody without a subscription pays
        (RECORDINGS, 0, False, None, 0),
        (RECORDINGS, None, False, None, 0),
        (None, 5_000, False, None, 5_000),
        (RECORDINGS, 5_000, True, None, None),
        (RECORDINGS, 5_000, True, Money(10_000), 25_000),  # $100.00 buys 20,000 more, and the last of them exactly
        (RECORDINGS, 5_000, True, Money(0), 5_000),
        (RECORDINGS, 30_000, True, Money(10_000), 30_000),  # a granted allowance is not taken away
        (None, 5_000, True, Money(10_000), None),
        (price_from_document({"model": "flat", "amount": "450.00"}), 0, True, Money(45_000), None),
    ],
)
def test_the_quota_follows_from_the_terms_alone(price, allowance, subscribed, billing_limit, quota):
    assert quota_for(price=price, allowance=allowance, subscribed=subscribed, billing_limit=billing_limit) == quota


def test_a_quota_of_25000_is_where_the_next_cent_would_exceed_the_limit():
    from quill_pricing.rating import amount_minor

    assert amount_minor(RECORDINGS, 25_000) == 10_000
    assert amount_minor(RECORDINGS, 25_001) == 10_001  # 10000.5 cents


def test_an_allowance_that_is_not_a_quantity_is_refused():
    with pytest.raises(InvalidQuantity):
        quota_for(price=None, allowance=-1, subscribed=False, billing_limit=None)
