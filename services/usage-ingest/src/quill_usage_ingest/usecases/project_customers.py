"""Keep what customers are; a changed schedule cuts the period it was agreed in (L21)."""

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
    """Keep the newest revision of each customer; a changed schedule moves windows from its cut on to new periods.

    Every revision newer than the stored one is followed in order, however the log was cut into batches: where periods
    end depends on each change of schedule, not on the last alone.
    """
    by_organization: dict[str, list[Organization]] = {}
    for snapshot in sorted(snapshots, key=attrgetter("customer_revision")):
        by_organization.setdefault(snapshot.organization_id, []).append(snapshot)
    known = await tx.lock_organizations(by_organization.keys())
    first_seen: list[str] = []
    rescheduled: list[str] = []
    for organization_id, told in sorted(by_organization.items()):
        stored = known.get(organization_id)
        newest = stored
        for snapshot in told:
            if newest is None:
                newest = snapshot
            elif newest.customer_revision < snapshot.customer_revision:
                newest = snapshot.following(newest)
        if newest is None or newest is stored:
            continue
        await tx.save_customer(newest)
        if stored is None or newest.customer.further_license_ids != stored.customer.further_license_ids:
            await tx.save_further_licenses(organization_id, newest.customer.further_license_ids)
        if stored is None:
            first_seen.append(organization_id)
        elif stored.schedules != newest.schedules:
            await recompute_organization(organization_id, tx=tx)
            rescheduled.append(organization_id)
    return Projected(tuple(first_seen), tuple(rescheduled))
