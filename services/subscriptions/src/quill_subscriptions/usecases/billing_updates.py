"""What a region is told of a customer: the same view that ``GET /api/billing`` shows, read when it is sent."""

from datetime import datetime

from quill_subscriptions.ports import SubscriptionsTransaction
from quill_subscriptions.usecases.changes import UnknownCustomer
from quill_subscriptions.usecases.reading import BillingView, view_billing


async def view_update(organization_id: str, *, tx: SubscriptionsTransaction, now: datetime) -> BillingView:
    """The customer as it stands now, whatever it was when the update was marked.

    Raises:
        UnknownCustomer: nobody registered the organization.
        NoCatalog: no catalog is in force.
    """
    record = await tx.find(organization_id)
    if record is None:
        raise UnknownCustomer(f"organization {organization_id} is not a customer")
    return await view_billing(record, tx=tx, now=now)
