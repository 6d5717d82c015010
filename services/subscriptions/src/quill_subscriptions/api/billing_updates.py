"""Operators' view of what regions are told: which customers are due, and which could not be told."""

from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query

from quill_subscriptions.api.access import Access, Operator
from quill_subscriptions.domain.billing_update import UpdateStatus
from quill_subscriptions.ports import SubscriptionsStore

PAGE_MAX = 500


def billing_update_routes(store: SubscriptionsStore, access: Access) -> APIRouter:
    """``/v1/billing-updates``."""
    routes = APIRouter(prefix="/v1/billing-updates", tags=["billing updates"])
    ByOperator = Annotated[Operator, Depends(access.operator)]  # noqa: N806 - a type

    @routes.get("")
    async def list_updates(
        _caller: ByOperator,
        status: UpdateStatus = "failed",
        after: Annotated[str, Query(max_length=200)] = "",
        limit: Annotated[int, Query(ge=1, le=PAGE_MAX)] = 100,
    ) -> dict[str, Any]:
        """A page of one update per customer, in the order of organization ids."""
        found = await store.run(lambda tx: tx.updates.standing(status, after=after, count_max=limit))
        return {"results": [asdict(each) for each in found]}

    return routes
