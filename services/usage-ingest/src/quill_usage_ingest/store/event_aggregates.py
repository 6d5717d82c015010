"""What events add up to, in Postgres: windows, periods and distinct values of event meters."""

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

from quill_pricing.period import BillingPeriod
from sqlalchemy import Row, TextClause, delete, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from quill_usage_ingest.domain.event_aggregate import Aggregate
from quill_usage_ingest.domain.event_book import EventPeriodKey, EventWindowKey, SeenValue
from quill_usage_ingest.domain.event_meter import Group
from quill_usage_ingest.domain.meter_event import Moment
from quill_usage_ingest.store.event_tables import event_periods, event_values, event_windows

_GROUPING_BYTES: Final = 16
_WHOLE: Final = b""

_AGGREGATES: Final = """
    cast(:events as bigint[]), cast(:quantities as numeric[]),
    cast(:first_ats as timestamptz[]), cast(:first_names as bytea[]),
    cast(:last_ats as timestamptz[]), cast(:last_names as bytea[])
"""
_SET_AGGREGATE: Final = """
    do update set events = excluded.events, quantity = excluded.quantity,
                  first_at = excluded.first_at, first_name = excluded.first_name,
                  last_at = excluded.last_at, last_name = excluded.last_name
"""
_SAVE_WINDOWS: Final[TextClause] = text(
    f"""
    insert into event_windows (feed_id, organization_id, window_start, grouping, dimensions,
                               events, quantity, first_at, first_name, last_at, last_name)
    select k.feed_id, k.organization_id, k.window_start, k.grouping_hash, cast(k.dimensions as jsonb),
           k.events, k.quantity, k.first_at, k.first_name, k.last_at, k.last_name
    from unnest(
        cast(:feed_ids as int[]), cast(:organization_ids as text[]), cast(:starts as timestamptz[]),
        cast(:groupings as bytea[]), cast(:dimensions as text[]), {_AGGREGATES}
    ) as k(feed_id, organization_id, window_start, grouping_hash, dimensions,
           events, quantity, first_at, first_name, last_at, last_name)
    on conflict (feed_id, organization_id, window_start, grouping) {_SET_AGGREGATE}
    """  # noqa: S608 - constants of this file
)
_WINDOWS: Final[TextClause] = text(
    """
    select w.* from unnest(
        cast(:feed_ids as int[]), cast(:organization_ids as text[]), cast(:starts as timestamptz[]),
        cast(:groupings as bytea[])
    ) as k(feed_id, organization_id, window_start, grouping_hash)
    join event_windows as w
      on w.feed_id = k.feed_id and w.organization_id = k.organization_id and w.window_start = k.window_start
     and w.grouping = k.grouping_hash
    """
)
_SAVE_PERIODS: Final[TextClause] = text(
    f"""
    insert into event_periods (organization_id, feed_id, period_start, period_end,
                               events, quantity, first_at, first_name, last_at, last_name)
    select * from unnest(
        cast(:organization_ids as text[]), cast(:feed_ids as int[]), cast(:starts as timestamptz[]),
        cast(:ends as timestamptz[]), {_AGGREGATES}
    )
    on conflict (organization_id, feed_id, period_start, period_end) {_SET_AGGREGATE}
    """  # noqa: S608 - constants of this file
)
_PERIOD_KEYS: Final = """
    unnest(cast(:organization_ids as text[]), cast(:feed_ids as int[]), cast(:starts as timestamptz[]),
           cast(:ends as timestamptz[])) as k(organization_id, feed_id, period_start, period_end)
"""
_PERIODS: Final[TextClause] = text(
    f"select p.* from {_PERIOD_KEYS}"  # noqa: S608 - a constant of this file
    " join event_periods as p using (organization_id, feed_id, period_start, period_end)"
)
_DELETE_PERIODS: Final[TextClause] = text(
    f"delete from event_periods as p using {_PERIOD_KEYS}"  # noqa: S608 - a constant of this file
    " where p.organization_id = k.organization_id and p.feed_id = k.feed_id"
    " and p.period_start = k.period_start and p.period_end = k.period_end"
)
_SEEN: Final[TextClause] = text(
    """
    select k.position,
           exists (select from event_values as v
                   where v.feed_id = k.feed_id and v.organization_id = k.organization_id
                     and v.grouping = k.grouping_hash and v.value = k.value
                     and v.window_start = k.window_start) as in_window,
           k.period_start is not null and exists (
                   select from event_values as v
                   where v.feed_id = k.feed_id and v.organization_id = k.organization_id
                     and v.grouping = k.grouping_hash and v.value = k.value
                     and v.window_start >= k.period_start and v.window_start < k.period_end
           ) as in_period
    from unnest(
        cast(:feed_ids as int[]), cast(:organization_ids as text[]), cast(:groupings as bytea[]),
        cast(:values as bytea[]), cast(:starts as timestamptz[]), cast(:period_starts as timestamptz[]),
        cast(:period_ends as timestamptz[])
    ) with ordinality
        as k(feed_id, organization_id, grouping_hash, value, window_start, period_start, period_end, position)
    """
)
_SAVE_VALUES: Final[TextClause] = text(
    """
    insert into event_values (feed_id, organization_id, grouping, value, window_start)
    select * from unnest(
        cast(:feed_ids as int[]), cast(:organization_ids as text[]), cast(:groupings as bytea[]),
        cast(:values as bytea[]), cast(:starts as timestamptz[])
    )
    """
)
_DISTINCT: Final[TextClause] = text(
    """
    select s.position, b.bucket, count(distinct v.value) as different
    from event_values as v
    join unnest(cast(:groupings as bytea[]), cast(:buckets as text[])) as b(grouping_hash, bucket)
      on v.grouping = b.grouping_hash
    join unnest(cast(:starts as timestamptz[]), cast(:ends as timestamptz[]))
         with ordinality as s(span_start, span_end, position)
      on v.window_start >= s.span_start and v.window_start < s.span_end
    where v.feed_id = :feed_id and v.organization_id = :organization_id
    group by s.position, b.bucket
    """
)


