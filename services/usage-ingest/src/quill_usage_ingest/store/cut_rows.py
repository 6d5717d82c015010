"""What was used before each cut, in Postgres; only organizations with cuts have rows."""

import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple

from quill_pricing.period import BillingPeriod
from sqlalchemy import TextClause, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncConnection

from quill_usage_ingest.domain.cut_usage import CutKey, CutUsage
from quill_usage_ingest.domain.meters import MeterMap
from quill_usage_ingest.store.array_text import column_of_instants, column_of_numbers, column_of_texts
from quill_usage_ingest.store.carried_values import CarriedValues
from quill_usage_ingest.wire.snapshots import PackedPeriod

_KEYS: Final = """
    unnest(cast(cast(:organization_id as text) as text[]), cast(cast(:period_start as text) as timestamptz[]),
           cast(cast(:period_end as text) as timestamptz[]), cast(cast(:cut_at as text) as timestamptz[]),
           cast(cast(:place as text) as int[])) as k(organization_id, period_start, period_end, cut_at, place)
"""
_CUTS: Final = text(
    f"select k.place, c.counters, c.events from {_KEYS}"  # noqa: S608 - a constant of this file
    " join cut_usage as c using (organization_id, period_start, period_end, cut_at)"
).columns(counters=JSONB, events=JSONB)
_SAVE: Final[TextClause] = text(
    """
    insert into cut_usage (organization_id, period_start, period_end, cut_at, counters, events)
    values (:organization_id, :period_start, :period_end, :cut_at, cast(:counters as jsonb), cast(:events as jsonb))
    on conflict (organization_id, period_start, period_end, cut_at)
    do update set counters = excluded.counters, events = excluded.events
    """
)
_SINCE: Final = text(
    """
    select c.organization_id, c.period_start, c.period_end, c.cut_at, c.counters, c.events from cut_usage as c
    where c.organization_id = any(cast(:organization_ids as text[])) and c.period_start >= :since
    order by c.cut_at
    """
).columns(counters=JSONB, events=JSONB)


class StoredCut(NamedTuple):
    """A cut as it is published."""

    at: datetime
    counters: Mapping[str, int]
    events: Mapping[str, int]


CutsByPeriod = Mapping[tuple[str, datetime, datetime], Sequence[StoredCut]]
"""By organization, period start and period end; rising."""


def meters_before(
    cuts: CutsByPeriod, meters: MeterMap, carried: CarriedValues
) -> Callable[[str, PackedPeriod], Iterable[tuple[datetime, Mapping[str, int]]]]:
    """The cuts of an organization and period by meter, as a snapshot gives them."""

    def of_period(organization_id: str, held: PackedPeriod) -> Iterable[tuple[datetime, Mapping[str, int]]]:
        period = BillingPeriod(held.period_start, held.period_end)
        for cut in cuts.get((organization_id, held.period_start, held.period_end), ()):
            counted = {
                meter: cut.counters.get(meters.counter_in(meter, period) or "") for meter in meters.counter_by_meter
            }
            begun = carried.into(organization_id, held.period_start)
            fed = {meter: cut.events.get(meter, begun.get(meter)) for meter in meters.event_meters}
            yield cut.at, {meter: used for meter, used in {**counted, **fed}.items() if used is not None}

    return of_period


class PostgresCuts:
    """The part of `UsageTransaction` that keeps cuts."""

    _connection: AsyncConnection

    async def cuts(self, keys: Collection[CutKey]) -> dict[CutKey, CutUsage]:
        if not keys:
            return {}
        asked = list(keys)
        rows = await self._connection.execute(_CUTS, {**_columns(asked), "place": column_of_numbers(range(len(asked)))})
        return {asked[place]: CutUsage(counters, events) for place, counters, events in rows}

    async def save_cuts(self, cuts: Mapping[CutKey, CutUsage]) -> None:
        for key, usage in cuts.items():
            await self._connection.execute(_SAVE, _values(key, usage))

    async def cuts_since(self, organization_ids: Collection[str], since: datetime) -> CutsByPeriod:
        """The cuts of the periods that start at an instant or later; asks nothing for nobody."""
        if not organization_ids:
            return {}
        rows = await self._connection.execute(_SINCE, {"organization_ids": sorted(organization_ids), "since": since})
        found: dict[tuple[str, datetime, datetime], list[StoredCut]] = {}
        for name, start, end, at, counters, events in rows:
            found.setdefault((name, start, end), []).append(StoredCut(at, counters, events))
        return found


def _columns(keys: Sequence[CutKey]) -> dict[str, Any]:
    return {
        "organization_id": column_of_texts([key.organization_id for key in keys]),
        "period_start": column_of_instants([key.period.start for key in keys]),
        "period_end": column_of_instants([key.period.end for key in keys]),
        "cut_at": column_of_instants([key.at for key in keys]),
    }


def _values(key: CutKey, usage: CutUsage) -> dict[str, Any]:
    return {
        "organization_id": key.organization_id,
        "period_start": key.period.start,
        "period_end": key.period.end,
        "cut_at": key.at,
        "counters": json.dumps(dict(usage.counters)),
        "events": json.dumps(dict(usage.events)),
    }
