"""Take single meter events out of count and back in: their hours are made again from what still counts (L3)."""

from collections.abc import Collection
from datetime import datetime
from typing import Final

from quill_usage_ingest.domain.correction import CorrectionOrder, InvalidCorrection
from quill_usage_ingest.domain.correction_effects import EventUsage
from quill_usage_ingest.domain.event_aggregate import nothing_at
from quill_usage_ingest.domain.event_book import EventBook, EventWindowKey, Feed, measured
from quill_usage_ingest.domain.meter_event import HOUR, MeterEvent, Moment
from quill_usage_ingest.domain.organization import Organization
from quill_usage_ingest.ports import EventTransaction, UsageTransaction
from quill_usage_ingest.usecases.recompute_events import recompute_events

EVENTS_AN_HOUR_MAX: Final = 50_000
"""Kept events of one type and hour that are counted again in one transaction."""


async def set_events_voided(
    order: CorrectionOrder,
    moments: Collection[Moment],
    organization: Organization,
    *,
    voided_at: datetime | None,
    tx: UsageTransaction,
    events: EventTransaction,
) -> None:
    """Void some of the events that the order names, or let them count again; their names stay taken (L4).

    Raises:
        InvalidCorrection: an event is not kept, its hour has too many to be counted again, or a meter of its type is
            being counted anew; nothing may be committed.
    """
    organization_id = order.organization_id
    kept = await events.events_at(organization_id, order.moments)
    for position, moment in enumerate(order.moments):
        if moment not in kept:
            attribute = f"events__{position}"
            detail = (
                f"{attribute}: no event of this source, id and time is kept for this organization; take all three from"
                " its events"
            )
            raise InvalidCorrection("unknown_event", detail, attribute)
    hours = {(kept[moment].event.event_type, kept[moment].event.window_start) for moment in moments}
    feeds = await _feeds_of({event_type for event_type, _ in hours}, organization_id, events)
    await events.set_voided(organization_id, moments, voided_at=voided_at)
    for event_type, start in sorted(hours):
        concerned = [feed for feed in feeds if feed.meter.event_type == event_type]
        counting = await _counting(organization_id, event_type, start, events) if concerned else []
        for feed in concerned:
            await _make_hour_again(feed, organization, start, counting, events)
    await recompute_events(organization_id, tx=tx, events=events)


async def usage_of_event_meters(organization_id: str, events: EventTransaction) -> EventUsage:
    """Usage by period and meter, of meters whose number is whole."""
    recounting = await events.recounts({organization_id})
    meters = {
        feed.feed_id: feed.meter.usage_key
        for feed in await events.feeds()
        if (organization_id, feed.feed_id) not in recounting
    }
    held = await events.event_periods_of(organization_id)
    return {(key.period, meters[key.feed_id]): usage.usage for key, usage in held.items() if key.feed_id in meters}


async def _feeds_of(event_types: Collection[str], organization_id: str, events: EventTransaction) -> list[Feed]:
    """The meters of these types. While one is counted anew its last whole number is published, and would stand (L3)."""
    recounting = await events.recounts({organization_id})
    feeds = [feed for feed in await events.feeds() if feed.meter.event_type in event_types]
    for feed in feeds:
        if (organization_id, feed.feed_id) in recounting:
            detail = f"events: {feed.meter.usage_key} is being counted anew for this organization; try again in a while"
            raise InvalidCorrection("being_counted_anew", detail, "events")
    return feeds


async def _counting(
    organization_id: str, event_type: str, start: datetime, events: EventTransaction
) -> list[MeterEvent]:
    kept = await events.kept_events(
        organization_id, start, start + HOUR, event_type=event_type, limit=EVENTS_AN_HOUR_MAX + 1
    )
    if len(kept) > EVENTS_AN_HOUR_MAX:
        detail = (
            f"events: more than {EVENTS_AN_HOUR_MAX:,} events of type {event_type} lie in the hour of"
            f" {start.isoformat()}; send one that makes up for it instead"
        )
        raise InvalidCorrection("hour_too_large", detail, "events")
    return [each.event for each in kept if each.counts]


async def _make_hour_again(
    feed: Feed, organization: Organization, start: datetime, counting: Collection[MeterEvent], events: EventTransaction
) -> None:
    organization_id = organization.organization_id
    book = EventBook({organization_id: organization.schedules})
    for event in counting:
        book.enter(event, measured(feed, event))
    whole = EventWindowKey(feed.feed_id, organization_id, start, None)
    windows = dict(book.windows)
    if whole not in windows:
        if not await events.event_windows([whole]):
            return  # Nothing of this hour ever counted for the meter.
        windows[whole] = nothing_at(start)
    await events.replace_hour(whole, windows, book.new_values)
