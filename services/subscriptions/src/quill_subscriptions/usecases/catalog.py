"""Putting a reviewed catalog in force."""

from datetime import datetime

from quill_subscriptions.domain.catalog import Catalog, Product, adopt
from quill_subscriptions.ports import SubscriptionsTransaction


async def put_catalog_in_force(
    proposed: Catalog, *, tx: SubscriptionsTransaction, now: datetime
) -> tuple[Product, ...]:
    """Adopt ``proposed``; returns the products that changed. A repeat changes and publishes nothing.

    Raises:
        CatalogRefused: the catalog in force stays in force.
        quill_runtime.database.Conflict: another process was faster; look again.
    """
    current = await tx.catalog()
    catalog, changed = adopt(current, proposed, now=now)
    if current is None or catalog.version != current.version:
        await tx.put_in_force(catalog, changed, now=now)
    return changed
