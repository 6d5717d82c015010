"""Gauges that go on into the next billing period: the last value of the newest period that had one (K14)."""

from bisect import bisect_left
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from sqlalchemy import TextClause, text
from sqlalchemy.ext.asyncio import AsyncConnection

from quill_usage_ingest.domain.meters import MeterMap
from quill_usage_ingest.domain.team_usage import TOTAL_MAX

_VALUES: Final[TextClause] = text(
    """
    select p.organization_id, f.usage_key, p.period_start, least(p.quantity, :total_max) as quantity
    from event_periods as p
    join event_feeds as f on f.feed_id = p.feed_id and not f.is_retired
    where p.organization_id = any(cast(:organization_ids as text[])) and f.usage_key = any(cast(:meters as text[]))
      and p.events > 0
      and not exists (select from event_recounts as r
                      where r.organization_id = p.organization_id and r.feed_id = p.feed_id)
    order by p.period_start
    """
)


@dataclass(frozen=True, slots=True)
class CarriedValues:
    """The last values of carried gauges, by organization and meter, with the periods they are of."""

    meters: tuple[str, ...] = ()
    _values: Mapping[tuple[str, str], list[tuple[datetime, int]]] = field(default_factory=dict)

    @classmethod
    async def read(
        cls, connection: AsyncConnection, meters: MeterMap, organization_ids: Collection[str]
    ) -> "CarriedValues":
        """Asks nothing where no meter is carried."""
        carried = tuple(sorted(key for key, meter in meters.event_meters.items() if meter.carried))
        if not carried:
            return cls()
        parameters = {"organization_ids": sorted(organization_ids), "meters": list(carried), "total_max": TOTAL_MAX}
        values: dict[tuple[str, str], list[tuple[datetime, int]]] = {}
        for row in await connection.execute(_VALUES, parameters):
            values.setdefault((row.organization_id, row.usage_key), []).append((row.period_start, int(row.quantity)))
        return cls(carried, values)

    def into(self, organization_id: str, period_start: datetime) -> dict[str, int]:
        """With which values each carried meter begins a period; those that never had one are left out."""
        found = {}
        for meter in self.meters:
            values = self._values.get((organization_id, meter), [])
            position = bisect_left(values, (period_start, -1))
            if position:
                found[meter] = values[position - 1][1]
        return found


NOTHING_CARRIED: Final = CarriedValues()
