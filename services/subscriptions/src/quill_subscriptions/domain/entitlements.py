"""What a customer may use and up to which quota, derived from its state and the catalog; never edited."""

from dataclasses import dataclass
from datetime import datetime

from quill_pricing.money import Money
from quill_pricing.period import BillingPeriod, BillingSchedule, Interval
from quill_pricing.quota import quota_for

from quill_subscriptions.domain.billing_limits import BillingLimits
from quill_subscriptions.domain.catalog import Catalog, Feature, Product
from quill_subscriptions.domain.customer import Customer

CENTS_PER_DOLLAR = 100
QUOTA_MAX = 10**15 - 1
"""No counter of a report goes higher, so a quota above it never stops anything: it is unlimited."""


@dataclass(frozen=True, slots=True)
class Item:
    """One product as it applies to one customer. ``quota`` in units of the meter, ``None`` is unlimited."""

    product: Product
    subscribed: bool
    quantity: int | None
    billing_limit_usd: int | None
    quota: int | None


@dataclass(frozen=True, slots=True)
class Entitlements:
    """Everything that follows for one customer at one instant."""

    period: BillingPeriod
    items: tuple[Item, ...]
    features: tuple[Feature, ...]
    billing_limits: BillingLimits


def entitle(customer: Customer, catalog: Catalog, *, now: datetime) -> Entitlements:
    """The entitlements of ``customer`` at ``now``.

    A subscribed product keeps the revision it was bought at; all others are as the catalog in force says.

    Raises:
        LookupError: the customer holds a product revision that the catalog never stored.
    """
    limits = customer.billing_limits.at(now)
    held = {item.product_key: item for item in customer.subscription.products} if customer.subscription else {}
    items: list[Item] = []
    for offered in catalog.in_force:
        bought = held.get(offered.key)
        product = offered if bought is None else catalog.revision(offered.key, bought.product_revision)
        limit = limits.in_force.get(product.key) if product.is_metered else None
        items.append(
            Item(
                product=product,
                subscribed=bought is not None,
                quantity=bought.quantity if bought is not None and not product.is_metered else None,
                billing_limit_usd=limit,
                quota=_quota(product, subscribed=bought is not None, limit_usd=limit),
            )
        )
    return Entitlements(
        period=period_at(customer, now),
        items=tuple(items),
        features=_features(items, in_trial=customer.free_trial_until is not None and now < customer.free_trial_until),
        billing_limits=limits,
    )


def period_at(customer: Customer, now: datetime) -> BillingPeriod:
    """The customer's billing period that holds ``now`` (L21)."""
    return BillingSchedule(anchor=customer.anchor, interval=Interval.parse(customer.interval)).period_containing(now)


def changes_by_itself_at(customer: Customer, *, now: datetime) -> datetime:
    """When time alone changes the entitlements next: the end of the billing period, or of a trial before it."""
    period_end = period_at(customer, now).end
    trial_end = customer.free_trial_until
    return trial_end if trial_end is not None and now < trial_end < period_end else period_end


def _quota(product: Product, *, subscribed: bool, limit_usd: int | None) -> int | None:
    if not product.is_metered:
        return None
    limit = None if limit_usd is None else Money(limit_usd * CENTS_PER_DOLLAR)
    quota = quota_for(price=product.price, allowance=product.allowance, subscribed=subscribed, billing_limit=limit)
    return None if quota is None or quota > QUOTA_MAX else quota


def _features(items: list[Item], *, in_trial: bool) -> tuple[Feature, ...]:
    """Features of what is subscribed; during a free trial those of everything (handbook V12). Each key once."""
    features: dict[str, Feature] = {}
    for item in items:
        if item.subscribed or in_trial:
            for feature in item.product.features:
                features.setdefault(feature.key, feature)
    return tuple(features.values())
