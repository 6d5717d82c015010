"""Count kept events for a meter that the catalog defines anew: in batches, resumed where it was (L4)."""

from datetime import UTC, datetime
from typing import Final

from quill_usage_ingest.domain.event_book import measured
from quill_usage_ingest.domain.meter_event import Moment
from quill_usage_ingest.domain.meters import MeterMap
from quill_usage_ingest.ports import EventRecount, EventTransaction, UsageTransaction
from quill_usage_ingest.usecases.count_event_cuts import count_event_cuts_of
from quill_usage_ingest.usecases.record_events import load_book, save_book

BEFORE_ALL: Final = Moment(datetime(1970, 1, 1, tzinfo=UTC), b"")
"""No event is kept from before 1971 (`YEARS`)."""
_NEVER: Final = datetime(9999, 12, 31, tzinfo=UTC)


async def project_event_meters(*, tx: UsageTransaction, events: EventTransaction) -> int:
    """Set meters to work as the catalog defines them, in the transaction that changed it.

    A meter defined otherwise is another meter: its number is counted anew from the kept events, and is not published
    until it is whole. Nothing is counted here.

    Returns:
        How many recounts are to be done because of it.
    """
    wanted = {meter.fingerprint: meter for meter in MeterMap.of(await tx.metered_products()).event_meters.values()}
    begun = 0
    at_work = {feed.meter.fingerprint: feed for feed in await events.feeds()}
    for fingerprint, feed in at_work.items():
        if fingerprint not in wanted:
            await events.retire_feed(feed.feed_id)
    for fingerprint, meter in wanted.items():
        if fingerprint not in at_work:
            begun += await events.begin_recounts(await events.add_feed(meter))
    return begun


async def recount_some(*, tx: UsageTransaction, events: EventTransaction, limit: int) -> bool:
    """Count the next ``limit`` kept events of one organization for one meter; False when nothing is left to do.

    Events that arrive meanwhile wait for the organization's lock. Those before the place reached are counted when they
    arrive, the others when the recount comes to them: each once.
    """
    await events.share_meters()
    found = await events.next_recount()
    if found is None:
        return False
    standings = await tx.lock_standings({found.organization_id})
    reached = (await events.recounts(standings.keys())).get((found.organization_id, found.feed_id))
    feed = next((feed for feed in await events.feeds() if feed.feed_id == found.feed_id), None)
    if reached is None or feed is None:
        return True  # Another replica was faster.
    kept = await events.kept_events(
        found.organization_id,
        feed.meter.counts_from or BEFORE_ALL.at,
        _NEVER,
        event_type=feed.meter.event_type,
        after=reached,
        limit=limit,
    )
    entering = [(each.event, measured(feed, each.event)) for each in kept if each.counts]
    book = await load_book(entering, standings, events)
    for event, feedings in entering:
        book.enter(event, feedings)
    is_last = len(kept) < limit
    # Only a number that is whole is published, so only the last batch makes its organization due.
    await save_book(book, standings, tx=tx, events=events, is_publication_due=is_last)
    if is_last:
        await events.finish_recount(found)
        await count_event_cuts_of(found.organization_id, standings[found.organization_id], tx=tx, events=events)
        await tx.save_revisions(
            {found.organization_id: standings[found.organization_id].usage_revision + 1}, is_publication_due=True
        )
    else:
        await events.save_recount(EventRecount(found.organization_id, found.feed_id, kept[-1].event.moment))
    return True
