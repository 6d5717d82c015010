"""What subscriptions publishes: the catalog and one complete snapshot per customer."""

from typing import Annotated, Literal

from pydantic import Field

from quill_contracts.identifiers import (
    CounterName,
    Instant,
    LicenseId,
    OrganizationId,
    PeriodTotal,
    ProductKey,
    Quantity,
    Revision,
    UsageKey,
)
from quill_contracts.message import Message, WireModel
from quill_contracts.meter_events import Aggregation, EventMeterDefinition
from quill_contracts.prices import PriceDocument
from quill_contracts.usage import CUTS_PER_PERIOD_MAX

Interval = Annotated[str, Field(pattern=r"^([1-9]\d* )?(day|week|month|year)s?$")]
CollectionMode = Literal["stripe-rates", "quill-rates"]


class Feature(WireModel):
    """Something a customer may use; ``limit`` null means without a number (``available_product_features``)."""

    key: str
    name: str
    description: str = ""
    unit: str | None = None
    limit: int | None = None
    note: str | None = None
    is_plan_default: bool = True


class CatalogProduct(Message):
    """One product in force, with its standard price (``subscriptions.catalog.v1``, key: product)."""

    product_key: ProductKey
    revision: Revision
    effective_at: Instant
    name: str
    description: str = ""
    unit: str | None = None
    usage_key: UsageKey | None = None
    counter: CounterName | None = None
    """The report counter that feeds this product's meter; null without a meter, or where events feed it."""
    event_meter: EventMeterDefinition | None = None
    """The events that feed this product's meter; null without a meter, or where a counter feeds it."""
    counts_from: Instant | None = None
    """Windows that start earlier do not count for this product's meter; null: all that was ever received counts."""
    price_id: str
    price: PriceDocument
    allowance: Quantity = 0
    features: list[Feature] = []
    """What a subscription to the product switches on."""
    free_features: list[Feature] = []
    """What everybody has of the product, subscribed or not (handbook V9)."""
    in_trial: bool = True
    """A free trial includes the product: its features are on, and its meter has no quota without a subscription."""


class Schedule(WireModel):
    """Billing periods are anchor + n x interval, without drift (L21)."""

    anchor: Instant
    interval: Interval


class ServicePeriod(WireModel):
    """A half-open span."""

    start: Instant
    end: Instant


class ItemChange(WireModel):
    """What held of an item from ``at`` on, until the next change (L12).

    ``paid``: subscribed, and no trial runs. ``quota`` in units, null = unlimited; ``quantity`` of a licensed product.
    """

    at: Instant
    paid: bool
    quota: PeriodTotal | None = None
    quantity: Annotated[int, Field(ge=0)] | None = None


class SubscriptionItem(WireModel):
    """One product of a customer with its whole price, so that readers need no other topic.

    ``quota`` is in units, null = unlimited; ``billing_limit_usd`` in whole dollars, null = none.
    """

    product_key: ProductKey
    usage_key: UsageKey | None
    counter: CounterName | None
    price_id: str
    price: PriceDocument
    subscribed: bool
    allowance: Quantity
    billing_limit_usd: Annotated[int, Field(ge=0)] | None = None
    quota: PeriodTotal | None = None
    quantity: Annotated[int, Field(ge=0)] | None = None
    """Licensed quantity of a product without a meter (seats; 1 for a flat price)."""
    aggregation: Aggregation = "sum"
    """How the meter's usage comes about; ``last`` bills its last value. Counters of reports are summed."""
    carried: bool = False
    """A ``last`` value goes on into a billing period in which no event came: readers take it from the period before."""
    in_trial: bool = True
    """A free trial includes the product: while it runs, ``quota`` is null unless the product is subscribed."""
    changes: list[ItemChange] = []
    """Oldest first; the first says what held at ``changes_since`` or when the item was first sold."""


class Project(WireModel):
    """A project (PostHog: team) of the organization and the API token its events carry."""

    team_id: str
    api_token: Annotated[str, Field(min_length=1, max_length=200)]


class CustomerSnapshot(Message):
    """Everything the other services need to know of one customer (``subscriptions.customers.v1``)."""

    organization_id: OrganizationId
    organization_name: str = ""
    email: str | None = None
    customer_id: str
    revision: Revision
    effective_at: Instant
    """When these facts came into force: the instant a limit counts from (L12)."""
    license_id: LicenseId
    license_type: str
    schedule: Schedule
    period: ServicePeriod
    has_active_subscription: bool
    subscription_id: str | None = None
    subscribed_at: Instant | None = None
    collection_mode: CollectionMode = "stripe-rates"
    items: list[SubscriptionItem]
    trust_scores: dict[UsageKey, Literal[0, 3, 7, 10, 15]] = {}
    never_drop_data: bool = False
    features: list[Feature] = []
    projects: Annotated[list[Project], Field(max_length=100_000)] = []
    free_trial_until: Instant | None = None
    further_license_ids: Annotated[list[LicenseId], Field(max_length=1_000)] = []
    """More instances billed on this account; what they report adds up (handbook O3)."""
    changes_since: Instant | None = None
    """Items tell all their changes from here on: the start of the third billing period before ``period``."""
    cuts: Annotated[list[Instant], Field(max_length=4 * CUTS_PER_PERIOD_MAX)] = []
    """Since ``changes_since``: where a paid span of a meter began or ended, or its limit fell; rising (L12)."""