class PostgresEventAggregates:
    """The part of `EventTransaction` that knows what events come to."""

    _connection: AsyncConnection

    # -- windows ---------------------------------------------------------------------------------------------------

    async def event_windows(self, keys: Collection[EventWindowKey]) -> dict[EventWindowKey, Aggregate]:
        if not keys:
            return {}
        rows = await self._connection.execute(_WINDOWS, _window_keys(list(keys)))
        return dict(_window(row) for row in rows)

    async def event_windows_between(
        self, feed_id: int, organization_id: str, start: datetime, end: datetime, *, limit: int
    ) -> list[tuple[EventWindowKey, Aggregate]]:
        query = select(event_windows).where(
            event_windows.c.feed_id == feed_id,
            event_windows.c.organization_id == organization_id,
            event_windows.c.window_start >= start,
            event_windows.c.window_start < end,
        )
        ordered = query.order_by(event_windows.c.window_start, event_windows.c.grouping).limit(limit)
        return [_window(row) for row in await self._connection.execute(ordered)]

    async def whole_windows(
        self, feed_id: int, organization_id: str, *, start: datetime | None = None, end: datetime | None = None
    ) -> list[tuple[datetime, Aggregate]]:
        query = select(event_windows).where(
            event_windows.c.feed_id == feed_id,
            event_windows.c.organization_id == organization_id,
            event_windows.c.grouping == _WHOLE,
        )
        if start is not None:
            query = query.where(event_windows.c.window_start >= start)
        if end is not None:
            query = query.where(event_windows.c.window_start < end)
        rows = await self._connection.execute(query.order_by(event_windows.c.window_start))
        return [(row.window_start, _aggregate(row)) for row in rows]

    async def save_event_windows(self, windows: Mapping[EventWindowKey, Aggregate]) -> None:
        if windows:
            keys = list(windows)
            dimensions = [json.dumps(list(key.group) if key.group is not None else None) for key in keys]
            parameters = {**_window_keys(keys), "dimensions": dimensions, **_aggregates(list(windows.values()))}
            await self._connection.execute(_SAVE_WINDOWS, parameters)

    # -- periods ---------------------------------------------------------------------------------------------------

    async def replace_hour(
        self, whole: EventWindowKey, windows: Mapping[EventWindowKey, Aggregate], values: Collection[SeenValue]
    ) -> None:
        for table in (event_windows, event_values):
            await self._connection.execute(
                delete(table).where(
                    table.c.feed_id == whole.feed_id,
                    table.c.organization_id == whole.organization_id,
                    table.c.window_start == whole.start,
                )
            )
        await self.save_event_windows(windows)
        await self.save_values(values)

    async def event_periods(self, keys: Collection[EventPeriodKey]) -> dict[EventPeriodKey, Aggregate]:
        if not keys:
            return {}
        return dict(_period(row) for row in await self._connection.execute(_PERIODS, _period_keys(list(keys))))

    async def event_periods_of(self, organization_id: str) -> dict[EventPeriodKey, Aggregate]:
        rows = await self._connection.execute(
            select(event_periods).where(event_periods.c.organization_id == organization_id)
        )
        return dict(_period(row) for row in rows)

    async def save_event_periods(self, periods: Mapping[EventPeriodKey, Aggregate]) -> None:
        if periods:
            parameters = {**_period_keys(list(periods)), **_aggregates(list(periods.values()))}
            await self._connection.execute(_SAVE_PERIODS, parameters)

    async def delete_event_periods(self, keys: Collection[EventPeriodKey]) -> None:
        if keys:
            await self._connection.execute(_DELETE_PERIODS, _period_keys(list(keys)))

    # -- distinct values -------------------------------------------------------------------------------------------

    async def seen_values(
        self, periods: Mapping[SeenValue, EventPeriodKey | None]
    ) -> tuple[set[SeenValue], set[tuple[EventPeriodKey, bytes]]]:
        asked = list(periods.items())
        parameters = {
            **_values([value for value, _ in asked]),
            "period_starts": [period.period.start if period else None for _, period in asked],
            "period_ends": [period.period.end if period else None for _, period in asked],
        }
        in_window: set[SeenValue] = set()
        in_period: set[tuple[EventPeriodKey, bytes]] = set()
        for row in await self._connection.execute(_SEEN, parameters):
            value, period = asked[row.position - 1]
            if row.in_window:
                in_window.add(value)
            if row.in_period and period is not None:
                in_period.add((period, value.value))
        return in_window, in_period

    async def save_values(self, values: Collection[SeenValue]) -> None:
        if values:
            await self._connection.execute(_SAVE_VALUES, _values(list(values)))

    async def distinct_values(
        self,
        feed_id: int,
        organization_id: str,
        spans: Sequence[tuple[datetime, datetime]],
        buckets: Mapping[Group | None, str],
    ) -> dict[tuple[int, str], int]:
        rows = await self._connection.execute(
            _DISTINCT,
            {
                "feed_id": feed_id,
                "organization_id": organization_id,
                "starts": [start for start, _ in spans],
                "ends": [end for _, end in spans],
                "groupings": [_grouping(group) for group in buckets],
                "buckets": list(buckets.values()),
            },
        )
        return {(row.position - 1, row.bucket): row.different for row in rows}


