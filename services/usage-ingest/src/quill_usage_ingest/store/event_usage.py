"""What event meters used, for many organizations at once: one look-up, and none where the catalog has no such meter."""

from collections.abc import Collection
from datetime import datetime
from typing import Final

from sqlalchemy import TextClause, text
from sqlalchemy.ext.asyncio import AsyncConnection

from quill_usage_ingest.domain.meters import MeterMap
from quill_usage_ingest.store.meter_places import EventUsage

TOTAL_MAX: Final = 2**63 - 1
"""The most that a message carries. Entering stops long before it; only a recount could find more."""

# A number that is still being recounted is left out: half of it would be worse than none.
_USAGE: Final[TextClause] = text(
    """
    select p.organization_id, p.period_start, p.period_end, f.usage_key, p.quantity, p.peak
    from event_periods as p
    join event_feeds as f on f.feed_id = p.feed_id and not f.is_retired
    where p.organization_id = any(cast(:organization_ids as text[]))
      and p.period_start >= cast(:since as timestamptz)
      and not exists (select from event_recounts as r
                      where r.organization_id = p.organization_id and r.feed_id = p.feed_id)
    """
)


async def event_usage(
    connection: AsyncConnection, meters: MeterMap, organization_ids: Collection[str], *, since: datetime
) -> EventUsage:
    """Complete, partial and maximum usage of event meters by organization and period, of periods since then."""
    if not meters.event_meters:
        return {}
    found: dict[tuple[str, datetime, datetime], dict[str, tuple[int, int, int]]] = {}
    for row in await connection.execute(_USAGE, {"organization_ids": sorted(organization_ids), "since": since}):
        key = (row.organization_id, row.period_start, row.period_end)
        # As `Aggregate.usage` says: an event is whole when it comes, so nothing is partial.
        usage = (min(int(row.quantity), TOTAL_MAX), 0, min(int(row.peak), TOTAL_MAX))
        found.setdefault(key, {})[row.usage_key] = usage
    return found
