"""Keep what customers are; a changed schedule cuts the period it was agreed in (L21)."""

from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter

from quill_usage_ingest.domain.organization import Organization
from quill_usage_ingest.ports import UsageTransaction
from quill_usage_ingest.usecases.count_cuts import count_new_cuts
from quill_usage_ingest.usecases.recompute import recompute_organization


@dataclass(frozen=True, slots=True)
class Projected:
    """What taking in customer snapshots meant: who is new here, and whose periods moved."""

    first_seen: tuple[str, ...] = ()
    rescheduled: tuple[str, ...] = ()
    recut: tuple[str, ...] = ()
    """Whose cuts or schedule changed: what events fed before them has to be counted too."""


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
    recut: list[str] = []
    for organization_id, told in sorted(by_organization.items()):
        stored = known.get(organization_id)
        newest = _newest(stored, told)
        if newest is stored:
            continue
        await tx.save_customer(newest)
        if stored is None or newest.customer.further_license_ids != stored.customer.further_license_ids:
            await tx.save_further_licenses(organization_id, newest.customer.further_license_ids)
        if stored is None:
            first_seen.append(organization_id)
            continue
        if stored.schedules != newest.schedules:
            await recompute_organization(organization_id, tx=tx)
            rescheduled.append(organization_id)
        if stored.schedules != newest.schedules or stored.cuts != newest.cuts:
            await _publish_cuts(stored, tx=tx)
            recut.append(organization_id)
    return Projected(tuple(first_seen), tuple(rescheduled), tuple(recut))


def _newest(stored: Organization | None, told: Sequence[Organization]) -> Organization:
    """What is known after these snapshots, which rise by revision; ``stored`` itself when none is newer."""
    newest = stored
    for snapshot in told:
        if newest is None:
            newest = snapshot
        elif newest.customer_revision < snapshot.customer_revision:
            newest = snapshot.following(newest)
    if newest is None:
        raise AssertionError("an organization is told of by at least one snapshot")
    return newest


async def _publish_cuts(stored: Organization, *, tx: UsageTransaction) -> None:
    """Count new cuts, and let the next snapshot say that this customer revision was applied: closings wait for it."""
    organization = (await tx.lock_organizations({stored.organization_id}))[stored.organization_id]
    await count_new_cuts(organization, tx=tx)
    if organization.usage_revision == stored.usage_revision > 0:
        revisions = {organization.organization_id: organization.usage_revision + 1}
        await tx.save_revisions(revisions, is_publication_due=True)
