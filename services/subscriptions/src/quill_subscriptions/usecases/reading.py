"""What is known of a customer, read together in one transaction."""

from dataclasses import dataclass
from datetime import datetime

from quill_subscriptions.domain.entitlements import Entitlements, entitle
from quill_subscriptions.domain.standing import Standing, stand
from quill_subscriptions.ports import CustomerRecord, NumberedEvent, SubscriptionsTransaction
from quill_subscriptions.usecases.changes import UnknownCustomer, catalog_in_force


@dataclass(frozen=True, slots=True)
class BillingView:
    """Everything that ``GET /api/billing`` shows."""

    record: CustomerRecord
    standing: Standing


async def view_billing(record: CustomerRecord, *, tx: SubscriptionsTransaction, now: datetime) -> BillingView:
    """Where the customer stands in its billing period.

    Raises:
        NoCatalog: no catalog is in force.
    """
    catalog = await catalog_in_force(tx)
    entitlements = entitle(record.customer, catalog, now=now, published=record.published)
    usage = await tx.usage(record.customer.organization_id)
    return BillingView(record, stand(entitlements, usage, now=now))


async def view_customer(
    organization_id: str, *, tx: SubscriptionsTransaction, now: datetime
) -> tuple[CustomerRecord, Entitlements]:
    """A customer and what follows for it at ``now``.

    Raises:
        UnknownCustomer: nobody registered the organization.
        NoCatalog: no catalog is in force.
    """
    record = await tx.find(organization_id)
    if record is None:
        raise UnknownCustomer(f"organization {organization_id} is not a customer")
    return record, entitle(record.customer, await catalog_in_force(tx), now=now, published=record.published)


async def list_customers(
    after: str, *, count_max: int, tx: SubscriptionsTransaction, now: datetime
) -> list[tuple[CustomerRecord, Entitlements]]:
    """A page of customers in the order of their organization ids, beginning after ``after``.

    Raises:
        NoCatalog: no catalog is in force.
    """
    catalog = await catalog_in_force(tx)
    records = await tx.customers_after(after, count_max=count_max)
    return [(record, entitle(record.customer, catalog, now=now, published=record.published)) for record in records]


async def read_history(
    organization_id: str, *, after: int, count_max: int, tx: SubscriptionsTransaction
) -> list[NumberedEvent]:
    """A page of a customer's events, beginning after event number ``after``.

    Raises:
        UnknownCustomer: nobody registered the organization.
    """
    if await tx.find(organization_id) is None:
        raise UnknownCustomer(f"organization {organization_id} is not a customer")
    return await tx.history(organization_id, after=after, count_max=count_max)
