"""Publishing a new snapshot of each customer that time or a new catalog has changed."""

from datetime import datetime

from quill_subscriptions.domain.entitlements import period_at
from quill_subscriptions.ports import CustomerRecord, SubscriptionsTransaction
from quill_subscriptions.usecases.changes import describe_change, find_for_change

REFRESH_BATCH = 200
SCHEDULE_ACTOR = "quill:schedule"


async def refresh_due_customers(*, tx: SubscriptionsTransaction, now: datetime, count_max: int = REFRESH_BATCH) -> int:
    """Republish up to ``count_max`` customers that are due; returns how many. No event: nobody changed anything.

    A snapshot that is due because of a boundary says it holds since the boundary, however late this runs, so that a
    limit that ended with the period ended exactly then (L12, L21).
    """
    catalog = await tx.catalog()
    if catalog is None:
        return 0
    due = await tx.due_for_refresh(now=now, catalog_version=catalog.version, count_max=count_max)
    for organization_id in due:
        record = await find_for_change(organization_id, tx=tx)
        change = describe_change(
            record.customer,
            record.members,
            (),
            catalog=catalog,
            actor=SCHEDULE_ACTOR,
            now=now,
            effective_at=_boundary_passed(record, now=now),
        )
        await tx.save(change, before=record)
    return len(due)


def _boundary_passed(record: CustomerRecord, *, now: datetime) -> datetime:
    """The newest instant, not after ``now``, at which time changed this customer's entitlements; else ``now``."""
    if record.refresh_at > now:
        return now
    trial_end = record.customer.free_trial_until
    boundaries = [period_at(record.customer, now).start, trial_end if trial_end and trial_end <= now else None]
    return max(boundary for boundary in boundaries if boundary is not None)
