"""Keep which counter feeds which meter."""

from collections.abc import Sequence

from quill_usage_ingest.domain.meters import MeteredProduct, MeterMap
from quill_usage_ingest.ports import UsageTransaction


async def project_products(products: Sequence[MeteredProduct], *, tx: UsageTransaction) -> int:
    """Keep the newest revision of each product. When the meters changed, everybody's usage gets a new revision.

    The counters were stored all along, so a meter that is new today is published with its whole history (L5).

    Returns:
        How many organizations are due for publication because of it.
    """
    known = {product.product_key: product for product in await tx.metered_products()}
    before = MeterMap.of(known.values())
    newer: dict[str, MeteredProduct] = {}
    for product in products:
        stored = known.get(product.product_key)
        if stored is None or product.revision > stored.revision:
            known[product.product_key] = newer[product.product_key] = product
    await tx.save_metered_products(newer.values())
    if MeterMap.of(known.values()) == before:
        return 0
    return await tx.raise_all_revisions()
