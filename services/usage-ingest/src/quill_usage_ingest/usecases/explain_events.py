"""Why an event meter has its number: made again from the kept events alone, hour by hour and group by group (L5)."""

from collections.abc import Iterable
from datetime import datetime
from typing import Final

from quill_pricing.period import BillingPeriod

from quill_usage_ingest.domain.event_book import EventBook, EventPeriodKey, Feed, Feeding
from quill_usage_ingest.domain.event_meter import EventMeter, UnfitEvent
from quill_usage_ingest.domain.explained_events import EventExplanation
from quill_usage_ingest.domain.meter_event import HOUR
from quill_usage_ingest.domain.organization import Organization
from quill_usage_ingest.domain.period_usage import NOTHING_USED
from quill_usage_ingest.ports import EventTransaction, KeptEvent

EVENTS_MAX: Final = 20_000
"""Kept events that one explanation may be made of."""


class TooManyEvents(Exception):
    """More events than one answer can weigh."""


async def explain_events(
    organization: Organization,
    period: BillingPeriod,
    meter: EventMeter,
    *,
    events: EventTransaction,
    at: datetime | None = None,
) -> EventExplanation:
    """Count the kept events of the period again, apart from what is stored.

    Raises:
        TooManyEvents: more than `EVENTS_MAX` lie in the period.
    """
    organization_id = organization.organization_id
    feed = next((each for each in await events.feeds() if each.meter == meter), None)
    if feed is None:
        raise AssertionError("a meter of the catalog is at work since the catalog has it")
    # Windows that start in the period: whole hours from its first one on.
    start, end = _first_hour(period.start), _first_hour(period.end)
    kept = await events.kept_events(organization_id, start, end, event_type=meter.event_type, limit=EVENTS_MAX + 1)
    if len(kept) > EVENTS_MAX:
        raise TooManyEvents(f"more than {EVENTS_MAX} events lie in the period; page through /v1/meter-events instead")
    book, left_out = _counted(organization, feed, kept)
    key = EventPeriodKey(feed.feed_id, organization_id, period)
    known_at = None
    if at is not None:
        then, _ = _counted(organization, feed, [each for each in kept if each.received_at <= at])
        known_at = then.periods[key].usage if key in then.periods else NOTHING_USED
    windows = sorted(book.windows.items(), key=lambda item: (item[0].start, repr(item[0].group)))
    edges = {moment for _, aggregate in windows for moment in (aggregate.first, aggregate.last)}
    return EventExplanation(
        organization=organization,
        period=period,
        meter=meter,
        windows=windows,
        total=book.periods.get(key),
        stored=(await events.event_periods({key})).get(key),
        left_out=left_out,
        known_at=known_at,
        is_recounting=(organization_id, feed.feed_id) in await events.recounts({organization_id}),
        named={each.event.moment: each.event for each in kept if each.event.moment in edges},
    )


def _counted(organization: Organization, feed: Feed, kept: Iterable[KeptEvent]) -> tuple[EventBook, int]:
    """An empty book with these events entered, and how many did not fit."""
    book = EventBook({organization.organization_id: organization.schedule})
    left_out = 0
    for each in kept:
        if not feed.meter.takes(each.event):
            continue
        try:
            book.enter(each.event, [Feeding(feed, feed.meter.measure(each.event))])
        except UnfitEvent:
            left_out += 1
    return book, left_out


def _first_hour(instant: datetime) -> datetime:
    """The first whole hour at or after an instant."""
    hour = instant.replace(minute=0, second=0, microsecond=0)
    return hour if hour == instant else hour + HOUR
