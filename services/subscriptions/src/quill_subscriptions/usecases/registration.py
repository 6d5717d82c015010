"""How an organization becomes a customer: the first authenticated call that names it (L17)."""

from dataclasses import dataclass
from datetime import datetime

from quill_subscriptions.domain.commands import Register, Rename
from quill_subscriptions.ports import CustomerRecord, SubscriptionsTransaction
from quill_subscriptions.usecases.changes import change_customer, create_customer

CLOUD = "cloud"


@dataclass(frozen=True, slots=True)
class Tenant:
    """An organization as a license's token names it: who speaks, for whom, under which license."""

    organization_id: str
    organization_name: str | None
    license_id: str
    license_type: str
    actor: str


class ForeignOrganization(Exception):
    """The token's license may not speak for this organization, or not for a second one (L17, L18)."""


async def find_billed_or_register(
    tenant: Tenant, *, customer_id: str, tx: SubscriptionsTransaction, now: datetime
) -> CustomerRecord:
    """The customer on whose account the tenant is billed, for reading.

    A further license reads the account it was attached to, when its token names that account or an organization that
    is nobody's account (O3, L18). It may not change the account: that takes the account's own license or an operator.

    Raises:
        ForeignOrganization: as `find_or_register`.
    """
    account = await tx.account_of_further_license(tenant.license_id)
    if account is not None and (account == tenant.organization_id or await tx.find(tenant.organization_id) is None):
        record = await tx.find(account)
        if record is not None:
            return record
    return await find_or_register(tenant, customer_id=customer_id, tx=tx, now=now)


async def find_or_register(
    tenant: Tenant, *, customer_id: str, tx: SubscriptionsTransaction, now: datetime
) -> CustomerRecord:
    """The tenant's customer; registered under the token's license when nobody owns the organization yet.

    A license of type ``cloud`` stands for a region and may name many organizations. Any other belongs to exactly one,
    the first it names; a unique row taken in this transaction decides between simultaneous first calls (L17).

    Raises:
        ForeignOrganization: the organization belongs to another license, or the license to another organization.
    """
    record = await tx.find(tenant.organization_id)
    if record is None:
        return await _register(tenant, customer_id=customer_id, tx=tx, now=now)
    if record.customer.license_id != tenant.license_id:
        raise ForeignOrganization("this organization belongs to another license")
    name = tenant.organization_name
    if name is None or name == record.customer.organization_name:
        return record
    return await change_customer(
        tenant.organization_id, [Rename(organization_name=name)], actor=tenant.actor, tx=tx, now=now
    )


async def _register(tenant: Tenant, *, customer_id: str, tx: SubscriptionsTransaction, now: datetime) -> CustomerRecord:
    if tenant.license_type != CLOUD:
        bound = await tx.bind_license(tenant.license_id, tenant.organization_id, now=now)
        if bound != tenant.organization_id:
            raise ForeignOrganization("this license belongs to another organization; each installation needs its own")
    registration = Register(
        organization_id=tenant.organization_id,
        organization_name=tenant.organization_name or "",
        customer_id=customer_id,
        license_id=tenant.license_id,
        license_type=tenant.license_type,
    )
    return await create_customer(registration, actor=tenant.actor, tx=tx, now=now)
