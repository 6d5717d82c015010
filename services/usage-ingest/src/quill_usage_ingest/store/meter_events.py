"""Meter events in Postgres: names, events, feeds and recounts. What events add up to is in `event_aggregates`."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from quill_runtime.database import Transaction
from sqlalchemy import Row, TextClause, delete, func, select, text, tuple_, update
from sqlalchemy.dialects.postgresql import insert

from quill_usage_ingest.domain.event_book import Feed
from quill_usage_ingest.domain.event_meter import EventMeter
from quill_usage_ingest.domain.meter_event import Moment
from quill_usage_ingest.ports import ArrivedEvent, EventRecount, KeptEvent
from quill_usage_ingest.store.event_aggregates import PostgresEventAggregates
from quill_usage_ingest.store.event_tables import event_feeds, event_names, event_recounts, meter_events
from quill_usage_ingest.store.meter_recounts import PostgresMeterRecounts
from quill_usage_ingest.usecases.recount_events import BEFORE_ALL
from quill_usage_ingest.wire.meter_events import from_wire_event, on_account

# Sorted, so that two batches never wait for each other's names.
_CLAIM: Final[TextClause] = text(
    """
    insert into event_names (name, content)
    select k.name, k.content from unnest(cast(:names as bytea[]), cast(:contents as bytea[])) as k(name, content)
    order by k.name
    on conflict (name) do nothing
    returning name
    """
)
_KEEP: Final[TextClause] = text(
    """
    insert into meter_events (organization_id, window_start, event_time, name, event_type, received_at, intake, topic,
                              partition, "offset", body)
    select k.organization_id, k.window_start, k.event_time, k.name, k.event_type, cast(:received_at as timestamptz),
           k.intake, k.topic, k.partition, k.log_offset, k.body
    from unnest(
        cast(:organization_ids as text[]), cast(:starts as timestamptz[]), cast(:times as timestamptz[]),
        cast(:names as bytea[]), cast(:types as text[]), cast(:intakes as text[]), cast(:topics as text[]),
        cast(:partitions as int[]), cast(:offsets as bigint[]), cast(:bodies as bytea[])
    ) as k(organization_id, window_start, event_time, name, event_type, intake, topic, partition, log_offset, body)
    """
)
_TYPES: Final[TextClause] = text(
    """
    insert into event_types (event_type, organization_id)
    select k.event_type, k.organization_id
    from unnest(cast(:types as text[]), cast(:organization_ids as text[])) as k(event_type, organization_id)
    order by 1, 2
    on conflict do nothing
    """
)
_BEGIN_RECOUNTS: Final[TextClause] = text(
    """
    insert into event_recounts (organization_id, feed_id, reached_at, reached_name)
    select t.organization_id, :feed_id, :reached_at, :reached_name
    from event_types as t where t.event_type = :event_type
    """
)


class PostgresEvents(PostgresEventAggregates, PostgresMeterRecounts):
    """`EventTransaction` on one open transaction."""

    def __init__(self, transaction: Transaction) -> None:
        self._connection = transaction.connection

    # -- feeds -----------------------------------------------------------------------------------------------------

    async def feeds(self) -> list[Feed]:
        rows = await self._connection.execute(
            select(event_feeds.c.feed_id, event_feeds.c.definition)
            .where(event_feeds.c.is_retired.is_(False))
            .order_by(event_feeds.c.feed_id)
        )
        return [Feed(row.feed_id, EventMeter.from_document(row.definition)) for row in rows]

    async def add_feed(self, meter: EventMeter) -> Feed:
        feed_id = await self._connection.scalar(
            insert(event_feeds)
            .values(usage_key=meter.usage_key, fingerprint=meter.fingerprint, definition=meter.document())
            .returning(event_feeds.c.feed_id)
        )
        if feed_id is None:
            raise AssertionError("an inserted row has a number")
        return Feed(feed_id, meter)

    async def retire_feed(self, feed_id: int) -> None:
        await self._connection.execute(
            update(event_feeds).where(event_feeds.c.feed_id == feed_id).values(is_retired=True)
        )
        await self._connection.execute(delete(event_recounts).where(event_recounts.c.feed_id == feed_id))

    # -- recounts --------------------------------------------------------------------------------------------------

    async def begin_recounts(self, feed: Feed) -> int:
        result = await self._connection.execute(
            _BEGIN_RECOUNTS,
            {
                "feed_id": feed.feed_id,
                "event_type": feed.meter.event_type,
                "reached_at": BEFORE_ALL.at,
                "reached_name": BEFORE_ALL.name,
            },
        )
        return result.rowcount

    async def recounts(self, organization_ids: Collection[str]) -> dict[tuple[str, int], Moment]:
        rows = await self._connection.execute(
            select(event_recounts).where(event_recounts.c.organization_id == func.any(sorted(organization_ids)))
        )
        return {(row.organization_id, row.feed_id): Moment(row.reached_at, row.reached_name) for row in rows}

    async def next_recount(self) -> EventRecount | None:
        row = (
            await self._connection.execute(
                select(event_recounts).order_by(event_recounts.c.organization_id, event_recounts.c.feed_id).limit(1)
            )
        ).one_or_none()
        if row is None:
            return None
        return EventRecount(row.organization_id, row.feed_id, Moment(row.reached_at, row.reached_name))

    async def save_recount(self, recount: EventRecount) -> None:
        await self._connection.execute(
            update(event_recounts)
            .where(*_is(recount))
            .values(reached_at=recount.reached.at, reached_name=recount.reached.name)
        )

    async def finish_recount(self, recount: EventRecount) -> None:
        await self._connection.execute(delete(event_recounts).where(*_is(recount)))

    # -- names -----------------------------------------------------------------------------------------------------

    async def claim_names(self, contents: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
        if not contents:
            return {}
        rows = await self._connection.execute(
            _CLAIM, {"names": list(contents.keys()), "contents": list(contents.values())}
        )
        taken = contents.keys() - {row.name for row in rows}
        return await self.contents(taken)

    async def release_names(self, names: Collection[bytes]) -> None:
        if names:
            await self._connection.execute(delete(event_names).where(event_names.c.name == func.any(list(names))))

    async def contents(self, names: Collection[bytes]) -> dict[bytes, bytes]:
        if not names:
            return {}
        rows = await self._connection.execute(
            select(event_names.c.name, event_names.c.content).where(event_names.c.name == func.any(list(names)))
        )
        return {row.name: row.content for row in rows}

    # -- events ----------------------------------------------------------------------------------------------------

    async def keep_events(self, arrived: Sequence[ArrivedEvent], *, now: datetime) -> None:
        if not arrived:
            return
        events, arrivals = [item.event for item in arrived], [item.arrival for item in arrived]
        parameters = {
            "organization_ids": [event.organization_id for event in events],
            "starts": [event.window_start for event in events],
            "times": [event.time for event in events],
            "names": [event.name for event in events],
            "types": [event.event_type for event in events],
            "intakes": [arrival.intake for arrival in arrivals],
            "topics": [arrival.topic for arrival in arrivals],
            "partitions": [arrival.partition for arrival in arrivals],
            "offsets": [arrival.offset for arrival in arrivals],
            "bodies": [arrival.body for arrival in arrivals],
            "received_at": now,
        }
        await self._connection.execute(_KEEP, parameters)
        seen = sorted({(event.event_type, event.organization_id) for event in events})
        await self._connection.execute(
            _TYPES, {"types": [each for each, _ in seen], "organization_ids": [each for _, each in seen]}
        )

    async def kept_events(
        self,
        organization_id: str,
        start: datetime,
        end: datetime,
        *,
        event_type: str | None = None,
        after: Moment | None = None,
        limit: int,
    ) -> list[KeptEvent]:
        moment = tuple_(meter_events.c.event_time, meter_events.c.name)
        query = select(meter_events).where(
            meter_events.c.organization_id == organization_id,
            meter_events.c.event_time >= start,
            meter_events.c.event_time < end,
            # The hours of these events: they say which months' partitions take part.
            meter_events.c.window_start >= start.replace(minute=0, second=0, microsecond=0),
            meter_events.c.window_start < end,
        )
        if event_type is not None:
            query = query.where(meter_events.c.event_type == event_type)
        if after is not None:
            query = query.where(moment > tuple_(after.at, after.name))
        ordered = query.order_by(meter_events.c.event_time, meter_events.c.name).limit(limit)
        return [_kept(row) for row in await self._connection.execute(ordered)]

    async def events_at(self, organization_id: str, moments: Collection[Moment]) -> dict[Moment, KeptEvent]:
        if not moments:
            return {}
        rows = await self._connection.execute(select(meter_events).where(*_at(organization_id, moments)))
        found = [_kept(row) for row in rows]
        return {kept.event.moment: kept for kept in found}

    async def set_voided(
        self, organization_id: str, moments: Collection[Moment], *, voided_at: datetime | None
    ) -> None:
        if moments:
            await self._connection.execute(
                update(meter_events).where(*_at(organization_id, moments)).values(voided_at=voided_at)
            )

    async def count_events(self, organization_id: str, event_type: str, start: datetime, end: datetime) -> int:
        found = await self._connection.scalar(
            select(func.count())
            .select_from(meter_events)
            .where(
                meter_events.c.organization_id == organization_id,
                meter_events.c.event_type == event_type,
                meter_events.c.window_start >= start,
                meter_events.c.window_start < end,
                meter_events.c.voided_at.is_(None),
            )
        )
        return found or 0


def _at(organization_id: str, moments: Collection[Moment]) -> tuple[Any, Any]:
    keys = [(moment.at.replace(minute=0, second=0, microsecond=0), moment.at, moment.name) for moment in moments]
    return (
        meter_events.c.organization_id == organization_id,
        tuple_(meter_events.c.window_start, meter_events.c.event_time, meter_events.c.name).in_(keys),
    )


def _is(recount: EventRecount) -> tuple[Any, Any]:
    return (
        event_recounts.c.organization_id == recount.organization_id,
        event_recounts.c.feed_id == recount.feed_id,
    )


def _kept(row: Row[Any]) -> KeptEvent:
    event = from_wire_event(row.body)
    if event.organization_id != row.organization_id:
        event = on_account(event, row.organization_id)
    return KeptEvent(event, row.received_at, row.intake, row.topic, row.partition, row.offset, row.body, row.voided_at)
