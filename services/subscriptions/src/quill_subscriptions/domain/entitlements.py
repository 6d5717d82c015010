"""What a customer may use and up to which quota, derived from its state and the catalog; never edited."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final

from quill_pricing.billed_quantity import BillingTerms
from quill_pricing.licensed_quantity import LicensedStep
from quill_pricing.money import Money
from quill_pricing.period import BillingPeriod, BillingSchedule, Interval
from quill_pricing.quota import quota_for

from quill_subscriptions.domain.billing_limits import BillingLimits
from quill_subscriptions.domain.catalog import Catalog, Feature, Product
from quill_subscriptions.domain.customer import Customer
from quill_subscriptions.domain.item_changes import ItemChange, ItemChanges, cuts_of, held_in, kept_since, with_change

CENTS_PER_DOLLAR = 100
QUOTA_MAX = 10**15 - 1
"""No counter of a report goes higher, so a quota above it never stops anything: it is unlimited."""
EARLIER_PERIODS: Final = 3
"""Billing periods before the open one whose usage is still told, so changes are told as far back."""


@dataclass(frozen=True, slots=True)
class Item:
    """One product as it applies to one customer.

    Attributes:
        paid: subscribed, and no trial runs.
        paid_from: when a running trial ends and the subscribed product is paid; None without either.
        quota: units of the meter, None is unlimited.
        aggregation: how the meter's usage comes about, as the catalog in force says; ``sum`` for a report's counter.
        carried: a ``last`` value goes on into a billing period in which no event came.
        changes: what held over the last billing periods, oldest first.
        held: how much is paid for apart from usage (seats, a flat fee) over the last billing periods, and from the end
            of a running trial on.
        billed_product: the revision whose price the open billing period is billed at, also after a cancellation in it;
            None when the product was not paid at any time of the period.
    """

    product: Product
    subscribed: bool
    paid: bool
    quantity: int | None
    billing_limit_usd: int | None
    quota: int | None
    paid_from: datetime | None = None
    aggregation: str = "sum"
    carried: bool = False
    changes: tuple[ItemChange, ...] = ()
    held: tuple[LicensedStep, ...] = ()
    billed_product: Product | None = None

    @property
    def terms(self) -> list[BillingTerms]:
        """What held over the last billing periods, for billing the meter (L12)."""
        return [change.terms for change in self.changes]


@dataclass(frozen=True, slots=True)
class Entitlements:
    """Everything that follows for one customer at one instant."""

    period: BillingPeriod
    items: tuple[Item, ...]
    features: tuple[Feature, ...]
    billing_limits: BillingLimits
    recent_periods: tuple[BillingPeriod, ...]
    """The billing periods that the items' changes cover, the open one last."""

    @property
    def changes(self) -> ItemChanges:
        """The changes of every item, by product key."""
        return {item.product.key: item.changes for item in self.items}

    @property
    def metered_keys(self) -> frozenset[str]:
        """The products with a meter."""
        return frozenset(item.product.key for item in self.items if item.product.is_metered)

    @property
    def cuts(self) -> tuple[datetime, ...]:
        """The instants that bills of the recent periods depend on; rising (L12)."""
        return cuts_of((item.changes for item in self.items if item.product.is_metered), self.recent_periods)


@dataclass(frozen=True, slots=True)
class Published:
    """What the newest published snapshot of a customer said of its items, and when time alone first changes that."""

    changes: ItemChanges = field(default_factory=dict)
    refresh_at: datetime | None = None


def entitle(
    customer: Customer,
    catalog: Catalog,
    *,
    now: datetime,
    published: Published | None = None,
    effective_at: datetime | None = None,
) -> Entitlements:
    """The entitlements of ``customer`` at ``now``, with the changes of its items since what was ``published``.

    A subscribed product keeps the revision it was bought at; all others are as the catalog in force says. What time
    changed since the last snapshot takes the instant of its boundary, however late this is called (L21).

    Args:
        customer: as its events made it.
        catalog: in force.
        now: the instant asked about.
        published: the newest snapshot; None for a customer that has none.
        effective_at: when anything else that changed came into force; None is ``now``.

    Raises:
        LookupError: the customer holds a product revision that the catalog never stored.
    """
    known = Published() if published is None else published
    changes: dict[str, tuple[ItemChange, ...]] = dict(known.changes)
    for instant in _boundaries(customer, published=known, now=now):
        for item in _items(customer, catalog, now=instant):
            changes[item.product.key] = _changed(changes, item, at=instant)
    periods = _recent_periods(customer, now=now)
    items: list[Item] = []
    for item in _items(customer, catalog, now=now):
        told = kept_since(_changed(changes, item, at=effective_at or now), periods[0].start)
        billed = _billed_product(item.product.key, told, catalog, periods[-1])
        items.append(replace(item, changes=told, held=_held(item, told, catalog), billed_product=billed))
    return Entitlements(
        period=periods[-1],
        items=tuple(items),
        features=_features(items, in_trial=_is_in_trial(customer, now)),
        billing_limits=customer.billing_limits.at(now),
        recent_periods=periods,
    )


