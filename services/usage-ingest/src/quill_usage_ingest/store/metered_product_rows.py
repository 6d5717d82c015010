"""Products of the catalog as rows."""

from collections.abc import Collection
from typing import Any

from sqlalchemy import Row, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from quill_usage_ingest.domain.event_meter import EventMeter
from quill_usage_ingest.domain.meters import MeteredProduct
from quill_usage_ingest.store.tables import metered_products


class PostgresMeteredProducts:
    """The part of a transaction that knows the catalog."""

    _connection: AsyncConnection

    async def metered_products(self) -> list[MeteredProduct]:
        rows = await self._connection.execute(select(metered_products).order_by(metered_products.c.product_key))
        return [_product(row) for row in rows]

    async def save_metered_products(self, products: Collection[MeteredProduct]) -> None:
        for product in products:
            row = _row(product)
            await self._connection.execute(
                insert(metered_products)
                .values(product_key=product.product_key, **row)
                .on_conflict_do_update(index_elements=["product_key"], set_=row)
            )


def _product(row: Row[Any]) -> MeteredProduct:
    return MeteredProduct(
        product_key=row.product_key,
        revision=row.revision,
        usage_key=row.usage_key,
        counter=row.counter,
        counts_from=row.counts_from,
        event_meter=EventMeter.from_document(row.event_meter) if row.event_meter else None,
    )


def _row(product: MeteredProduct) -> dict[str, Any]:
    return {
        "revision": product.revision,
        "usage_key": product.usage_key,
        "counter": product.counter,
        "counts_from": product.counts_from,
        "event_meter": product.event_meter.document() if product.event_meter else None,
    }
