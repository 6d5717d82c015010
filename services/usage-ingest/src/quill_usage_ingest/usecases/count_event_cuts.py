"""Keep what events fed before each cut up to date (L12); it follows from the events that count alone."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from datetime import datetime

from quill_pricing.period import BillingPeriod

from quill_usage_ingest.domain.cut_usage import CutKey, cut_keys
from quill_usage_ingest.domain.event_aggregate import Aggregate, aggregate_of, combined, put_together
from quill_usage_ingest.domain.event_book import EventPeriodKey, Feed, SeenValue, measured
from quill_usage_ingest.domain.event_meter import Aggregation
from quill_usage_ingest.domain.meter_event import MeterEvent
from quill_usage_ingest.domain.organization import UsageStanding
from quill_usage_ingest.domain.team_usage import TOTAL_MAX
from quill_usage_ingest.ports import EventTransaction, UsageTransaction
from quill_usage_ingest.usecases.count_cuts import count_missing_cuts

EVENTS_PER_PAGE = 5_000


def cuts_after_events(events: Iterable[MeterEvent], standings: Mapping[str, UsageStanding]) -> set[CutKey]:
    """The cuts of their periods that these events lie before."""
    touched: set[CutKey] = set()
    for event in events:
        standing = standings[event.organization_id]
        if standing.cuts:
            period = standing.schedules.period_containing(event.window_start)
            touched |= {
                CutKey(event.organization_id, period, at)
                for at in standing.cuts
                if event.time < at and period.start < at < period.end
            }
    return touched


async def count_event_cuts_of(
    organization_id: str, standing: UsageStanding, *, tx: UsageTransaction, events: EventTransaction
) -> bool:
    """Count all cuts of an organization; True when a number changed."""
    keys = cut_keys(organization_id, standing.schedules, standing.cuts)
    return bool(await count_event_cuts(keys, tx=tx, events=events))


async def count_event_cuts(keys: Collection[CutKey], *, tx: UsageTransaction, events: EventTransaction) -> set[str]:
    """Count the meters that events feed before these cuts; returns the organizations of which a number changed.

    A meter that is being recounted keeps the number it had until its recount is through.
    """
    if not keys:
        return set()
    await count_missing_cuts(keys, tx=tx)
    stored = await tx.cuts(keys)
    recounting = await events.recounts({key.organization_id for key in keys})
    feeds = await events.feeds()
    changed = {}
    for key, before in stored.items():
        used = dict(before.events)
        for feed in feeds:
            if (key.organization_id, feed.feed_id) in recounting:
                continue
            quantity = await _used_before(key, feed, events)
            if quantity is not None:
                used[feed.meter.usage_key] = min(quantity, TOTAL_MAX)
            else:
                used.pop(feed.meter.usage_key, None)
        if used != before.events:
            changed[key] = replace(before, events=used)
    await tx.save_cuts(changed)
    return {key.organization_id for key in changed}


async def _used_before(key: CutKey, feed: Feed, events: EventTransaction) -> int | None:
    """Whole hours from what is kept of them, the hour that the cut splits from its events; None without any."""
    hour = key.at.replace(minute=0, second=0, microsecond=0)
    if hour < key.period.start:
        return None
    aggregation = feed.meter.aggregation
    whole = await _whole_hours(key, feed, hour, events)
    in_hour = [event for event in await _events_between(key, feed, hour, events) if measured(feed, event)]
    if aggregation is Aggregation.UNIQUE_COUNT:
        new = await _new_values(key, feed, hour, in_hour, events)
        return None if whole is None and not in_hour else (whole.quantity if whole else 0) + new
    for event in in_hour:
        (feeding,) = measured(feed, event)
        whole = put_together(aggregation, whole, aggregate_of(event, feeding.measured))
    return None if whole is None else whole.quantity


async def _whole_hours(key: CutKey, feed: Feed, hour: datetime, events: EventTransaction) -> Aggregate | None:
    start, organization_id = key.period.start, key.organization_id
    windows = await events.whole_windows(feed.feed_id, organization_id, start=start, end=hour)
    distinct: Mapping[tuple[int, str], int] = {}
    if feed.meter.aggregation is Aggregation.UNIQUE_COUNT and windows:
        distinct = await events.distinct_values(feed.feed_id, organization_id, [(start, hour)], {None: ""})
    return combined(feed.meter.aggregation, (held for _, held in windows), distinct=distinct.get((0, ""), 0))


async def _events_between(key: CutKey, feed: Feed, hour: datetime, events: EventTransaction) -> list[MeterEvent]:
    found: list[MeterEvent] = []
    after = None
    while True:
        page = await events.kept_events(
            key.organization_id, hour, key.at, event_type=feed.meter.event_type, after=after, limit=EVENTS_PER_PAGE
        )
        found += [kept.event for kept in page if kept.counts]
        if len(page) < EVENTS_PER_PAGE:
            return found
        after = page[-1].event.moment


async def _new_values(
    key: CutKey, feed: Feed, hour: datetime, in_hour: Iterable[MeterEvent], events: EventTransaction
) -> int:
    """How many different values the split hour brings that the hours before it did not have."""
    values = {feeding.measured.value for event in in_hour for feeding in measured(feed, event)}
    asked = [SeenValue(feed.feed_id, key.organization_id, None, value, hour) for value in values if value is not None]
    if not asked or hour == key.period.start:
        return len(asked)
    earlier = EventPeriodKey(feed.feed_id, key.organization_id, BillingPeriod(key.period.start, hour))
    _, seen = await events.seen_values(dict.fromkeys(asked, earlier))
    return len(asked) - len(seen)
