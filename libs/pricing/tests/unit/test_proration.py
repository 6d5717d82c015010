from datetime import UTC, datetime, timedelta

import pytest
from quill_pricing.money import Money
from quill_pricing.period import BillingPeriod
from quill_pricing.proration import InvalidProration, prorate

START = datetime(2026, 4, 1, tzinfo=UTC)
APRIL = BillingPeriod(START, datetime(2026, 5, 1, tzinfo=UTC))
SECONDS = 30 * 24 * 3600


def second(number):
    return START + timedelta(seconds=number)


@pytest.mark.parametrize(
    ("amount", "first_second", "last_second", "share"),
    [
        ("30.00", 0, SECONDS, "30.00"),
        ("30.00", 0, SECONDS // 2, "15.00"),
        ("20.00", 10 * 86_400, SECONDS, "13.33"),  # 20 of 30 days: 13.3333
        ("20.00", 0, 10 * 86_400, "6.67"),  # 10 of 30 days: 6.6667
        ("-20.00", 0, 10 * 86_400, "-6.67"),  # the credit mirrors the charge
        ("0.01", 0, SECONDS // 2, "0.01"),  # half a cent goes up
        ("0.01", 0, SECONDS // 2 - 1, "0.00"),
        ("30.00", 0, 1, "0.00"),
    ],
)
def test_a_part_owes_its_share_of_the_seconds(amount, first_second, last_second, share):
    part = BillingPeriod(second(first_second), second(last_second))
    assert prorate(Money.from_decimal_string(amount), APRIL, part) == Money.from_decimal_string(share)


@pytest.mark.parametrize(("first", "last"), [(-1, 10), (10, SECONDS + 1)])
def test_a_part_outside_the_whole_is_refused(first, last):
    with pytest.raises(InvalidProration):
        prorate(Money(100), APRIL, BillingPeriod(second(first), second(last)))
