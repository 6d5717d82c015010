"""A product of the catalog as a row."""

from typing import Any

from sqlalchemy import Row

from quill_usage_ingest.domain.event_meter import EventMeter
from quill_usage_ingest.domain.meters import MeteredProduct


def metered_product_of(row: Row[Any]) -> MeteredProduct:
    """The product of a row of `metered_products`."""
    return MeteredProduct(
        product_key=row.product_key,
        revision=row.revision,
        usage_key=row.usage_key,
        counter=row.counter,
        counts_from=row.counts_from,
        event_meter=EventMeter.from_document(row.event_meter) if row.event_meter else None,
    )


def row_of_metered_product(product: MeteredProduct) -> dict[str, Any]:
    """Its columns beside the key."""
    return {
        "revision": product.revision,
        "usage_key": product.usage_key,
        "counter": product.counter,
        "counts_from": product.counts_from,
        "event_meter": product.event_meter.document() if product.event_meter else None,
    }
