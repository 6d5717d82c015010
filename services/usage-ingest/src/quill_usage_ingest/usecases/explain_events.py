"""Why an event meter has its number: made again from the kept events, hour by hour and group by group (L5)."""

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime
from typing import Final

from quill_pricing.period import BillingPeriod

from quill_usage_ingest.domain.event_aggregate import combined
from quill_usage_ingest.domain.event_book import EventBook, EventPeriodKey, Feed, Feeding
from quill_usage_ingest.domain.event_meter import Aggregation, EventMeter, UnfitEvent
from quill_usage_ingest.domain.explained_events import EventExplanation
from quill_usage_ingest.domain.meter_event import HOUR
from quill_usage_ingest.domain.organization import Organization
from quill_usage_ingest.domain.period_usage import NOTHING_USED
from quill_usage_ingest.ports import EventTransaction, KeptEvent

EVENTS_MAX: Final = 20_000
"""Kept events that one explanation counts again; of more it puts the stored hours together."""
WINDOWS_MAX: Final = 20_000
"""Stored hours and groups that one explanation shows."""


class TooManyEvents(Exception):
    """More events or groups than one answer can weigh."""


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
        TooManyEvents: so many hours and groups that they cannot be shown; or so many events, and ``at`` asks what was
            known of them.
    """
    organization_id = organization.organization_id
    feed = next((each for each in await events.feeds() if each.meter == meter), None)
    if feed is None:
        raise AssertionError("a meter of the catalog is at work since the catalog has it")
    # Windows that start in the period: whole hours from its first one on.
    start, end = _first_hour(period.start), _first_hour(period.end)
    kept = await events.kept_events(organization_id, start, end, event_type=meter.event_type, limit=EVENTS_MAX + 1)
    key = EventPeriodKey(feed.feed_id, organization_id, period)
    is_recounting = (organization_id, feed.feed_id) in await events.recounts({organization_id})
    stored = (await events.event_periods({key})).get(key)
    if len(kept) > EVENTS_MAX:
        if at is not None:
            raise TooManyEvents(f"{meter.usage_key}: more than {EVENTS_MAX} events lie in the period; ask without at")
        explained = await _from_windows(organization, period, feed, events)
        return replace(explained, stored=stored, is_recounting=is_recounting)
    book, left_out = _counted(organization, feed, [each for each in kept if each.counts])
    known_at = None
    if at is not None:
        known = [each for each in kept if each.received_at <= at and (each.voided_at is None or each.voided_at > at)]
        then, _ = _counted(organization, feed, known)
        known_at = then.periods[key].usage if key in then.periods else NOTHING_USED
    windows = sorted(book.windows.items(), key=lambda item: (item[0].start, repr(item[0].group)))
    edges = {moment for _, aggregate in windows for moment in (aggregate.first, aggregate.last)}
    return EventExplanation(
        organization=organization,
        period=period,
        meter=meter,
        windows=windows,
        total=book.periods.get(key),
        stored=stored,
        left_out=left_out,
        known_at=known_at,
        is_recounting=is_recounting,
        is_from_events=True,
        named={each.event.moment: each.event for each in kept if each.event.moment in edges},
        voided=sum(not each.counts for each in kept),
    )


async def _from_windows(
    organization: Organization, period: BillingPeriod, feed: Feed, events: EventTransaction
) -> EventExplanation:
    """Put the stored hours together: more events than are counted again for one question."""
    organization_id, meter = organization.organization_id, feed.meter
    windows = await events.event_windows_between(
        feed.feed_id, organization_id, period.start, period.end, limit=WINDOWS_MAX + 1
    )
    if len(windows) > WINDOWS_MAX:
        raise TooManyEvents(
            f"{meter.usage_key}: more than {WINDOWS_MAX} hours and groups lie in the period; ask for a series instead"
        )
    windows = [(key, aggregate) for key, aggregate in windows if aggregate.events]
    distinct = 0
    if meter.aggregation is Aggregation.UNIQUE_COUNT:
        spans = [(period.start, period.end)]
        distinct = (await events.distinct_values(feed.feed_id, organization_id, spans, {None: ""})).get((0, ""), 0)
    wholes = [aggregate for key, aggregate in windows if key.group is None]
    total = combined(meter.aggregation, wholes, distinct=distinct)
    start = max(_first_hour(period.start), meter.counts_from or period.start)
    kept = await events.count_events(organization_id, meter.event_type, start, period.end)
    edges = {moment for _, aggregate in windows for moment in (aggregate.first, aggregate.last)}
    named = await events.events_at(organization_id, edges)
    return EventExplanation(
        organization=organization,
        period=period,
        meter=meter,
        windows=windows,
        total=total,
        stored=None,
        left_out=kept - (total.events if total else 0),
        known_at=None,
        is_recounting=False,
        is_from_events=False,
        named={moment: each.event for moment, each in named.items()},
    )


def _counted(organization: Organization, feed: Feed, kept: Iterable[KeptEvent]) -> tuple[EventBook, int]:
    """An empty book with these events entered, and how many did not fit."""
    book = EventBook({organization.organization_id: organization.schedules})
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