def _items(customer: Customer, catalog: Catalog, *, now: datetime) -> list[Item]:
    """What holds at ``now`` by the catalog in force, without the changes that led there."""
    limits = customer.billing_limits.at(now)
    held = {item.product_key: item for item in customer.subscription.products} if customer.subscription else {}
    in_trial = _is_in_trial(customer, now)
    items: list[Item] = []
    for offered in catalog.in_force:
        bought = held.get(offered.key)
        product = offered if bought is None else catalog.revision(offered.key, bought.product_revision)
        limit = limits.in_force.get(product.key) if product.is_metered else None
        # Usage is counted by the meter of the catalog in force, also for a customer that holds an older price.
        meter = offered.event_meter if product.is_metered else None
        items.append(
            Item(
                product=product,
                subscribed=bought is not None,
                paid=bought is not None and not in_trial,
                quantity=bought.quantity if bought is not None and not product.is_metered else None,
                billing_limit_usd=limit,
                quota=_quota(product, subscribed=bought is not None, limit_usd=limit, in_trial=in_trial),
                paid_from=customer.free_trial_until if bought is not None and in_trial else None,
                aggregation="sum" if meter is None else meter.aggregation,
                carried=meter is not None and meter.carried,
            )
        )
    return items


def _changed(changes: ItemChanges, item: Item, *, at: datetime) -> tuple[ItemChange, ...]:
    key = item.product.key
    revision = item.product.revision if item.subscribed else None
    return with_change(changes.get(key, ()), ItemChange(at, item.paid, item.quota, item.quantity, revision))


def _held(item: Item, changes: Sequence[ItemChange], catalog: Catalog) -> tuple[LicensedStep, ...]:
    """What is paid for apart from usage, and from the end of a running trial on; at the revision of each span."""
    key = item.product.key
    steps = [
        _step(change.at, item.product if revision is None else catalog.revision(key, revision), change)
        for change in changes
        for revision in [change.product_revision]
    ]
    if item.paid_from is not None and changes:
        steps.append(_step(item.paid_from, item.product, replace(changes[-1], paid=True)))
    return tuple(steps)


def _step(at: datetime, product: Product, change: ItemChange) -> LicensedStep:
    """A flat price has no quantity of its own: it is held once. Of what is billed by usage nothing is held."""
    is_held = change.paid and not product.is_billed_by_usage
    return LicensedStep(at, (1 if change.quantity is None else change.quantity) if is_held else 0, product.price)


def _billed_product(key: str, changes: Sequence[ItemChange], catalog: Catalog, period: BillingPeriod) -> Product | None:
    """The newest revision that was subscribed in the period, if it was paid at any time of it (V14)."""
    held = held_in(changes, period)
    revisions = [change.product_revision for change in held if change.product_revision is not None]
    return catalog.revision(key, revisions[-1]) if revisions and any(change.paid for change in held) else None


def _boundaries(customer: Customer, *, published: Published, now: datetime) -> list[datetime]:
    """The instants since the newest snapshot at which time alone changed an item: a trial's end, limits that ended."""
    due = published.refresh_at
    ends = (customer.free_trial_until, customer.billing_limits.next_period_starts)
    return sorted({end for end in ends if due is not None and end is not None and due <= end <= now})


def _recent_periods(customer: Customer, *, now: datetime) -> tuple[BillingPeriod, ...]:
    schedule = _schedule(customer)
    number = schedule.number_of(now)
    return tuple(schedule.period(each) for each in range(number - EARLIER_PERIODS, number + 1))


def _is_in_trial(customer: Customer, now: datetime) -> bool:
    return customer.free_trial_until is not None and now < customer.free_trial_until


def _schedule(customer: Customer) -> BillingSchedule:
    return BillingSchedule(anchor=customer.anchor, interval=Interval.parse(customer.interval))


def period_at(customer: Customer, now: datetime) -> BillingPeriod:
    """The customer's billing period that holds ``now`` (L21)."""
    return _schedule(customer).period_containing(now)


def changes_by_itself_at(customer: Customer, *, now: datetime) -> datetime:
    """When time alone changes the entitlements next: the end of the billing period, or of a trial before it."""
    period_end = period_at(customer, now).end
    trial_end = customer.free_trial_until
    return trial_end if trial_end is not None and now < trial_end < period_end else period_end


def _quota(product: Product, *, subscribed: bool, limit_usd: int | None, in_trial: bool) -> int | None:
    if not product.is_metered:
        return None
    limit = None if limit_usd is None else Money(limit_usd * CENTS_PER_DOLLAR)
    quota = quota_for(
        price=product.price,
        allowance=product.allowance,
        subscribed=subscribed,
        billing_limit=limit,
        in_trial=in_trial and product.in_trial,
    )
    return None if quota is None or quota > QUOTA_MAX else quota


def _features(items: Sequence[Item], *, in_trial: bool) -> tuple[Feature, ...]:
    """Features of what is subscribed, in a free trial those of every product that it includes, and the free plan's.

    Each key once: what is paid or tried comes before what is free (handbook V9, V12).
    """
    on = [item.product.features for item in items if item.subscribed or (in_trial and item.product.in_trial)]
    free = [item.product.free_features for item in items]
    features: dict[str, Feature] = {}
    for feature in (each for of_product in (*on, *free) for each in of_product):
        features.setdefault(feature.key, feature)
    return tuple(features.values())
