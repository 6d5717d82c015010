"""Publishing a new snapshot of each customer that time or a new catalog has changed."""

from datetime import datetime

from quill_subscriptions.ports import SubscriptionsTransaction
from quill_subscriptions.usecases.changes import catch_up, find_for_change

REFRESH_BATCH = 200


async def refresh_due_customers(*, tx: SubscriptionsTransaction, now: datetime, count_max: int = REFRESH_BATCH) -> int:
    """Republish up to ``count_max`` customers that are due; returns how many."""
    catalog = await tx.catalog()
    if catalog is None:
        return 0
    due = await tx.due_for_refresh(now=now, catalog_version=catalog.version, count_max=count_max)
    for organization_id in due:
        await catch_up(await find_for_change(organization_id, tx=tx), catalog=catalog, tx=tx, now=now)
    return len(due)
