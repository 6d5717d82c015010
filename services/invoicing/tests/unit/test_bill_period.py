"""What a period costs: limits in force (L12), one line per tier (L11), zero conventions."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from quill_invoicing.domain.invoice_lines import MixedCurrencies, bill_period
from quill_invoicing.domain.period_usage import KnownUsage, PeriodUsage
from quill_invoicing.domain.terms import TermsHistory
from quill_pricing.period import BillingPeriod

OCTOBER = BillingPeriod(datetime(2026, 10, 1, tzinfo=UTC), datetime(2026, 11, 1, tzinfo=UTC))


def day(number: int) -> datetime:
    return datetime(2026, 10, number, tzinfo=UTC)


def seen(*days: tuple[int, int], cuts: tuple[int, ...] = ()) -> KnownUsage:
    """(day of October, units on that day) pairs; what was used before the days in ``cuts`` is known."""
    before = {day(cut): {"events": sum(units for at, units in days if at < cut)} for cut in cuts}
    return KnownUsage(PeriodUsage(OCTOBER, 1, 1, {"events": sum(units for _, units in days)}, before))


@pytest.mark.parametrize(
    ("limits", "days", "billed"),
    [
        ([(1, None)], [(5, 40), (20, 60)], 100),  # no limit: all of it
        ([(1, 60)], [(5, 40), (20, 60)], 60),  # over the limit is not billed
        ([(1, 200), (10, 50)], [(5, 120), (20, 30)], 120),  # lowered later: what was used before stays billed
        ([(1, 200), (10, 50)], [(5, 30), (20, 120)], 50),  # lowered before the usage
        ([(1, 50), (10, 200)], [(5, 120)], 120),  # raised while usage stands above it: the usage is billed
        ([(1, 50), (10, 100)], [(5, 120), (20, 10)], 100),
        ([(1, 50), (10, None)], [(5, 40), (20, 50)], 90),
        ([(1, 0)], [(5, 40)], 0),  # limited to nothing
        ([(1, None)], [], 0),  # never reported
    ],
)
def test_the_billed_quantity_is_the_most_that_the_limit_in_force_allowed(limits, days, billed, make_terms, make_item):
    history = TermsHistory.of(
        make_terms(revision=n, effective_at=day(at), items=[make_item(quota=quota)])
        for n, (at, quota) in enumerate(limits, start=1)
    )
    usage = seen(*days, cuts=tuple(at for at, _ in limits[1:]))
    (product,) = bill_period(history, usage, OCTOBER).billed
    assert product.quantity == billed


def test_what_was_used_before_subscribing_is_not_billed(make_terms, make_item):
    free = make_terms(revision=1, has_active_subscription=False, items=[make_item(subscribed=False, quota=1_000_000)])
    paid = make_terms(revision=2, effective_at=day(15))
    usage = seen((5, 900_000), (20, 2_100_000), cuts=(15,))
    statement = bill_period(TermsHistory.of([free, paid]), usage, OCTOBER)
    assert statement.billed[0].quantity == 2_100_000
    assert bill_period(TermsHistory.of([paid]), usage, OCTOBER).billed[0].quantity == 2_100_000


def test_usage_in_a_trial_is_never_charged(make_terms):
    """K11: 5 M events in a free trial, subscribed from the 21st on, 0.1 M more: inside the allowance."""
    trial = make_terms(revision=1, free_trial_until=day(21))
    usage = seen((10, 5_000_000), (25, 100_000), cuts=(21,))
    statement = bill_period(TermsHistory.of([trial]), usage, OCTOBER)
    assert (statement.billed[0].quantity, statement.total_minor) == (100_000, 0)


def test_a_trial_that_a_missed_version_ended_does_not_end_again(make_terms, make_item):
    """K11's kind: cancelled in the trial on the 10th, which only the changes of the newest version tell."""
    trial = make_terms(revision=1, free_trial_until=day(20))
    told = [{"at": day(1), "paid": False}, {"at": day(10), "paid": False, "quota": 1_000_000}]
    items = [make_item(subscribed=False, quota=1_000_000, changes=told)]
    later = make_terms(revision=3, effective_at=day(25), has_active_subscription=False, items=items)
    history = TermsHistory.of([trial, later])
    assert not any(terms.is_paid for terms in history.billing_terms("product_analytics"))


