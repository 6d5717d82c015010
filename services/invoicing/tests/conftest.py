"""Builders with domain meaning: terms, usage, snapshots. A test names only what it is about."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import pytest
from quill_contracts.subscriptions import CustomerSnapshot
from quill_contracts.usage import PeriodUsageSnapshot
from quill_invoicing.domain.period_usage import PeriodUsage
from quill_invoicing.domain.terms import CustomerTerms
from quill_invoicing.wire import from_wire_customer
from quill_pricing.period import BillingPeriod

OCTOBER = BillingPeriod(datetime(2026, 10, 1, tzinfo=UTC), datetime(2026, 11, 1, tzinfo=UTC))

EVENTS_PRICE = {
    "model": "graduated",
    "currency": "usd",
    "tiers": [
        {"up_to": 1_000_000, "unit_amount": "0"},
        {"up_to": 2_000_000, "unit_amount": "0.00005"},
        {"up_to": 15_000_000, "unit_amount": "0.0000343"},
        {"unit_amount": "0.0000295"},
    ],
}


def item(**changed: Any) -> dict[str, Any]:
    return {
        "product_key": "product_analytics",
        "usage_key": "events",
        "counter": "event_count_in_period",
        "price_id": "product_analytics_standard",
        "price": EVENTS_PRICE,
        "subscribed": True,
        "allowance": 1_000_000,
        "quota": None,
        **changed,
    }


def customer(**changed: Any) -> CustomerSnapshot:
    return CustomerSnapshot.model_validate(
        {
            "organization_id": "org-1",
            "organization_name": "Hedgehogs",
            "email": "ada@b.example",
            "customer_id": "cust-1",
            "revision": 1,
            "effective_at": OCTOBER.start,
            "license_id": "lic-1",
            "license_type": "cloud",
            "schedule": {"anchor": OCTOBER.start, "interval": "month"},
            "period": {"start": OCTOBER.start, "end": OCTOBER.end},
            "has_active_subscription": True,
            "subscription_id": "sub-1",
            "subscribed_at": OCTOBER.start,
            "items": [item()],
            **changed,
        }
    )


def usage(
    revision: int,
    quantity: int,
    *,
    organization_id: str = "org-1",
    as_of: datetime = datetime(2026, 10, 20, tzinfo=UTC),
    period: BillingPeriod = OCTOBER,
    meter: str = "events",
) -> PeriodUsageSnapshot:
    return PeriodUsageSnapshot.model_validate(
        {
            "organization_id": organization_id,
            "revision": revision,
            "periods": [
                {
                    "period_start": period.start,
                    "period_end": period.end,
                    "as_of": as_of,
                    "meters": {meter: {"complete": quantity, "partial": 0, "maximum": quantity}},
                }
            ],
        }
    )


def used(
    revision: int,
    quantity: int,
    *,
    period: BillingPeriod = OCTOBER,
    customer_revision: int = 0,
    meter: str = "events",
    cuts: Mapping[datetime, int] | None = None,
) -> PeriodUsage:
    """A quantity in the period, and before each cut."""
    before = {at: {meter: used} for at, used in (cuts or {}).items()}
    return PeriodUsage(period, revision, customer_revision, {meter: quantity}, before)


@pytest.fixture
def october() -> BillingPeriod:
    return OCTOBER


@pytest.fixture
def november() -> BillingPeriod:
    return BillingPeriod(OCTOBER.end, datetime(2026, 12, 1, tzinfo=UTC))


class Make:
    """The builders together, for tests that need several."""

    item = staticmethod(item)
    customer = staticmethod(customer)
    usage = staticmethod(usage)
    used = staticmethod(used)

    @staticmethod
    def terms(**changed: Any) -> CustomerTerms:
        return from_wire_customer(customer(**changed))


@pytest.fixture
def make() -> Make:
    return Make()


@pytest.fixture
def make_item() -> Callable[..., dict[str, Any]]:
    return item


@pytest.fixture
def make_customer() -> Callable[..., CustomerSnapshot]:
    return customer


@pytest.fixture
def make_terms() -> Callable[..., CustomerTerms]:
    return lambda **changed: from_wire_customer(customer(**changed))
