"""Where a customer stands in its billing period: used, owed so far, and where that leads if it goes on."""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from quill_pricing.billed_quantity import MeteredUsage, billed_quantity, chargeable_quantity, quantity_against_limit
from quill_pricing.licensed_quantity import licensed_amount
from quill_pricing.money import Money
from quill_pricing.period import BillingPeriod
from quill_pricing.rating import Rating, amount_minor, rate

from quill_subscriptions.domain.entitlements import QUOTA_MAX, Entitlements, Item
from quill_subscriptions.domain.usage import Meter, UsageSnapshot

CURRENCY = "usd"
MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class ProductStanding:
    """One product in the current billing period. Quantities in units of its meter.

    Attributes:
        compared_usage: what the limit is compared with: chargeable usage while the product is paid, all usage
            otherwise (D1).
        finished_usage: the part of ``compared_usage`` that finished days made (L6). Of a day that is still counted and
            that a cut splits nothing is in here.
        rating: prices the billed quantity (L12), or the licensed quantity held now. Without ``is_owed`` it explains how
            far the free tiers are filled.
        is_owed: the product was paid at some time of the period, so the invoice will bill it.
        owed: what the invoice will bill for what held until now; for a licensed product prorated.
        projected_usage: ``compared_usage`` at the end of the period.
    """

    item: Item
    compared_usage: int
    finished_usage: int
    rating: Rating
    is_owed: bool
    owed: Money
    projected_usage: int
    projected: Money
    projected_with_limit: Money

    @property
    def has_exceeded_limit(self) -> bool:
        """Reached counts as exceeded, also a quota of 0: the next unit would be dropped."""
        quota = self.item.quota
        return self.item.product.is_metered and quota is not None and self.compared_usage >= quota


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


def stand(entitlements: Entitlements, usage: UsageSnapshot | None, *, now: datetime) -> Standing:
    """Put usage, quota and price together; None for an organization of which no usage was heard."""
    known = UsageSnapshot("", revision=0) if usage is None else usage
    period = entitlements.period
    return Standing(
        entitlements,
        tuple(_product(item, known, period, now) for item in entitlements.items),
    )


def _product(item: Item, usage: UsageSnapshot, period: BillingPeriod, now: datetime) -> ProductStanding:
    if item.product.usage_key is None:
        return _licensed(item, period, now)
    metered = _metered(item, item.product.usage_key, usage, period, now)
    # A price that became flat, or was flat, is prorated; usage is billed if the price in force at the end says so.
    owed, projected = _licensed_amounts(item, period, now)
    if not (item.billed_product or item.product).is_billed_by_usage:
        return replace(metered, owed=owed, projected=projected, projected_with_limit=projected)
    return replace(
        metered,
        owed=metered.owed + owed,
        projected=metered.projected + projected,
        projected_with_limit=metered.projected_with_limit + projected,
    )


def _licensed(item: Item, period: BillingPeriod, now: datetime) -> ProductStanding:
    owed, projected = _licensed_amounts(item, period, now)
    return ProductStanding(
        item=item,
        compared_usage=0,
        finished_usage=0,
        rating=rate(price=item.product.price, quantity=item.quantity or 0),
        is_owed=item.billed_product is not None,
        owed=owed,
        projected_usage=0,
        projected=projected,
        projected_with_limit=projected,
    )


def _licensed_amounts(item: Item, period: BillingPeriod, now: datetime) -> tuple[Money, Money]:
    """What is owed as of now, and at the end of the period: a trial that ends in it begins to cost something then."""
    until_now = [step for step in item.held if step.at <= now]
    return (
        licensed_amount(until_now, period, currency=CURRENCY),
        licensed_amount(item.held, period, currency=CURRENCY),
    )


def _metered(
    item: Item, usage_key: str, snapshot: UsageSnapshot, period: BillingPeriod, now: datetime
) -> ProductStanding:
    meter = Meter(usage_key, item.aggregation, item.carried)
    finished = snapshot.metered(meter, period.start, lambda each: each.complete)
    to_date = snapshot.metered(meter, period.start, lambda each: each.to_date)
    # Bills depend on the greatest number that was ever published (L3), limits on what is counted now.
    greatest = snapshot.metered(meter, period.start, lambda each: each.maximum)
    terms = item.terms
    compared = quantity_against_limit(to_date, terms, period, now=now)
    price = (item.billed_product or item.product).price
    billed = billed_quantity(greatest, terms, period)
    shown = billed if item.billed_product is not None else _up_to(item.quota, compared)
    to_come = _to_come(to_date, period, since=_paid_from(item, now), now=now)
    chargeable = min(chargeable_quantity(to_date, terms, period) + to_come, QUOTA_MAX)
    projected = max(billed, chargeable)
    with_limit = max(billed, _up_to(item.quota, chargeable))
    rating = rate(price=price, quantity=shown)
    will_be_owed = item.billed_product is not None or _is_paid_before(item, period.end)
    return ProductStanding(
        item=item,
        compared_usage=compared,
        finished_usage=quantity_against_limit(finished, terms, period, now=now),
        rating=rating,
        is_owed=item.billed_product is not None,
        owed=rating.total if item.billed_product is not None else Money.zero(CURRENCY),
        projected_usage=min(compared + _to_come(to_date, period, since=now, now=now), QUOTA_MAX),
        projected=Money(amount_minor(price, projected) if will_be_owed else 0, CURRENCY),
        projected_with_limit=Money(amount_minor(price, with_limit) if will_be_owed else 0, CURRENCY),
    )


def _paid_from(item: Item, now: datetime) -> datetime | None:
    return now if item.paid else item.paid_from


def _is_paid_before(item: Item, end: datetime) -> bool:
    return item.paid or (item.paid_from is not None and item.paid_from < end)


def _to_come(usage: MeteredUsage, period: BillingPeriod, *, since: datetime | None, now: datetime) -> int:
    """Units from ``since`` to the end of the period at the pace of the period so far; a gauge keeps its value."""
    if usage.is_last_value or since is None or since >= period.end:
        return 0
    whole = project(usage.total, period, now=now) - usage.total
    left = period.end - now
    return whole * ((period.end - since) // MICROSECOND) // (left // MICROSECOND)


def project(usage: int, period: BillingPeriod, *, now: datetime) -> int:
    """Units at the end of the period if it goes on as until now: linear in elapsed time, in exact integers.

    In the first moments of a period the factor is enormous; the answer stops at the most a counter can say.
    """
    elapsed = (now - period.start) // MICROSECOND
    if not elapsed:
        return usage
    return min(usage * (period.duration // MICROSECOND) // elapsed, QUOTA_MAX)


def _up_to(quota: int | None, quantity: int) -> int:
    return quantity if quota is None else min(quantity, quota)
