"""Seats and flat fees on the invoice: what was held when, however invoicing heard of it (K5, D18)."""

from datetime import UTC, datetime

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from quill_invoicing.domain.invoice_lines import MixedCurrencies, bill_period
from quill_invoicing.domain.period_usage import NOTHING_KNOWN
from quill_invoicing.domain.terms import TermsHistory
from quill_pricing.period import BillingPeriod

OCTOBER = BillingPeriod(datetime(2026, 10, 1, tzinfo=UTC), datetime(2026, 11, 1, tzinfo=UTC))
SEAT = {"model": "per_unit", "currency": "usd", "unit_amount": "20.00"}
PLAN = {"model": "flat", "currency": "usd", "amount": "450.00"}
BEFORE = datetime(2026, 8, 17, tzinfo=UTC)


def october(day, hour=0):
    return datetime(2026, 10, day, hour, tzinfo=UTC)


@pytest.fixture
def seats(make_item):
    def seats(quantity, price=SEAT, **changed):
        licensed = {"usage_key": None, "counter": None, "allowance": 0, "price": price, "quantity": quantity}
        return make_item(**{"product_key": "seats", **licensed, **changed})

    return seats


@pytest.fixture
def told(make_terms):
    """Versions of the terms: (effective at, items, what else differs)."""

    def told(*versions):
        return TermsHistory.of(
            make_terms(revision=number, effective_at=at, items=items, **changed)
            for number, (at, items, changed) in enumerate(versions, start=1)
        )

    return told


def shown(history, period=OCTOBER):
    return [(line.description, line.amount_minor) for line in bill_period(history, NOTHING_KNOWN, period).lines]


def test_seats_added_on_the_last_day_are_paid_for_one_day(told, seats):
    """K5: 60.00 + 17.42 = 77.42, not 600.00."""
    history = told((BEFORE, [seats(3)], {}), (october(31), [seats(30)], {}))
    statement = bill_period(history, NOTHING_KNOWN, OCTOBER)
    assert shown(history) == [("seats", 6_000), ("seats: 3 to 30 from 31 October", 1_742)]
    assert statement.total_minor == 7_742
    full, change = statement.lines
    assert (full.kind, full.quantity, str(full.unit_amount), full.service_period) == ("licensed", 3, "20", OCTOBER)
    assert (change.kind, change.quantity, str(change.unit_amount)) == ("licensed", 1, "17.42")
    assert change.service_period == BillingPeriod(october(31), OCTOBER.end)


def test_a_flat_fee_is_paid_from_the_subscription_on(told, seats):
    """K5: 450.00 x 15.5/31."""
    plan = seats(None, PLAN, product_key="platform")
    free = {"has_active_subscription": False}
    history = told((BEFORE, [{**plan, "subscribed": False}], free), (october(16, 12), [plan], {}))
    assert shown(history) == [("platform: 0 to 1 from 16 October 12:00 UTC", 22_500)]


def test_a_flat_fee_is_given_back_from_the_cancellation_on(told, seats):
    plan = seats(None, PLAN, product_key="platform", usage_key="events", counter="c")
    history = told(
        (BEFORE, [plan], {}), (october(16, 12), [{**plan, "subscribed": False}], {"has_active_subscription": False})
    )
    assert shown(history) == [("platform", 45_000), ("platform: 1 to 0 from 16 October 12:00 UTC", -22_500)]


def test_nothing_is_paid_until_a_trial_ends(told, seats):
    """K5: no message needs to come at the end of the trial."""
    trial = {"free_trial_until": october(16, 12)}
    history = told((BEFORE, [seats(3)], trial))
    assert shown(history) == [("seats: 0 to 3 from 16 October 12:00 UTC", 3_000)]
    assert shown(told((BEFORE, [seats(3)], {"free_trial_until": OCTOBER.end}))) == []


def test_a_trial_that_was_removed_does_not_end_again(told, seats):
    history = told(
        (BEFORE, [seats(3)], {"free_trial_until": october(16, 12)}),
        (october(11), [seats(3)], {}),
        (october(12), [seats(3, subscribed=False)], {"has_active_subscription": False}),
    )
    # 60.00 x 21/31 and 60.00 x 20/31.
    assert [amount for _, amount in shown(history)] == [4_065, -3_871]


def test_a_trial_given_while_seats_are_paid_stops_the_payment(told, seats):
    history = told(
        (BEFORE, [seats(3)], {}),
        (october(11), [seats(3)], {"free_trial_until": october(21)}),
    )
    assert [amount for _, amount in shown(history)] == [6_000, -4_065, 2_129]


