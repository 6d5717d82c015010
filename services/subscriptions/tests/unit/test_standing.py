"""Projections and entitlements in exact integers."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from quill_contracts.catalog_file import load_catalog
from quill_pricing.period import BillingPeriod
from quill_pricing.rating import amount_minor
from quill_subscriptions.domain.billing_limits import BillingLimits
from quill_subscriptions.domain.catalog import Catalog
from quill_subscriptions.domain.customer import Customer, SubscribedProduct, Subscription
from quill_subscriptions.domain.entitlements import changes_by_itself_at, entitle
from quill_subscriptions.domain.standing import project, stand
from quill_subscriptions.domain.usage import MeterUsage, PeriodUsage, UsageCut, UsageSnapshot
from quill_subscriptions.wire.catalog import catalog_from_document

JANUARY_31 = datetime(2026, 1, 31, tzinfo=UTC)
MARCH = BillingPeriod(datetime(2026, 3, 1, tzinfo=UTC), datetime(2026, 4, 1, tzinfo=UTC))
EXAMPLE = catalog_from_document(load_catalog())
CUSTOMER = Customer("org-1", "", "c-1", "self-1", "scale", JANUARY_31, JANUARY_31, "1 month")


@pytest.mark.parametrize(
    ("usage", "elapsed", "expected"),
    [
        (0, timedelta(days=3), 0),
        (7, timedelta(0), 7),
        (10, timedelta(days=31) / 2, 20),
        (10**15 - 1, timedelta(microseconds=1), 10**15 - 1),
        (1, timedelta(days=30), 1),
    ],
)
def test_a_projection_is_linear_and_exact(usage: int, elapsed: timedelta, expected: int) -> None:
    assert project(usage, MARCH, now=MARCH.start + elapsed) == expected


@pytest.mark.parametrize(
    ("now", "start", "end"),
    [
        ((2026, 2, 1), (2026, 1, 31), (2026, 2, 28)),
        ((2026, 2, 28), (2026, 2, 28), (2026, 3, 31)),
        ((2026, 3, 31), (2026, 3, 31), (2026, 4, 30)),
    ],
)
def test_periods_do_not_drift_at_the_end_of_a_month(
    catalog: Catalog, now: tuple[int, int, int], start: tuple[int, int, int], end: tuple[int, int, int]
) -> None:
    """(L21)"""
    period = entitle(CUSTOMER, catalog, now=datetime(*now, tzinfo=UTC)).period
    assert (period.start, period.end) == (datetime(*start, tzinfo=UTC), datetime(*end, tzinfo=UTC))


@pytest.mark.parametrize(("trial_days", "expected_days"), [(None, 28), (-1, 28), (0, 28), (3, 3), (28, 28), (60, 28)])
def test_the_next_change_by_time_is_the_period_or_an_earlier_trial(trial_days: int | None, expected_days: int) -> None:
    customer = replace(
        CUSTOMER, free_trial_until=None if trial_days is None else JANUARY_31 + timedelta(days=trial_days)
    )
    assert changes_by_itself_at(customer, now=JANUARY_31) == JANUARY_31 + timedelta(days=expected_days)


@given(limit=st.integers(0, 2_000), used=st.integers(0, 10**9))
def test_what_is_owed_never_exceeds_the_billing_limit(limit: int, used: int) -> None:

    subscription = Subscription("s", (SubscribedProduct("product_analytics", 1),), "quill-rates", JANUARY_31)
    customer = replace(CUSTOMER, subscription=subscription, billing_limits=BillingLimits({"product_analytics": limit}))
    now = JANUARY_31 + timedelta(days=2)
    entitlements = entitle(customer, EXAMPLE, now=now)
    period = PeriodUsage(JANUARY_31, {"events": MeterUsage(used, 0, used)}, (UsageCut(now, {"events": 0}),))
    standing = stand(entitlements, UsageSnapshot("org-1", 1, (period,)), now=now)
    assert standing.owed.amount_minor <= limit * 100
    assert standing.projected_with_limit.amount_minor <= limit * 100
    analytics = standing.products[0]
    assert analytics.item.quota is not None
    assert amount_minor(analytics.item.product.price, analytics.item.quota + 1) > limit * 100
