"""What meters used whose numbers do not stand in packed rows, for many organizations at once.

Those are event meters, and meters that are counted anew. One look-up, and none where the catalog has no such meter.
"""

from collections.abc import Collection
from datetime import datetime
from typing import Final

from sqlalchemy import TextClause, text
from sqlalchemy.ext.asyncio import AsyncConnection

from quill_usage_ingest.domain.meters import MeterMap
from quill_usage_ingest.domain.team_usage import TOTAL_MAX
from quill_usage_ingest.store.meter_places import EventUsage
from quill_usage_ingest.store.stand_ins import AWAITED

# A number that is still being recounted is left out, and the one of before stands in for it.
_USAGE: Final[TextClause] = text(
    f"""
    select p.organization_id, p.period_start, p.period_end, f.usage_key,
           least(p.quantity, :total_max) as complete, 0 as partial, least(p.quantity, :total_max) as maximum
    from event_periods as p
    join event_feeds as f on f.feed_id = p.feed_id and not f.is_retired
    where p.organization_id = any(cast(:organization_ids as text[]))
      and p.period_start >= cast(:since as timestamptz)
      and not exists (select from event_recounts as r
                      where r.organization_id = p.organization_id and r.feed_id = p.feed_id)
    union all
    select s.organization_id, s.period_start, s.period_end, s.usage_key, s.complete, s.partial, s.maximum
    from usage_stand_ins as s
    where s.organization_id = any(cast(:organization_ids as text[]))
      and s.period_start >= cast(:since as timestamptz)
      and {AWAITED}
    """  # noqa: S608 - a constant of `stand_ins`
)


async def event_usage(
    connection: AsyncConnection, meters: MeterMap, organization_ids: Collection[str], *, since: datetime
) -> EventUsage:
    """Complete, partial and maximum usage of such meters by organization and period, of periods since then."""
    if not meters.event_meters and not meters.counts_from:
        return {}
    parameters = {
        "organization_ids": sorted(organization_ids),
        "since": since,
        "dated_meters": sorted(meters.counts_from),
        "total_max": TOTAL_MAX,
    }
    found: dict[tuple[str, datetime, datetime], dict[str, tuple[int, int, int]]] = {}
    for row in await connection.execute(_USAGE, parameters):
        key = (row.organization_id, row.period_start, row.period_end)
        # As `Aggregate.usage` says: an event is whole when it comes, so nothing of it is partial.
        found.setdefault(key, {})[row.usage_key] = (int(row.complete), int(row.partial), int(row.maximum))
    return found