def test_another_price_in_the_middle_is_billed_for_its_time(told, seats):
    """Cancelled on the 11th and subscribed again on the 21st at $30 a seat."""
    dearer = {**SEAT, "unit_amount": "30.00"}
    history = told(
        (BEFORE, [seats(3)], {}),
        (october(11), [seats(3, subscribed=False)], {"has_active_subscription": False}),
        (october(21), [seats(2, dearer)], {}),
    )
    assert [amount for _, amount in shown(history)] == [6_000, -4_065, 2_129]


def test_a_price_without_proration_bills_the_last_quantity_in_full(told, seats):
    whole = {**SEAT, "prorated": False}
    history = told((BEFORE, [seats(3, whole)], {}), (october(31), [seats(30, whole)], {}))
    assert shown(history) == [("seats", 60_000)]


def test_changes_told_in_a_snapshot_count_where_the_versions_never_came(told, seats):
    """A topic that was compacted keeps the newest snapshot, which tells the changes of the last periods."""
    changes = [
        {"at": datetime(2026, 7, 1, tzinfo=UTC), "paid": True, "quantity": 3},
        {"at": october(31), "paid": True, "quantity": 30},
    ]
    newest = told((october(31, 18), [seats(30, changes=changes)], {}))
    assert [amount for _, amount in shown(newest)] == [6_000, 1_742]
    september = BillingPeriod(datetime(2026, 9, 1, tzinfo=UTC), OCTOBER.start)
    assert shown(newest, september) == [("seats", 6_000)]


def test_a_cancellation_that_was_told_only_as_a_change_is_billed(told, seats):
    changes = [
        {"at": BEFORE, "paid": True, "quantity": 3},
        {"at": october(16, 12), "paid": False, "quantity": None},
    ]
    free = {"has_active_subscription": False}
    newest = told((october(20), [seats(None, subscribed=False, changes=changes)], free))
    statement = bill_period(newest, NOTHING_KNOWN, OCTOBER)
    assert (statement.is_billed, statement.total_minor) == (True, 3_000)


def test_a_product_that_becomes_licensed_is_billed_from_then_on(told, seats, make_item):
    metered = make_item(product_key="seats", price=SEAT, allowance=0)
    history = told((BEFORE, [metered], {}), (october(16, 12), [seats(3)], {}))
    assert [amount for _, amount in shown(history)] == [3_000]


def test_products_stand_in_the_order_of_their_keys(told, seats):
    items = [seats(1), seats(None, PLAN, product_key="platform"), seats(2, product_key="chairs")]
    assert [name for name, _ in shown(told((BEFORE, items, {})))] == ["chairs", "platform", "seats"]


def test_seats_that_change_their_currency_cannot_be_billed(told, seats):
    euros = {**SEAT, "currency": "eur"}
    history = told((BEFORE, [seats(3)], {}), (october(11), [seats(3, euros)], {}))
    with pytest.raises(MixedCurrencies):
        bill_period(history, NOTHING_KNOWN, OCTOBER)


def test_the_end_of_a_trial_is_kept_as_a_version_of_the_terms(make_terms, seats):
    before = make_terms(revision=1, items=[seats(3)], free_trial_until=october(16))
    ended = make_terms(revision=2, effective_at=october(16), items=[seats(3)], free_trial_until=october(16))
    assert not ended.bills_like(before)
    assert ended.bills_like(
        make_terms(revision=3, effective_at=october(17), items=[seats(3)], free_trial_until=october(16))
    )


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    days=st.lists(st.tuples(st.integers(1, 31), st.integers(0, 40)), min_size=1, max_size=6, unique_by=lambda d: d[0]),
    heard=st.data(),
)
def test_the_bill_is_the_same_whether_versions_or_changes_were_heard(days, heard, told, seats):
    """Any versions may be missing, as long as the newest tells all changes."""
    days = [(BEFORE, 5), *((october(day), quantity) for day, quantity in sorted(days))]
    changes = [{"at": at, "paid": quantity > 0, "quantity": quantity or None} for at, quantity in days]

    def version(number):
        at, quantity = days[number]
        is_paid = {"has_active_subscription": quantity > 0}
        known = changes[: number + 1]
        return at, [seats(quantity or None, subscribed=quantity > 0, changes=known)], is_paid

    every = told(*(version(number) for number in range(len(days))))
    kept = heard.draw(st.sets(st.integers(0, len(days) - 1)))
    some = told(*(version(number) for number in sorted({*kept, len(days) - 1})))
    assert shown(some) == shown(every)