def test_a_subscription_whose_trial_lasts_bills_nothing(make_terms, make_item):
    """K11's kind: also no flat fee of a first tier, which is owed at zero usage (K3)."""
    tiers = [{"up_to": 5, "unit_amount": "5", "flat_amount": "10"}, {"unit_amount": "3"}]
    price = {"model": "graduated", "currency": "usd", "tiers": tiers}
    trial = make_terms(free_trial_until=datetime(2026, 11, 9, tzinfo=UTC), items=[make_item(price=price, allowance=0)])
    assert not bill_period(TermsHistory.of([trial]), seen((10, 3)), OCTOBER).is_billed


def test_usage_of_the_14th_is_billed_though_it_was_told_after_the_cancellation(make_terms, make_item):
    """K2: 12 M events on the 14th, cancelled on the 15th at noon, the report of the 14th comes on the 16th."""
    paid = make_terms(revision=1)
    left = make_terms(
        revision=2,
        effective_at=day(15) + timedelta(hours=12),
        has_active_subscription=False,
        items=[make_item(subscribed=False, quota=1_000_000)],
    )
    cut = {left.effective_at: {"events": 12_000_000}}
    usage = KnownUsage(PeriodUsage(OCTOBER, 1, 2, {"events": 12_500_000}, cut))
    assert bill_period(TermsHistory.of([paid, left]), usage, OCTOBER).total_minor == 39_300


@pytest.mark.parametrize(
    ("values", "carried", "billed"),
    [
        ((9, 5), False, 5),  # K14: the last value
        ((9, None), False, 0),  # a gauge that nobody reported
        ((9, None), True, 9),  # goes on if its meter says so
        ((9, 4), True, 4),
        ((None, None), True, 0),
    ],
)
def test_a_gauge_bills_its_last_value_and_may_be_carried(values, carried, billed, make_terms, make_item):
    """K14: 9 on the 3rd and 5 on the 5th bills 5; here the last values of September and October."""
    earlier, current = values
    september = BillingPeriod(datetime(2026, 9, 1, tzinfo=UTC), OCTOBER.start)
    price = {"model": "per_unit", "currency": "usd", "unit_amount": "1"}
    gauge = make_item(price=price, allowance=0, aggregation="last", carried=carried)
    known = KnownUsage(
        None if current is None else PeriodUsage(OCTOBER, 2, 1, {"events": current}),
        None if earlier is None else PeriodUsage(september, 2, 1, {"events": earlier}),
    )
    statement = bill_period(TermsHistory.of([make_terms(items=[gauge])]), known, OCTOBER)
    assert statement.billed[0].quantity == billed


def test_unsubscribing_in_the_middle_bills_what_was_used_until_then(make_terms, make_item):
    paid = make_terms(revision=1)
    free = make_terms(
        revision=2,
        effective_at=day(15),
        has_active_subscription=False,
        items=[make_item(subscribed=False, quota=1_000_000)],
    )
    statement = bill_period(TermsHistory.of([paid, free]), seen((14, 2_000_000), (20, 3_000_000), cuts=(15,)), OCTOBER)
    assert (statement.billed[0].quantity, statement.total_minor) == (2_000_000, 5_000)


def test_twelve_million_events_cost_393_dollars_in_three_lines(make_terms):
    statement = bill_period(TermsHistory.of([make_terms()]), seen((20, 12_000_000)), OCTOBER)
    assert [(line.tier, line.quantity, line.unit_amount, line.amount_minor) for line in statement.lines] == [
        (1, 1_000_000, Decimal(0), 0),
        (2, 1_000_000, Decimal("0.00005"), 5_000),
        (3, 10_000_000, Decimal("0.0000343"), 34_300),
    ]
    assert statement.total_minor == 39_300


