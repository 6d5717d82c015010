"""What PostHog's client calls: the billing object, its changes, the offer, the features (wire contract 1.3)."""

import uuid
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query
from quill_runtime.problems import Problem

from quill_subscriptions.api.access import Access, LicenseCaller
from quill_subscriptions.api.refusals import refusals
from quill_subscriptions.domain.commands import CustomerCommand
from quill_subscriptions.ports import CustomerRecord, SubscriptionsStore, SubscriptionsTransaction
from quill_subscriptions.usecases.changes import catalog_in_force, change_customer, limits_command
from quill_subscriptions.usecases.reading import BillingView, view_billing
from quill_subscriptions.usecases.registration import find_billed_or_register, find_or_register
from quill_subscriptions.wire.billing_object import billing_object, features_document
from quill_subscriptions.wire.offer import STANDARD_PLAN, offer_document
from quill_subscriptions.wire.requests import BillingChange

UsageIsCurrent = Callable[[], Awaitable[object]]
"""Returns when the usage that Kafka has confirmed by now is here, or after a bounded time."""


def billing_routes(  # noqa: C901 - a list of routes
    store: SubscriptionsStore, access: Access, usage_is_current: UsageIsCurrent
) -> APIRouter:
    """``/api/billing``, ``/api/billing/available_product_features``, ``/api/products-v2``."""
    routes = APIRouter(tags=["billing"])
    License = Annotated[LicenseCaller, Depends(access.license_caller)]  # noqa: N806 - a type

    async def registered(caller: LicenseCaller, tx: SubscriptionsTransaction, now: datetime) -> CustomerRecord:
        return await find_or_register(caller.tenant, customer_id=str(uuid.uuid4()), tx=tx, now=now)

    async def billed(caller: LicenseCaller, tx: SubscriptionsTransaction, now: datetime) -> CustomerRecord:
        return await find_billed_or_register(caller.tenant, customer_id=str(uuid.uuid4()), tx=tx, now=now)

    def shown(view: BillingView, caller: LicenseCaller, *, forecast: bool) -> dict[str, Any]:
        license_type = caller.tenant.license_type
        return billing_object(view.record.customer, view.standing, license_type=license_type, forecast=forecast)

    @routes.get("/api/billing")
    async def read_billing(caller: License, *, include_forecasting: bool = True) -> dict[str, Any]:
        # PostHog applies this answer and the one to its last report; an older one would turn a limit back.
        await usage_is_current()
        now = access.clock.now()

        async def work(tx: SubscriptionsTransaction) -> BillingView:
            return await view_billing(await billed(caller, tx, now), tx=tx, now=now)

        with refusals():
            view = await store.run(work)
        return shown(view, caller, forecast=include_forecasting)

    @routes.patch("/api/billing")
    async def change_billing(caller: License, body: BillingChange) -> dict[str, Any]:
        caller.require_billing_role()
        now = access.clock.now()

        async def work(tx: SubscriptionsTransaction) -> BillingView:
            record = await registered(caller, tx, now)
            commands: list[CustomerCommand] = []
            if body.touches_limits:
                commands.append(
                    limits_command(
                        record.customer,
                        await catalog_in_force(tx),
                        body.custom_limits_usd,
                        reset_next_period=body.reset_limit_next_period,
                        now=now,
                    )
                )
            changed = await change_customer(
                caller.tenant.organization_id,
                commands,
                members_after=body.members_after,
                actor=caller.tenant.actor,
                tx=tx,
                now=now,
            )
            return await view_billing(changed, tx=tx, now=now)

        with refusals():
            view = await store.run(work)
        return shown(view, caller, forecast=True)

    @routes.get("/api/billing/available_product_features")
    async def read_features(caller: License) -> dict[str, Any]:
        now = access.clock.now()

        async def work(tx: SubscriptionsTransaction) -> BillingView:
            return await view_billing(await billed(caller, tx, now), tx=tx, now=now)

        with refusals():
            view = await store.run(work)
        return features_document(view.standing.entitlements)

    @routes.get("/api/products-v2", dependencies=[Depends(access.anyone)])
    async def read_offer(plan: Annotated[str, Query(max_length=100)] = STANDARD_PLAN) -> dict[str, Any]:
        if plan != STANDARD_PLAN:
            raise Problem(400, "invalid_choice", f"there is no plan {plan!r}; ask for {STANDARD_PLAN!r}", attr="plan")
        with refusals():
            catalog = await store.run(catalog_in_force)
        return offer_document(catalog)

    return routes
