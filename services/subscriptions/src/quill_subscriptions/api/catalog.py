"""Operators' view of the catalog in force."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path
from quill_contracts.identifiers import ProductKey
from quill_runtime.problems import Problem

from quill_subscriptions.api.access import Access
from quill_subscriptions.api.refusals import refusals
from quill_subscriptions.ports import SubscriptionsStore
from quill_subscriptions.usecases.changes import catalog_in_force
from quill_subscriptions.wire.catalog import product_to_wire


def catalog_routes(store: SubscriptionsStore, access: Access) -> APIRouter:
    """``/v1/catalog`` and below."""
    routes = APIRouter(prefix="/v1/catalog", tags=["catalog"], dependencies=[Depends(access.operator)])

    @routes.get("")
    async def read_catalog() -> dict[str, Any]:
        with refusals():
            catalog = await store.run(catalog_in_force)
        return {
            "version": catalog.version,
            "effective_at": catalog.effective_at.isoformat(),
            "products": [product_to_wire(product).model_dump(mode="json") for product in catalog.in_force],
        }

    @routes.get("/{product_key}")
    async def read_product(product_key: Annotated[ProductKey, Path()]) -> dict[str, Any]:
        with refusals():
            catalog = await store.run(catalog_in_force)
        product = catalog.product(product_key)
        if product is None:
            raise Problem(404, "not_found", f"no product {product_key} in the catalog in force")
        earlier = [revision for revision in catalog.earlier if revision.key == product_key]
        return {
            **product_to_wire(product).model_dump(mode="json"),
            "earlier_revisions": [product_to_wire(revision).model_dump(mode="json") for revision in earlier],
        }

    return routes