@pytest.mark.parametrize(
    ("price", "quantity", "expected"),
    [
        ({"model": "per_unit", "currency": "usd", "unit_amount": "20"}, 3, [("licensed", 3, 6_000)]),
        ({"model": "flat", "currency": "usd", "amount": "450.00"}, None, [("licensed", 1, 45_000)]),
        ({"model": "per_unit", "currency": "usd", "unit_amount": "20"}, 0, []),
    ],
)
def test_a_licensed_product_makes_one_line(price, quantity, expected, make_terms, make_item):
    seats = make_item(product_key="seats", usage_key=None, counter=None, price=price, quantity=quantity)
    statement = bill_period(TermsHistory.of([make_terms(items=[seats])]), seen(), OCTOBER)
    assert [(line.kind, line.quantity, line.amount_minor) for line in statement.lines] == expected
    assert statement.billed == ()


def test_a_package_line_shows_the_units_and_charges_packages_begun(make_terms, make_item):
    packs = make_item(price={"model": "package", "currency": "usd", "package_size": 1_000, "package_amount": "5.00"})
    (line,) = bill_period(TermsHistory.of([make_terms(items=[packs])]), seen((20, 2_001)), OCTOBER).lines
    assert (line.kind, line.quantity, line.amount_minor) == ("package", 2_001, 1_500)


def test_no_usage_makes_an_invoice_without_lines_for_a_subscriber(make_terms):
    statement = bill_period(TermsHistory.of([make_terms()]), seen(), OCTOBER)
    assert (statement.is_billed, statement.lines, statement.total_minor) == (True, (), 0)


def test_without_a_subscription_nothing_is_billed(make_terms):
    statement = bill_period(TermsHistory.of([make_terms(has_active_subscription=False)]), seen((5, 10**7)), OCTOBER)
    assert (statement.is_billed, statement.billed) == (False, ())


def test_two_currencies_cannot_be_on_one_invoice(make_terms, make_item):
    euros = make_item(product_key="other", price={"model": "per_unit", "currency": "eur", "unit_amount": "1"})
    with pytest.raises(MixedCurrencies, match="eur, usd"):
        bill_period(TermsHistory.of([make_terms(items=[make_item(), euros])]), seen(), OCTOBER)


@given(days=st.lists(st.tuples(st.integers(1, 31), st.integers(0, 9_000_000)), max_size=8), data=st.data())
def test_the_invoice_is_the_same_in_whatever_order_days_were_told(days, data, make_terms_once):
    history = TermsHistory.of([make_terms_once])
    statement = bill_period(history, seen(*days), OCTOBER)
    assert statement.total_minor == sum(line.amount_minor for line in statement.lines)
    assert bill_period(history, seen(*data.draw(st.permutations(days))), OCTOBER) == statement


@pytest.fixture(scope="module")
def make_terms_once():
    from quill_contracts.subscriptions import CustomerSnapshot
    from quill_invoicing.wire import from_wire_customer

    tiers = [{"up_to": 1_000_000, "unit_amount": "0"}, {"unit_amount": "0.0000343"}]
    return from_wire_customer(
        CustomerSnapshot.model_validate(
            {
                "organization_id": "org-1",
                "customer_id": "cust-1",
                "revision": 1,
                "effective_at": OCTOBER.start,
                "license_id": "lic-1",
                "license_type": "cloud",
                "schedule": {"anchor": OCTOBER.start, "interval": "month"},
                "period": {"start": OCTOBER.start, "end": OCTOBER.end},
                "has_active_subscription": True,
                "items": [
                    {
                        "product_key": "product_analytics",
                        "usage_key": "events",
                        "counter": None,
                        "price_id": "p",
                        "price": {"model": "graduated", "currency": "usd", "tiers": tiers},
                        "subscribed": True,
                        "allowance": 0,
                    }
                ],
            }
        )
    )


def test_a_cancellation_decides_nothing_over_the_invoice_that_is_owed(make_terms, make_item):
    paid = make_terms(revision=1, effective_at=day(1), collection_mode="quill-rates")
    left = make_terms(
        revision=2,
        effective_at=day(15),
        collection_mode="stripe-rates",
        has_active_subscription=False,
        items=[make_item(subscribed=False)],
    )
    history = TermsHistory.of([paid, left])
    assert history.owner_of(OCTOBER) is paid
    assert history.owner_of(BillingPeriod(OCTOBER.end, datetime(2026, 12, 1, tzinfo=UTC))) is left
    moved = make_terms(revision=2, effective_at=day(15), collection_mode="stripe-rates")
    assert TermsHistory.of([paid, moved]).owner_of(OCTOBER) is moved
