"""Where a customer stands in its billing period: used, owed so far, and where that leads if it goes on."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from quill_pricing.money import Money
from quill_pricing.period import BillingPeriod
from quill_pricing.rating import Rating, amount_minor, rate

from quill_subscriptions.domain.entitlements import QUOTA_MAX, Entitlements, Item
from quill_subscriptions.domain.usage import MeterUsage

CURRENCY = "usd"
MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class ProductStanding:
    """One product in the current billing period. Quantities in units of its meter.

    ``rating`` prices the billable quantity: the period maximum up to the quota (L12). It is owed only if subscribed;
    without a subscription it explains how far the free tiers are filled.
    """

    item: Item
    usage: MeterUsage
    rating: Rating
    projected_usage: int
    projected: Money
    projected_with_limit: Money

    @property
    def owed(self) -> Money:
        return self.rating.total if self.item.subscribed else Money.zero(CURRENCY)

    @property
    def has_exceeded_limit(self) -> bool:
        """Reached counts as exceeded: the next unit would be dropped."""
        quota = self.item.quota
        return self.item.product.is_metered and quota is not None and self.usage.to_date >= max(quota, 1)


@dataclass(frozen=True, slots=True)
class Standing:
    """All products of one customer, and their sums."""

    entitlements: Entitlements
    products: tuple[ProductStanding, ...]

    @property
    def owed(self) -> Money:
        return Money.sum_of((product.owed for product in self.products), CURRENCY)

    @property
    def projected(self) -> Money:
        return Money.sum_of((product.projected for product in self.products), CURRENCY)

    @property
    def projected_with_limit(self) -> Money:
        return Money.sum_of((product.projected_with_limit for product in self.products), CURRENCY)


def stand(entitlements: Entitlements, meters: Mapping[str, MeterUsage], *, now: datetime) -> Standing:
    """Put usage, quota and price together."""
    return Standing(
        entitlements,
        tuple(
            _product(item, meters.get(item.product.usage_key or "", MeterUsage()), entitlements.period, now=now)
            for item in entitlements.items
        ),
    )


def _product(item: Item, usage: MeterUsage, period: BillingPeriod, *, now: datetime) -> ProductStanding:
    if not item.product.is_metered:
        rating = rate(price=item.product.price, quantity=item.quantity or 0)
        owed = rating.total if item.subscribed else Money.zero(CURRENCY)
        return ProductStanding(item, usage, rating, projected_usage=0, projected=owed, projected_with_limit=owed)
    projected_usage = max(project(usage.to_date, period, now=now), usage.maximum)
    return ProductStanding(
        item=item,
        usage=usage,
        rating=rate(price=item.product.price, quantity=_up_to(item.quota, usage.maximum)),
        projected_usage=projected_usage,
        projected=_owed(item, projected_usage),
        projected_with_limit=_owed(item, _up_to(item.quota, projected_usage)),
    )


def project(usage: int, period: BillingPeriod, *, now: datetime) -> int:
    """Units at the end of the period if it goes on as until now: linear in elapsed time, in exact integers.

    In the first moments of a period the factor is enormous; the answer stops at the most a counter can say.
    """
    elapsed = (now - period.start) // MICROSECOND
    if not elapsed:
        return usage
    return min(usage * (period.duration // MICROSECOND) // elapsed, QUOTA_MAX)


def _owed(item: Item, quantity: int) -> Money:
    return Money(amount_minor(item.product.price, quantity) if item.subscribed else 0, CURRENCY)


def _up_to(quota: int | None, quantity: int) -> int:
    return quantity if quota is None else min(quantity, quota)
