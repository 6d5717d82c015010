"""Operators' call that changes licensed quantities (seats) inside a billing period."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path
from quill_contracts.identifiers import OrganizationId

from quill_subscriptions.api.access import Access, Operator
from quill_subscriptions.api.refusals import refusals
from quill_subscriptions.domain.entitlements import Entitlements
from quill_subscriptions.ports import CustomerRecord, SubscriptionsStore, SubscriptionsTransaction
from quill_subscriptions.usecases.changes import (
    catalog_in_force,
    change_customer,
    find_for_change,
    quantities_command,
)
from quill_subscriptions.usecases.reading import view_customer
from quill_subscriptions.wire.customers import customer_document
from quill_subscriptions.wire.requests import QuantitiesChange

OrganizationInPath = Annotated[OrganizationId, Path()]


def quantity_routes(store: SubscriptionsStore, access: Access) -> APIRouter:
    """``/v1/customers/{organization_id}/subscription/quantities``."""
    routes = APIRouter(prefix="/v1/customers/{organization_id}/subscription/quantities", tags=["customers"])
    ByOperator = Annotated[Operator, Depends(access.operator)]  # noqa: N806 - a type

    @routes.post("")
    async def change_quantities(
        caller: ByOperator, organization_id: OrganizationInPath, body: QuantitiesChange
    ) -> dict[str, Any]:
        """Hold other licensed quantities from now on. A repeat changes nothing."""
        now = access.clock.now()

        async def work(tx: SubscriptionsTransaction) -> tuple[CustomerRecord, Entitlements]:
            customer = (await find_for_change(organization_id, tx=tx)).customer
            command = quantities_command(customer, await catalog_in_force(tx), body.quantities)
            await change_customer(organization_id, [command], actor=caller.actor, tx=tx, now=now)
            return await view_customer(organization_id, tx=tx, now=now)

        with refusals():
            return customer_document(*await store.run(work))

    return routes
