"""Put the periods of event meters together again from windows: for a changed schedule, and as an audit (L2, L21)."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from operator import attrgetter

from quill_pricing.period import BillingPeriod
from quill_pricing.schedule_history import Schedules

from quill_usage_ingest.domain.event_aggregate import Aggregate, combined
from quill_usage_ingest.domain.event_book import EventPeriodKey, Feed
from quill_usage_ingest.domain.event_meter import Aggregation
from quill_usage_ingest.domain.usage_book import PeriodKey
from quill_usage_ingest.ports import EventTransaction, UsageTransaction
from quill_usage_ingest.usecases.count_event_cuts import count_event_cuts_of
from quill_usage_ingest.usecases.late_usage import publish_late_usage
from quill_usage_ingest.usecases.record_events import touch_periods


async def recompute_events(
    organization_id: str, *, tx: UsageTransaction, events: EventTransaction
) -> tuple[BillingPeriod, ...]:
    """Periods that did not agree with the windows under the schedules kept and now do.

    Usage of events follows from the windows alone, so nothing that was published is lost by it (L3).
    """
    await events.share_meters()
    standing = (await tx.lock_standings({organization_id})).get(organization_id)
    if standing is None:
        return ()
    recounting = await events.recounts({organization_id})
    right: dict[EventPeriodKey, Aggregate] = {}
    feeds = {feed.feed_id: feed for feed in await events.feeds()}
    for feed in feeds.values():
        windows = await events.whole_windows(feed.feed_id, organization_id)
        right |= await _periods(feed, organization_id, standing.schedules, windows, events)
    stored = {
        key: held for key, held in (await events.event_periods_of(organization_id)).items() if key.feed_id in feeds
    }
    changed = {key: aggregate for key, aggregate in right.items() if stored.get(key) != aggregate}
    gone = stored.keys() - right.keys()
    await events.save_event_periods(changed)
    await events.delete_event_periods(gone)
    shown = {key: held for key, held in changed.items() if (organization_id, key.feed_id) not in recounting}
    in_force = {usage.period for usage in await tx.periods_in_force(organization_id, newest=None)}
    absent = {key: held for key, held in right.items() if key.period not in in_force}
    has_other_cuts = await count_event_cuts_of(organization_id, standing, tx=tx, events=events)
    if changed or gone or absent or has_other_cuts:
        revisions = {organization_id: standing.usage_revision + 1}
        await touch_periods({key: held.last.at for key, held in absent.items()}, revisions, tx=tx)
        as_of = {key: held.last.at for key, held in changed.items()}
        await touch_periods(as_of, revisions, tx=tx)
        await tx.save_revisions(revisions, is_publication_due=True)
        await publish_late_usage({PeriodKey(key.organization_id, key.period) for key in changed}, tx=tx)
    return tuple(sorted({key.period for key in {*shown, *gone}}, key=attrgetter("start")))


async def _periods(
    feed: Feed,
    organization_id: str,
    schedules: Schedules,
    windows: Sequence[tuple[datetime, Aggregate]],
    events: EventTransaction,
) -> Mapping[EventPeriodKey, Aggregate]:
    by_period: dict[BillingPeriod, list[Aggregate]] = {}
    for start, aggregate in windows:
        by_period.setdefault(schedules.period_containing(start), []).append(aggregate)
    periods = list(by_period)
    distinct: Mapping[tuple[int, str], int] = {}
    if feed.meter.aggregation is Aggregation.UNIQUE_COUNT and periods:
        spans = [(period.start, period.end) for period in periods]
        distinct = await events.distinct_values(feed.feed_id, organization_id, spans, {None: ""})
    found = {}
    for index, period in enumerate(periods):
        whole = combined(feed.meter.aggregation, by_period[period], distinct=distinct.get((index, ""), 0))
        if whole is not None:
            found[EventPeriodKey(feed.feed_id, organization_id, period)] = whole
    return found
