"""Keep what customers are; a changed schedule moves usage to other periods at once (L21)."""

from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter

from quill_usage_ingest.domain.organization import Organization
from quill_usage_ingest.ports import UsageTransaction
from quill_usage_ingest.usecases.recompute import recompute_organization


@dataclass(frozen=True, slots=True)
class Projected:
    """What taking in customer snapshots meant: who is new here, and whose periods moved."""

    first_seen: tuple[str, ...] = ()
    rescheduled: tuple[str, ...] = ()


async def project_customers(snapshots: Sequence[Organization], *, tx: UsageTransaction) -> Projected:
    """Keep the newest revision of each customer; a changed schedule moves its windows to other periods at once."""
    newest: dict[str, Organization] = {}
    for snapshot in sorted(snapshots, key=attrgetter("customer_revision")):
        newest[snapshot.organization_id] = snapshot
    known = await tx.lock_organizations(newest.keys())
    first_seen: list[str] = []
    rescheduled: list[str] = []
    for organization_id, snapshot in sorted(newest.items()):
        stored = known.get(organization_id)
        if stored is not None and snapshot.customer_revision <= stored.customer_revision:
            continue
        await tx.save_customer(snapshot)
        if stored is None or snapshot.customer.further_license_ids != stored.customer.further_license_ids:
            await tx.save_further_licenses(organization_id, snapshot.customer.further_license_ids)
        if stored is None:
            first_seen.append(organization_id)
        elif stored.schedule != snapshot.schedule:
            await recompute_organization(organization_id, tx=tx)
            rescheduled.append(organization_id)
    return Projected(tuple(first_seen), tuple(rescheduled))
