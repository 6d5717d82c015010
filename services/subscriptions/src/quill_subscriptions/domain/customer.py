"""A customer: the party billed, one per organization, as the sum of its events."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Literal, assert_never

from quill_subscriptions.domain.billing_limits import BillingLimits

CollectionMode = Literal["stripe-rates", "quill-rates"]
TrustScore = Literal[0, 3, 7, 10, 15]


@dataclass(frozen=True, slots=True)
class Project:
    """A project of the organization and the token its events carry."""

    team_id: str
    api_token: str


@dataclass(frozen=True, slots=True)
class SubscribedProduct:
    """One subscription item: a product at the catalog revision it was bought at, so its price stays the agreed one."""

    product_key: str
    product_revision: int
    quantity: int = 1
    """Licensed quantity of a product without a meter (seats); 1 otherwise."""


@dataclass(frozen=True, slots=True)
class Subscription:
    """What a customer pays for, since when, and who makes the invoice."""

    subscription_id: str
    products: tuple[SubscribedProduct, ...]
    collection_mode: CollectionMode
    started_at: datetime

    def quantity_of(self, product_key: str) -> int | None:
        """How much is held of a product; None when the subscription does not name it."""
        return next((held.quantity for held in self.products if held.product_key == product_key), None)

    def with_quantities(self, quantities: Mapping[str, int]) -> "Subscription":
        """The subscription with other quantities of some of its products."""
        products = (replace(held, quantity=quantities.get(held.product_key, held.quantity)) for held in self.products)
        return replace(self, products=tuple(products))


@dataclass(frozen=True, slots=True)
class Customer:
    """The state that the events add up to. Billing periods are anchor + n x interval (L21)."""

    organization_id: str
    organization_name: str
    customer_id: str
    license_id: str
    license_type: str
    registered_at: datetime
    anchor: datetime
    interval: str
    subscription: Subscription | None = None
    billing_limits: BillingLimits = field(default_factory=BillingLimits)
    trust_scores: Mapping[str, TrustScore] = field(default_factory=dict)
    """By product key."""
    never_drop_data: bool = False
    projects: tuple[Project, ...] = ()
    free_trial_until: datetime | None = None
    further_license_ids: tuple[str, ...] = ()
    """More instances billed on this account, in order (O3)."""


@dataclass(frozen=True, slots=True)
class CustomerRegistered:
    """A license named an organization that nobody owned."""

    organization_id: str
    organization_name: str
    customer_id: str
    license_id: str
    license_type: str
    anchor: datetime
    interval: str


@dataclass(frozen=True, slots=True)
class OrganizationRenamed:
    """The organization has another name."""

    before: str
    after: str


@dataclass(frozen=True, slots=True)
class SubscriptionStarted:
    """The customer pays from now on."""

    before: None
    after: Subscription


@dataclass(frozen=True, slots=True)
class SubscriptionCancelled:
    """The customer pays no longer; its allowance remains."""

    before: Subscription
    after: None


@dataclass(frozen=True, slots=True)
class QuantitiesChanged:
    """The customer holds more or less of some licensed products (seats) from now on; those that changed, by key."""

    before: Mapping[str, int]
    after: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class BillingLimitsChanged:
    """Limits were set or removed, now or from the next billing period."""

    before: BillingLimits
    after: BillingLimits


@dataclass(frozen=True, slots=True)
class TrustScoresChanged:
    """How far the customer is trusted to pay late usage, by product key."""

    before: Mapping[str, TrustScore]
    after: Mapping[str, TrustScore]


@dataclass(frozen=True, slots=True)
class NeverDropDataChanged:
    """The promise that nothing of this customer is dropped was given or taken back."""

    before: bool
    after: bool


@dataclass(frozen=True, slots=True)
class ProjectsRegistered:
    """The organization has another list of projects."""

    before: tuple[Project, ...]
    after: tuple[Project, ...]


@dataclass(frozen=True, slots=True)
class TrialSet:
    """The free trial got another end, or none."""

    before: datetime | None
    after: datetime | None


@dataclass(frozen=True, slots=True)
class FurtherLicensesChanged:
    """A license was attached to the account or taken off it, and why."""

    before: tuple[str, ...]
    after: tuple[str, ...]
    reason: str


CustomerEvent = (
    CustomerRegistered
    | OrganizationRenamed
    | SubscriptionStarted
    | SubscriptionCancelled
    | QuantitiesChanged
    | BillingLimitsChanged
    | TrustScoresChanged
    | NeverDropDataChanged
    | ProjectsRegistered
    | TrialSet
    | FurtherLicensesChanged
)


@dataclass(frozen=True, slots=True)
class RecordedEvent:
    """An event with who caused it and when (L20)."""

    event: CustomerEvent
    actor: str
    at: datetime


class BrokenHistory(ValueError):
    """Events that cannot follow each other.

    A stream begins with its registration and has exactly one. Quantities change only while a subscription is active.
    """


def evolve(customer: Customer | None, event: CustomerEvent, *, at: datetime) -> Customer:
    """The customer after one more event; says yes to every recorded fact.

    Raises:
        BrokenHistory: the first event is not the registration, or a later one is; or quantities changed without a
            subscription.
    """
    if isinstance(event, CustomerRegistered):
        if customer is not None:
            raise BrokenHistory(f"{event.organization_id} is registered twice")
        return Customer(
            organization_id=event.organization_id,
            organization_name=event.organization_name,
            customer_id=event.customer_id,
            license_id=event.license_id,
            license_type=event.license_type,
            registered_at=at,
            anchor=event.anchor,
            interval=event.interval,
        )
    if customer is None:
        raise BrokenHistory(f"{type(event).__name__} before the registration")
    return _changed(customer, event)


def _changed(customer: Customer, event: CustomerEvent) -> Customer:  # noqa: C901, PLR0911 - one branch per event
    match event:
        case CustomerRegistered():
            raise BrokenHistory(f"{event.organization_id} is registered twice")
        case OrganizationRenamed():
            return replace(customer, organization_name=event.after)
        case SubscriptionStarted() | SubscriptionCancelled():
            return replace(customer, subscription=event.after)
        case QuantitiesChanged():
            return _with_quantities(customer, event)
        case BillingLimitsChanged():
            return replace(customer, billing_limits=event.after)
        case TrustScoresChanged():
            return replace(customer, trust_scores=event.after)
        case NeverDropDataChanged():
            return replace(customer, never_drop_data=event.after)
        case ProjectsRegistered():
            return replace(customer, projects=event.after)
        case TrialSet():
            return replace(customer, free_trial_until=event.after)
        case FurtherLicensesChanged():
            return replace(customer, further_license_ids=event.after)
        case _:
            assert_never(event)


def _with_quantities(customer: Customer, event: QuantitiesChanged) -> Customer:
    if customer.subscription is None:
        raise BrokenHistory("quantities changed without a subscription")
    return replace(customer, subscription=customer.subscription.with_quantities(event.after))


def replay(events: Iterable[RecordedEvent]) -> Customer | None:
    """The state that a whole history adds up to; ``None`` for an empty one."""
    customer: Customer | None = None
    for recorded in events:
        customer = evolve(customer, recorded.event, at=recorded.at)
    return customer
