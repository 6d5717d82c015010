"""What a period costs: limits in force (L12), one line per tier (L11), zero conventions."""

from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from quill_invoicing.domain.invoice_lines import MixedCurrencies, bill_period
from quill_invoicing.domain.terms import TermsHistory
from quill_invoicing.domain.usage_history import Observation, UsageHistory
from quill_pricing.period import BillingPeriod

OCTOBER = BillingPeriod(datetime(2026, 10, 1, tzinfo=UTC), datetime(2026, 11, 1, tzinfo=UTC))


def day(number: int) -> datetime:
    return datetime(2026, 10, number, tzinfo=UTC)


def seen(*steps: tuple[int, int]) -> UsageHistory:
    """(day of October, quantity) pairs, in order of revision."""
    return UsageHistory.of(Observation(n, day(at), {"events": q}) for n, (at, q) in enumerate(steps, start=1))


@pytest.mark.parametrize(
    ("limits", "steps", "billed"),
    [
        ([(1, None)], [(5, 40), (20, 100)], 100),  # no limit: the maximum
        ([(1, 60)], [(5, 40), (20, 100)], 60),  # over the limit is not billed
        ([(1, 200), (10, 50)], [(5, 120), (20, 150)], 120),  # lowered later: what was used before stays billed
        ([(1, 200), (10, 50)], [(5, 30), (20, 150)], 50),  # lowered before the usage
        ([(1, 50), (10, 200)], [(5, 120)], 120),  # raised while usage stands above it: the usage is billed
        ([(1, 50), (10, 100)], [(5, 120), (20, 130)], 100),
        ([(1, 50), (10, None)], [(5, 40), (20, 90)], 90),
        ([(1, 0)], [(5, 40)], 0),  # limited to nothing
        ([(1, None)], [], 0),  # never reported
    ],
)
def test_the_billed_quantity_is_the_most_that_the_limit_in_force_allowed(limits, steps, billed, make_terms, make_item):
    history = TermsHistory.of(
        make_terms(revision=n, effective_at=day(at), items=[make_item(quota=quota)])
        for n, (at, quota) in enumerate(limits, start=1)
    )
    (product,) = bill_period(history, seen(*steps), OCTOBER).billed
    assert product.quantity == billed


def test_a_withdrawn_observation_no_longer_counts(make_terms):
    history = TermsHistory.of([make_terms()])
    usage = UsageHistory.of(
        [Observation(1, day(3), {"events": 9_000}), Observation(2, day(4), {"events": 400})], corrected_revision=2
    )
    assert bill_period(history, usage, OCTOBER).billed[0].quantity == 400


def test_subscribing_in_the_middle_bills_the_whole_period(make_terms, make_item):
    free = make_terms(revision=1, has_active_subscription=False, items=[make_item(subscribed=False, quota=1_000_000)])
    paid = make_terms(revision=2, effective_at=day(15))
    statement = bill_period(TermsHistory.of([free, paid]), seen((5, 900_000), (20, 3_000_000)), OCTOBER)
    assert statement.billed[0].quantity == 3_000_000
    only_paid = bill_period(TermsHistory.of([paid]), seen((5, 900_000), (20, 3_000_000)), OCTOBER)
    assert only_paid.billed[0].quantity == 3_000_000


def test_unsubscribing_in_the_middle_bills_what_was_used_until_then(make_terms, make_item):
    paid = make_terms(revision=1)
    free = make_terms(
        revision=2,
        effective_at=day(15),
        has_active_subscription=False,
        items=[make_item(subscribed=False, quota=1_000_000)],
    )
    statement = bill_period(TermsHistory.of([paid, free]), seen((14, 2_000_000), (20, 5_000_000)), OCTOBER)
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


@given(quantities=st.lists(st.integers(0, 40_000_000), max_size=8), data=st.data())
def test_the_invoice_is_the_same_however_usage_came_in(quantities, data, make_terms_once):
    """Chunk independence: only the maximum matters, not how many observations led to it, nor their order."""
    history = TermsHistory.of([make_terms_once])
    rising = sorted(quantities)
    in_steps = seen(*[(min(28, n + 1), quantity) for n, quantity in enumerate(rising)])
    at_once = seen(*([(28, rising[-1])] if rising else []))
    statement = bill_period(history, in_steps, OCTOBER)
    assert statement == bill_period(history, at_once, OCTOBER)
    assert statement.total_minor == sum(line.amount_minor for line in statement.lines)
    shuffled = UsageHistory.of(data.draw(st.permutations(in_steps.observations)))
    assert bill_period(history, shuffled, OCTOBER) == statement


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
