"""Operators' calls: look at customers, change them, read who changed what; and an organization's list of projects."""

import uuid
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query
from quill_contracts.identifiers import OrganizationId
from quill_runtime.auth import Forbidden

from quill_subscriptions.api.access import Access, LicenseCaller, Operator
from quill_subscriptions.api.refusals import refusals
from quill_subscriptions.domain.commands import (
    CancelSubscription,
    ChangeNeverDropData,
    CustomerCommand,
    RegisterProjects,
    SetTrial,
)
from quill_subscriptions.domain.entitlements import Entitlements
from quill_subscriptions.ports import CustomerRecord, NumberedEvent, SubscriptionsStore, SubscriptionsTransaction
from quill_subscriptions.usecases.changes import (
    catalog_in_force,
    change_customer,
    find_for_change,
    limits_command,
    subscription_command,
    trust_command,
)
from quill_subscriptions.usecases.reading import list_customers, read_history, view_customer
from quill_subscriptions.usecases.registration import find_or_register
from quill_subscriptions.wire.customers import customer_document, history_document, summary_document
from quill_subscriptions.wire.requests import CustomerPatch, ProjectList, SubscriptionStart

PAGE_DEFAULT = 100
PAGE_MAX = 500
VERSION_MAX = 2**31 - 1

OrganizationInPath = Annotated[OrganizationId, Path()]
PageSize = Annotated[int, Query(ge=1, le=PAGE_MAX)]
Viewed = tuple[CustomerRecord, Entitlements]


def customer_routes(store: SubscriptionsStore, access: Access) -> APIRouter:  # noqa: C901 - a list of routes
    """``/v1/customers`` and below."""
    routes = APIRouter(prefix="/v1/customers", tags=["customers"])
    ByOperator = Annotated[Operator, Depends(access.operator)]  # noqa: N806 - a type
    ByEither = Annotated[LicenseCaller | Operator, Depends(access.license_or_operator)]  # noqa: N806 - a type

    async def changed(organization_id: str, commands: list[CustomerCommand], actor: str) -> dict[str, Any]:
        now = access.clock.now()

        async def work(tx: SubscriptionsTransaction) -> Viewed:
            await change_customer(organization_id, commands, actor=actor, tx=tx, now=now)
            return await view_customer(organization_id, tx=tx, now=now)

        with refusals():
            return customer_document(*await store.run(work))

    @routes.get("")
    async def read_customers(
        _caller: ByOperator, after: Annotated[str, Query(max_length=200)] = "", limit: PageSize = PAGE_DEFAULT
    ) -> dict[str, Any]:
        now = access.clock.now()

        async def work(tx: SubscriptionsTransaction) -> list[Viewed]:
            return await list_customers(after, count_max=limit, tx=tx, now=now)

        with refusals():
            page = await store.run(work)
        following = page[-1][0].customer.organization_id if len(page) == limit else None
        return {"results": [summary_document(*viewed) for viewed in page], "next": following}

    @routes.get("/{organization_id}")
    async def read_customer(_caller: ByOperator, organization_id: OrganizationInPath) -> dict[str, Any]:
        now = access.clock.now()

        async def work(tx: SubscriptionsTransaction) -> Viewed:
            return await view_customer(organization_id, tx=tx, now=now)

        with refusals():
            return customer_document(*await store.run(work))

    @routes.patch("/{organization_id}")
    async def patch_customer(
        caller: ByOperator, organization_id: OrganizationInPath, body: CustomerPatch
    ) -> dict[str, Any]:
        now = access.clock.now()

        async def work(tx: SubscriptionsTransaction) -> Viewed:
            commands = await _commands(organization_id, body, tx=tx, now=now)
            await change_customer(organization_id, commands, actor=caller.actor, tx=tx, now=now)
            return await view_customer(organization_id, tx=tx, now=now)

        with refusals():
            return customer_document(*await store.run(work))

    @routes.post("/{organization_id}/subscription", status_code=201)
    async def start_subscription(
        caller: ByOperator, organization_id: OrganizationInPath, body: SubscriptionStart
    ) -> dict[str, Any]:
        now = access.clock.now()
        subscription_id = str(uuid.uuid4())

        async def work(tx: SubscriptionsTransaction) -> Viewed:
            command = subscription_command(
                await catalog_in_force(tx),
                body.products,
                body.quantities,
                subscription_id=subscription_id,
                collection_mode=body.collection_mode,
            )
            await change_customer(organization_id, [command], actor=caller.actor, tx=tx, now=now)
            return await view_customer(organization_id, tx=tx, now=now)

        with refusals():
            return customer_document(*await store.run(work))

    @routes.delete("/{organization_id}/subscription")
    async def cancel_subscription(caller: ByOperator, organization_id: OrganizationInPath) -> dict[str, Any]:
        return await changed(organization_id, [CancelSubscription()], caller.actor)

    @routes.get("/{organization_id}/history")
    async def read_customer_history(
        _caller: ByOperator,
        organization_id: OrganizationInPath,
        after: Annotated[int, Query(ge=0, le=VERSION_MAX)] = 0,
        limit: PageSize = PAGE_DEFAULT,
    ) -> dict[str, Any]:
        async def work(tx: SubscriptionsTransaction) -> list[NumberedEvent]:
            return await read_history(organization_id, after=after, count_max=limit, tx=tx)

        with refusals():
            page = await store.run(work)
        return {
            "results": [history_document(event) for event in page],
            "next": page[-1].version if len(page) == limit else None,
        }

    @routes.put("/{organization_id}/projects")
    async def put_projects(caller: ByEither, organization_id: OrganizationInPath, body: ProjectList) -> dict[str, Any]:
        now = access.clock.now()
        if isinstance(caller, LicenseCaller) and caller.tenant.organization_id != organization_id:
            raise Forbidden("permission_denied", "the token names another organization")

        async def work(tx: SubscriptionsTransaction) -> CustomerRecord:
            if isinstance(caller, LicenseCaller):
                await find_or_register(caller.tenant, customer_id=str(uuid.uuid4()), tx=tx, now=now)
            command = RegisterProjects(projects=tuple(project.to_domain() for project in body))
            actor = caller.tenant.actor if isinstance(caller, LicenseCaller) else caller.actor
            return await change_customer(organization_id, [command], actor=actor, tx=tx, now=now)

        with refusals():
            record = await store.run(work)
        return {"organization_id": organization_id, "project_count": len(record.customer.projects)}

    return routes


async def _commands(
    organization_id: str, body: CustomerPatch, *, tx: SubscriptionsTransaction, now: datetime
) -> list[CustomerCommand]:
    """What the body asks for; the customer is held, so that limits are judged against its newest state."""
    customer = (await find_for_change(organization_id, tx=tx)).customer
    catalog = await catalog_in_force(tx)
    commands: list[CustomerCommand] = []
    if body.trust_scores:
        commands.append(trust_command(catalog, body.trust_scores))
    if body.never_drop_data is not None:
        commands.append(ChangeNeverDropData(never_drop_data=body.never_drop_data))
    if body.sets_trial:
        commands.append(SetTrial(until=body.free_trial_until))
    if body.touches_limits:
        reset = body.reset_limit_next_period
        commands.append(limits_command(customer, catalog, body.custom_limits_usd, reset_next_period=reset, now=now))
    return commands
