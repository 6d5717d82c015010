"""Several instances on one account: what they report adds up (O3, L17)."""

from datetime import datetime

from quill_subscriptions.domain.commands import AttachLicense, DetachLicense, IllegalMove
from quill_subscriptions.ports import CustomerRecord, SubscriptionsTransaction
from quill_subscriptions.usecases.changes import change_customer, find_for_change


async def attach_license(
    organization_id: str, command: AttachLicense, *, actor: str, tx: SubscriptionsTransaction, now: datetime
) -> CustomerRecord:
    """Bill a license that is nobody's on this account; attached already, nothing changes.

    Raises:
        UnknownCustomer: nobody registered the organization.
        IllegalMove: the license is somebody's already, or the account has too many.
    """
    await find_for_change(organization_id, tx=tx)
    record = await change_customer(organization_id, [command], actor=actor, tx=tx, now=now)
    if await tx.attach_license(command.license_id, organization_id, now=now) != organization_id:
        raise IllegalMove("license_taken", "this license belongs to another organization")
    return record


async def detach_license(
    organization_id: str, command: DetachLicense, *, actor: str, tx: SubscriptionsTransaction, now: datetime
) -> CustomerRecord:
    """Stop billing a license on this account; what it reported stays. Not attached, nothing changes.

    Raises:
        UnknownCustomer: nobody registered the organization.
    """
    record = await change_customer(organization_id, [command], actor=actor, tx=tx, now=now)
    await tx.detach_license(command.license_id, organization_id)
    return record