def _grouping(group: Group | None) -> bytes:
    """The key of a group: a hash, since five long dimensions do not fit an index."""
    if group is None:
        return _WHOLE
    return hashlib.blake2b(json.dumps(group).encode(), digest_size=_GROUPING_BYTES).digest()


def _window_keys(keys: Sequence[EventWindowKey]) -> dict[str, Any]:
    return {
        "feed_ids": [key.feed_id for key in keys],
        "organization_ids": [key.organization_id for key in keys],
        "starts": [key.start for key in keys],
        "groupings": [_grouping(key.group) for key in keys],
    }


def _period_keys(keys: Sequence[EventPeriodKey]) -> dict[str, Any]:
    return {
        "organization_ids": [key.organization_id for key in keys],
        "feed_ids": [key.feed_id for key in keys],
        "starts": [key.period.start for key in keys],
        "ends": [key.period.end for key in keys],
    }


def _values(values: Sequence[SeenValue]) -> dict[str, Any]:
    return {
        "feed_ids": [value.feed_id for value in values],
        "organization_ids": [value.organization_id for value in values],
        "groupings": [_grouping(value.group) for value in values],
        "values": [value.value for value in values],
        "starts": [value.start for value in values],
    }


def _aggregates(aggregates: Sequence[Aggregate]) -> dict[str, Any]:
    return {
        "events": [held.events for held in aggregates],
        "quantities": [Decimal(held.quantity) for held in aggregates],
        "first_ats": [held.first.at for held in aggregates],
        "first_names": [held.first.name for held in aggregates],
        "last_ats": [held.last.at for held in aggregates],
        "last_names": [held.last.name for held in aggregates],
    }


def _aggregate(row: Row[Any]) -> Aggregate:
    return Aggregate(
        events=row.events,
        quantity=int(row.quantity),
        first=Moment(row.first_at, row.first_name),
        last=Moment(row.last_at, row.last_name),
    )


def _window(row: Row[Any]) -> tuple[EventWindowKey, Aggregate]:
    dimensions = json.loads(row.dimensions) if isinstance(row.dimensions, str) else row.dimensions
    group = None if dimensions is None else tuple(dimensions)
    return EventWindowKey(row.feed_id, row.organization_id, row.window_start, group), _aggregate(row)


def _period(row: Row[Any]) -> tuple[EventPeriodKey, Aggregate]:
    key = EventPeriodKey(row.feed_id, row.organization_id, BillingPeriod(row.period_start, row.period_end))
    return key, _aggregate(row)
