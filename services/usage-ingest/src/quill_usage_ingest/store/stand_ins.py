"""What stays published of a meter while it is counted anew: the last whole number, until the new one is whole (L7, L9).

A meter that were missing meanwhile would look unused to every reader, and release limits without a fact. A number half
counted would be worse. So the number of before stands in, kept at the moment the catalog changes and shown for as long
as the recount of its organization waits. Nothing ends it but that: there is no second state that could disagree.
"""
# ruff: noqa: S608 - what is put together here are conditions written in this module

from collections.abc import Collection
from datetime import datetime
from typing import Any, Final

from quill_runtime.database import Transaction
from sqlalchemy import TextClause, text

from quill_usage_ingest.domain.dated_counters import dated_name
from quill_usage_ingest.domain.meters import MeterMap
from quill_usage_ingest.domain.team_usage import TOTAL_MAX
from quill_usage_ingest.ports import SNAPSHOT_PERIODS, EventTransaction
from quill_usage_ingest.store.counter_slots import CounterSlots
from quill_usage_ingest.store.short_vectors import maximum_in, partial_in
from quill_usage_ingest.wire.snapshots import NEVER_REPORTED

AWAITED: Final = """(
    exists (select from event_recounts as r
            join event_feeds as f on f.feed_id = r.feed_id and not f.is_retired
            where r.organization_id = s.organization_id and f.usage_key = s.usage_key)
    or s.usage_key = any(cast(:dated_meters as text[]))
       and exists (select from counter_recounts as c where s.organization_id > c.after_organization_id)
)"""
"""Whether something still waits to be counted anew for the row ``s`` of ``usage_stand_ins``."""

_DROP: Final[TextClause] = text(f"delete from usage_stand_ins as s where not {AWAITED}")

_STRADDLED: Final = """(
    cast(:straddled as timestamptz) is null
    or (p.period_start < cast(:straddled as timestamptz) and cast(:straddled as timestamptz) < p.period_end)
)"""

_COUNTED: Final[TextClause] = text(
    f"""
    insert into usage_stand_ins (organization_id, usage_key, period_start, period_end, complete, partial, maximum)
    select o.organization_id, :usage_key, p.period_start, p.period_end,
           p.complete[p.slot + 1], {partial_in("p", "p.slot")}, {maximum_in("p", "p.slot")}
    from organizations as o
    cross join lateral (
        select held.*, case when coalesce(cast(:counts_from as timestamptz), held.period_start) <= held.period_start
                            then cast(:whole as int)
                            when cast(:counts_from as timestamptz) < held.period_end
                            then cast(:dated as int) end as slot
        from period_usage as held
        where held.organization_id = o.organization_id and held.is_in_force
        order by held.period_start desc
        limit :newest
    ) as p
    where {_STRADDLED} and {maximum_in("p", "p.slot")} <> :never_reported
    on conflict do nothing
    """
)
_FROM_EVENTS: Final[TextClause] = text(
    f"""
    insert into usage_stand_ins (organization_id, usage_key, period_start, period_end, complete, partial, maximum)
    select p.organization_id, :usage_key, p.period_start, p.period_end, least(p.quantity, :total_max), 0,
           least(p.quantity, :total_max)
    from event_periods as p
    where p.feed_id = :feed_id and {_STRADDLED}
      and not exists (select from event_recounts as r
                      where r.organization_id = p.organization_id and r.feed_id = p.feed_id)
    on conflict do nothing
    """
)
_PUBLISH_FREED: Final[TextClause] = text(
    """
    update organizations as o set usage_revision = o.usage_revision + 1, is_publication_due = true
    where o.organization_id in (
        select s.organization_id from usage_stand_ins as s
        where s.usage_key = any(cast(:dated_meters as text[]))
          and s.organization_id > :after and (cast(:through as text) is null or s.organization_id <= :through)
    )
    """
)


class StandIns:
    """The numbers that stand in, on one open transaction."""

    def __init__(self, transaction: Transaction, slots: CounterSlots) -> None:
        self._connection = transaction.connection
        self._slots = slots.of(transaction)

    async def keep(self, before: MeterMap, after: MeterMap, *, events: EventTransaction) -> None:
        """Keep what is published now of the meters that ``after`` has counted anew.

        To be called under the catalog's lock, before recounts begin. A number that stands in already goes on to: its
        meter has no whole one of its own.
        """
        await self.drop(before)
        feeds = {feed.meter: feed.feed_id for feed in await events.feeds()}
        for usage_key in sorted(after.recounted_since(before)):
            # In other periods a dated counter is whole at once; only the one around the date has to be added up.
            given: dict[str, Any] = {"usage_key": usage_key, "straddled": after.counts_from.get(usage_key)}
            counter, meter = before.counter_by_meter.get(usage_key), before.event_meters.get(usage_key)
            if counter is not None:
                await self._keep_counted(counter, before.counts_from.get(usage_key), given)
            elif meter in feeds:
                given |= {"feed_id": feeds[meter], "total_max": TOTAL_MAX}
                await self._connection.execute(_FROM_EVENTS, given)

    async def _keep_counted(self, counter: str, counts_from: datetime | None, given: dict[str, Any]) -> None:
        name = dated_name(counter, counts_from) if counts_from else counter
        places = await self._slots.places({counter, name})
        given |= {
            "counts_from": counts_from,
            "whole": places.get(counter),
            "dated": places.get(name),
            "newest": SNAPSHOT_PERIODS,
            "never_reported": NEVER_REPORTED,
        }
        await self._connection.execute(_COUNTED, given)

    async def drop(self, meters: MeterMap) -> None:
        """Remove what nothing waits for any more."""
        await self._connection.execute(_DROP, {"dated_meters": sorted(meters.counts_from)})

    async def publish_freed(self, dated_meters: Collection[str], *, after: str, through: str | None) -> None:
        """Make organizations due whose counters were just added up, in case the sums moved nothing else."""
        parameters = {"dated_meters": sorted(dated_meters), "after": after, "through": through}
        await self._connection.execute(_PUBLISH_FREED, parameters)
