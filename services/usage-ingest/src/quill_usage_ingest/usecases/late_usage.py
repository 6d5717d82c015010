"""Usage of a billing period older than those in the snapshot: published by itself, so that it is billed (D6, L13)."""

from collections.abc import Collection
from datetime import datetime

from quill_usage_ingest.domain.usage_book import PeriodKey
from quill_usage_ingest.ports import SNAPSHOT_PERIODS, UsageTransaction


def may_be_late(changed: Collection[PeriodKey], *, now: datetime) -> set[PeriodKey]:
    """Those that ended a whole period ago or earlier; only they can be older than the snapshot. Mostly none."""
    return {key for key in changed if key.period.end + key.period.duration <= now}


async def publish_late_usage(changed: Collection[PeriodKey], *, tx: UsageTransaction) -> None:
    """Mark the periods among these that no snapshot holds; a job publishes each of them by itself."""
    by_organization: dict[str, list[PeriodKey]] = {}
    for key in changed:
        by_organization.setdefault(key.organization_id, []).append(key)
    for organization_id, keys in sorted(by_organization.items()):
        in_snapshot = {usage.period for usage in await tx.periods_in_force(organization_id, newest=SNAPSHOT_PERIODS)}
        late = [key for key in keys if key.period not in in_snapshot]
        if late:
            await tx.mark_late_usage(late)
