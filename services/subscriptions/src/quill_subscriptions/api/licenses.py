"""Operators' calls about the further licenses of an account (O3)."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path
from quill_contracts.identifiers import LicenseId, OrganizationId
from quill_runtime.problems import Problem

from quill_subscriptions.api.access import Access, Operator
from quill_subscriptions.api.refusals import refusals
from quill_subscriptions.domain.commands import AttachLicense, DetachLicense
from quill_subscriptions.domain.entitlements import Entitlements
from quill_subscriptions.ports import CustomerRecord, SubscriptionsStore, SubscriptionsTransaction
from quill_subscriptions.usecases.licenses import attach_license, detach_license
from quill_subscriptions.usecases.reading import view_customer
from quill_subscriptions.usecases.registration import CLOUD
from quill_subscriptions.wire.customers import customer_document
from quill_subscriptions.wire.requests import DetachmentReason, FurtherLicense

OrganizationInPath = Annotated[OrganizationId, Path()]
LicenseInPath = Annotated[LicenseId, Path()]


def license_routes(store: SubscriptionsStore, access: Access) -> APIRouter:
    """``/v1/customers/{organization_id}/licenses``."""
    routes = APIRouter(prefix="/v1/customers/{organization_id}/licenses", tags=["customers"])
    ByOperator = Annotated[Operator, Depends(access.operator)]  # noqa: N806 - a type

    @routes.post("")
    async def attach(caller: ByOperator, organization_id: OrganizationInPath, body: FurtherLicense) -> dict[str, Any]:
        """Bill one more instance on this account."""
        now = access.clock.now()
        _require_attachable(body.license_id, access)

        async def work(tx: SubscriptionsTransaction) -> tuple[CustomerRecord, Entitlements]:
            command = AttachLicense(body.license_id, body.reason)
            await attach_license(organization_id, command, actor=caller.actor, tx=tx, now=now)
            return await view_customer(organization_id, tx=tx, now=now)

        with refusals():
            return customer_document(*await store.run(work))

    @routes.post("/{license_id}/detach")
    async def detach(
        caller: ByOperator, organization_id: OrganizationInPath, license_id: LicenseInPath, body: DetachmentReason
    ) -> dict[str, Any]:
        """Stop billing an instance on this account. What it reported stays counted."""
        now = access.clock.now()

        async def work(tx: SubscriptionsTransaction) -> tuple[CustomerRecord, Entitlements]:
            command = DetachLicense(license_id, body.reason)
            await detach_license(organization_id, command, actor=caller.actor, tx=tx, now=now)
            return await view_customer(organization_id, tx=tx, now=now)

        with refusals():
            return customer_document(*await store.run(work))

    return routes


def _require_attachable(license_id: str, access: Access) -> None:
    """Only a license that was issued, is in force and stands for one instance can be billed on an account."""
    key = access.keyring.find(license_id)
    if key is None:
        raise Problem(400, "unknown_license", "license_id: no such license was issued", attr="license_id")
    if key.revoked:
        raise Problem(409, "license_revoked", "license_id: this license was withdrawn", attr="license_id")
    if key.attributes.get("type") == CLOUD:
        detail = "license_id: a cloud license stands for a whole region and cannot be one account's"
        raise Problem(409, "license_of_region", detail, attr="license_id")
