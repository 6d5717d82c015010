"""Changing a customer: every change is events with their actor, and one complete new snapshot (L9, L20)."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime

from quill_pricing.price import FlatPrice

from quill_subscriptions.domain.catalog import Catalog, Product
from quill_subscriptions.domain.commands import (
    ChangeBillingLimits,
    ChangeQuantities,
    ChangeTrustScores,
    CustomerCommand,
    Register,
    StartSubscription,
    decide,
)
from quill_subscriptions.domain.customer import (
    CollectionMode,
    Customer,
    CustomerEvent,
    SubscribedProduct,
    TrustScore,
    evolve,
)
from quill_subscriptions.domain.entitlements import Published, changes_by_itself_at, entitle, period_at
from quill_subscriptions.domain.item_changes import check_number_of_changes
from quill_subscriptions.domain.members import MemberRegister
from quill_subscriptions.ports import CustomerChange, CustomerRecord, SubscriptionsTransaction

SCHEDULE_ACTOR = "quill:schedule"


class UnknownCustomer(LookupError):
    """Nobody registered this organization."""


class NoCatalog(LookupError):
    """No catalog is in force yet, so nothing can be said of any product."""


class UnknownProduct(ValueError):
    """A name that is no product (or no metered one, where a meter is needed); ``attribute`` says where it stood."""

    def __init__(self, detail: str, *, attribute: str) -> None:
        super().__init__(detail)
        self.attribute = attribute


async def catalog_in_force(tx: SubscriptionsTransaction) -> Catalog:
    """The catalog in force.

    Raises:
        NoCatalog: none was ever adopted.
    """
    catalog = await tx.catalog()
    if catalog is None:
        raise NoCatalog("no catalog is in force; see the health check 'catalog'")
    return catalog


async def create_customer(
    registration: Register, *, actor: str, tx: SubscriptionsTransaction, now: datetime
) -> CustomerRecord:
    """Make a customer and publish its first snapshot.

    Raises:
        NoCatalog: its entitlements cannot be derived.
        quill_runtime.database.Conflict: another call registered it meanwhile.
    """
    catalog = await catalog_in_force(tx)
    events = decide(None, registration, now=now)
    customer: Customer | None = None
    for event in events:
        customer = evolve(customer, event, at=now)
    assert customer is not None, "a registration makes a customer"
    change = describe_change(customer, MemberRegister(), events, catalog=catalog, actor=actor, now=now, published=None)
    return await tx.save(change, before=None)


async def change_customer(
    organization_id: str,
    commands: Sequence[CustomerCommand],
    *,
    actor: str,
    tx: SubscriptionsTransaction,
    now: datetime,
    members_after: Callable[[MemberRegister], MemberRegister] | None = None,
) -> CustomerRecord:
    """Apply commands together, or none of them; what already holds changes nothing and publishes nothing.

    ``members_after`` gives the member register after the change from the one before it.

    Raises:
        UnknownCustomer: nobody registered the organization.
        IllegalMove: one of the commands does not fit the customer's state.
        TooManyChanges: the customer was changed too often in this billing period.
    """
    record = await find_for_change(organization_id, tx=tx)
    customer = record.customer
    events: list[CustomerEvent] = []
    for command in commands:
        for event in decide(customer, command, now=now):
            customer = evolve(customer, event, at=now)
            events.append(event)
    after = record.members if members_after is None else members_after(record.members)
    if not events and after == record.members:
        return record
    catalog = await catalog_in_force(tx)
    if record.refresh_at <= now:
        record = await catch_up(record, catalog=catalog, tx=tx, now=now)
    change = describe_change(customer, after, events, catalog=catalog, actor=actor, now=now, published=record.published)
    entitlements = change.entitlements
    check_number_of_changes(
        record.changes, entitlements.changes, metered=entitlements.metered_keys, period=entitlements.period
    )
    return await tx.save(change, before=record)


async def catch_up(
    record: CustomerRecord, *, catalog: Catalog, tx: SubscriptionsTransaction, now: datetime
) -> CustomerRecord:
    """Publish what time or a new catalog has made of a customer. No event: nobody changed anything.

    A snapshot that is due because of a boundary says it holds since the boundary, however late this runs, so that a
    limit that ended with the period ended exactly then (L12, L21). A change made by a person comes after it.
    """
    boundary = now
    if record.refresh_at <= now:
        trial_end = record.customer.free_trial_until
        period_start = period_at(record.customer, now).start
        boundary = period_start if trial_end is None or trial_end > now else max(period_start, trial_end)
    change = describe_change(
        record.customer,
        record.members,
        (),
        catalog=catalog,
        actor=SCHEDULE_ACTOR,
        now=now,
        published=record.published,
        effective_at=boundary,
    )
    return await tx.save(change, before=record)


async def find_for_change(organization_id: str, *, tx: SubscriptionsTransaction) -> CustomerRecord:
    """The customer, held against others until the transaction ends.

    Raises:
        UnknownCustomer: nobody registered the organization.
    """
    record = await tx.find(organization_id, for_change=True)
    if record is None:
        raise UnknownCustomer(f"organization {organization_id} is not a customer")
    return record


def describe_change(
    customer: Customer,
    members: MemberRegister,
    events: Sequence[CustomerEvent],
    *,
    catalog: Catalog,
    actor: str,
    now: datetime,
    published: Published | None,
    effective_at: datetime | None = None,
) -> CustomerChange:
    """Everything the store needs to save a customer and publish its snapshot."""
    return CustomerChange(
        customer=customer,
        members=members,
        events=events,
        actor=actor,
        entitlements=entitle(customer, catalog, now=now, published=published, effective_at=effective_at),
        catalog_version=catalog.version,
        effective_at=now if effective_at is None else effective_at,
        refresh_at=changes_by_itself_at(customer, now=now),
        now=now,
    )


def limits_command(
    customer: Customer,
    catalog: Catalog,
    limits: Mapping[str, int | None] | None,
    *,
    reset_next_period: bool,
    now: datetime,
) -> ChangeBillingLimits:
    """Billing limits by product key or usage key, as a command.

    Raises:
        UnknownProduct: naming the key at fault.
    """
    named = {_metered(catalog, name, field="custom_limits_usd").key: limit for name, limit in (limits or {}).items()}
    ending = frozenset(named or customer.billing_limits.at(now).in_force) if reset_next_period else frozenset()
    return ChangeBillingLimits(limits=named, ending_with_period=ending, next_period_starts=period_at(customer, now).end)


def trust_command(catalog: Catalog, scores: Mapping[str, TrustScore]) -> ChangeTrustScores:
    """Trust scores by product key or usage key, as a command.

    Raises:
        UnknownProduct: naming the key at fault.
    """
    return ChangeTrustScores(
        scores={_metered(catalog, name, field="trust_scores").key: score for name, score in scores.items()}
    )


def subscription_command(
    catalog: Catalog,
    products: Sequence[str],
    quantities: Mapping[str, int],
    *,
    subscription_id: str,
    collection_mode: CollectionMode,
) -> StartSubscription:
    """Products at the revisions in force now, as a command: that is the price agreed on.

    Raises:
        UnknownProduct: naming the key at fault.
    """
    bought: list[SubscribedProduct] = []
    for key in products:
        product = catalog.product(key)
        if product is None:
            raise UnknownProduct(f"no such product: {key}", attribute="products")
        if key in quantities:
            _check_licensed(product, quantities[key])
        bought.append(SubscribedProduct(key, product.revision, quantities.get(key, 1)))
    return StartSubscription(subscription_id=subscription_id, products=tuple(bought), collection_mode=collection_mode)


def quantities_command(customer: Customer, catalog: Catalog, quantities: Mapping[str, int]) -> ChangeQuantities:
    """Licensed quantities by product key, as a command. What is held is judged by the revision it was bought at.

    Raises:
        UnknownProduct: naming the key at fault: there is no such product, or it has no licensed quantity.
    """
    held = {item.product_key: item for item in customer.subscription.products} if customer.subscription else {}
    for key, quantity in quantities.items():
        bought = held.get(key)
        product = catalog.product(key) if bought is None else catalog.revision(key, bought.product_revision)
        if product is None:
            raise UnknownProduct(f"no such product: {key}", attribute=f"quantities__{key}")
        _check_licensed(product, quantity)
    return ChangeQuantities(quantities=dict(quantities))


def _check_licensed(product: Product, quantity: int) -> None:
    attribute = f"quantities__{product.key}"
    if product.is_metered:
        raise UnknownProduct(f"{product.key} is metered and has no licensed quantity", attribute=attribute)
    if isinstance(product.price, FlatPrice) and quantity != 1:
        raise UnknownProduct(f"{product.key} has a flat price, so its quantity is 1", attribute=attribute)


def _metered(catalog: Catalog, name: str, *, field: str) -> Product:
    product = catalog.metered(name)
    if product is None:
        raise UnknownProduct(f"no product with a meter is called {name!r}", attribute=f"{field}__{name}")
    return product
