"""Keep meter events and count them, from wherever they came (L1, L4)."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from quill_usage_ingest.domain.event_book import (
    EventBook,
    EventFeeds,
    EventOutcome,
    EventPeriodKey,
    Feeding,
    SeenValue,
    refuse_time,
)
from quill_usage_ingest.domain.event_meter import UnfitEvent
from quill_usage_ingest.domain.meter_event import MeterEvent
from quill_usage_ingest.domain.organization import UsageStanding
from quill_usage_ingest.domain.period_usage import PeriodUsage
from quill_usage_ingest.domain.usage_book import PeriodKey, Refusal, unknown_organization
from quill_usage_ingest.ports import ArrivedEvent, EventTransaction, UsageTransaction
from quill_usage_ingest.usecases.count_event_cuts import count_event_cuts, cuts_after_events
from quill_usage_ingest.usecases.late_usage import may_be_late, publish_late_usage
from quill_usage_ingest.usecases.new_sources import new_sources

Outcome = EventOutcome | Refusal


async def record_events(
    arrived: Sequence[ArrivedEvent],
    *,
    tx: UsageTransaction,
    events: EventTransaction,
    now: datetime,
    is_publication_due: bool,
) -> list[Outcome]:
    """Keep and count events in the order given; one answer per event.

    An event is counted in the transaction that claims its name, and a name is claimed once for ever: repeats change
    nothing. Refused events leave no trace here; the caller parks them or answers the sender (L4).
    """
    await events.share_meters()
    standings = await tx.lock_standings({item.event.organization_id for item in arrived})
    feeds = EventFeeds.of(await events.feeds(), await events.recounts(standings.keys()))
    outcomes: dict[int, Outcome] = {}
    fitting: dict[int, list[Feeding]] = {}
    unfit: dict[int, Refusal] = {}
    for position, item in enumerate(arrived):
        event = item.event
        refusal = (
            refuse_time(event, now=now)
            if event.organization_id in standings
            else replace(unknown_organization(event.organization_id), attribute="subject")
        )
        if refusal is not None:
            outcomes[position] = refusal
            continue
        try:
            fitting[position] = feeds.measure(event)
        except UnfitEvent as error:
            unfit[position] = Refusal("unfit_event", str(error), error.attribute, event.organization_id)
    outcomes |= await _known_or_unfit({position: arrived[position].event for position in unfit}, unfit, events)
    new = await _claim({position: arrived[position].event for position in fitting}, outcomes, events)
    book = await load_book([(arrived[position].event, fitting[position]) for position in new], standings, events)
    refused: list[bytes] = []
    for position in new:
        event, feedings = arrived[position].event, fitting[position]
        refusal = book.refuse_overflow(event, feedings)
        if refusal is not None:
            outcomes[position] = refusal
            refused.append(event.name)
            continue
        book.enter(event, feedings)
        outcomes[position] = EventOutcome.ACCEPTED
    await events.release_names(refused)
    kept = [arrived[position] for position in new if outcomes[position] is EventOutcome.ACCEPTED]
    await events.keep_events(kept, now=now)
    await tx.add_sources(new_sources(((item.event.organization_id, item.event.source) for item in kept), standings))
    touched = cuts_after_events((item.event for item in kept), standings)
    await save_book(book, standings, tx=tx, events=events, is_publication_due=is_publication_due)
    await count_event_cuts(touched, tx=tx, events=events)
    counted_in = {PeriodKey(key.organization_id, key.period) for key in book.changed_periods}
    await publish_late_usage(may_be_late(counted_in, now=now), tx=tx)
    return [outcomes[position] for position in range(len(arrived))]


async def load_book(
    entering: Sequence[tuple[MeterEvent, Sequence[Feeding]]],
    standings: Mapping[str, UsageStanding],
    events: EventTransaction,
) -> EventBook:
    """A book with all windows, periods and values that these events touch."""
    book = EventBook({organization_id: standing.schedules for organization_id, standing in standings.items()})
    pairs = [(event, feeding) for event, feedings in entering for feeding in feedings]
    book.windows |= await events.event_windows({key for pair in pairs for key in book.window_keys(*pair)})
    book.periods |= await events.event_periods({book.period_key(*pair) for pair in pairs})
    asked: dict[SeenValue, EventPeriodKey | None] = {}
    for pair in pairs:
        for value in book.values(*pair):
            asked[value] = book.period_key(*pair) if value.group is None else None
    if asked:
        book.seen, book.seen_in_period = await events.seen_values(asked)
    return book


async def save_book(
    book: EventBook,
    standings: Mapping[str, UsageStanding],
    *,
    tx: UsageTransaction,
    events: EventTransaction,
    is_publication_due: bool,
) -> None:
    """Save what changed, and raise the revisions of the organizations whose usage it is."""
    await events.save_event_windows({key: book.windows[key] for key in book.changed_windows})
    await events.save_values(book.new_values)
    await events.save_event_periods({key: book.periods[key] for key in book.changed_periods})
    revisions = {key.organization_id: standings[key.organization_id].usage_revision + 1 for key in book.changed_periods}
    await touch_periods({key: book.periods[key].last.at for key in book.changed_periods}, revisions, tx=tx)
    await tx.save_revisions(revisions, is_publication_due=is_publication_due)


async def touch_periods(
    as_of: Mapping[EventPeriodKey, datetime],
    revisions: Mapping[str, int],
    *,
    tx: UsageTransaction,
) -> None:
    """Let the periods that events count in be there and in force, as of the newest event, at the new revision."""
    newest: dict[PeriodKey, datetime] = {}
    for counted_in, instant in as_of.items():
        period = PeriodKey(counted_in.organization_id, counted_in.period)
        newest[period] = max(instant, newest.get(period, instant))
    stored = await tx.periods(newest.keys())
    touched = {}
    for key, instant in newest.items():
        held = stored.get(key)
        revision = revisions[key.organization_id]
        touched[key] = (
            PeriodUsage(period=key.period, as_of=instant, revision=revision)
            if held is None
            else held.touched(as_of=instant, revision=revision)
        )
    await tx.save_periods(touched)


async def _claim(
    candidates: Mapping[int, MeterEvent], outcomes: dict[int, Outcome], events: EventTransaction
) -> list[int]:
    """Claim the names; returns the positions of events that are new. The first of a name in the batch is the one."""
    first: dict[bytes, bytes] = {}
    firsts: list[int] = []
    for position, event in candidates.items():
        if event.name not in first:
            first[event.name] = event.content
            firsts.append(position)
    taken = await events.claim_names(first)
    new = [position for position in firsts if candidates[position].name not in taken]
    for position, event in candidates.items():
        if position not in new:
            outcomes[position] = _repeat(event, taken.get(event.name, first[event.name]))
    return new


async def _known_or_unfit(
    candidates: Mapping[int, MeterEvent], unfit: Mapping[int, Refusal], events: EventTransaction
) -> dict[int, Outcome]:
    """What was kept before a meter asked for more stays a repeat."""
    if not candidates:
        return {}
    known = await events.contents({event.name for event in candidates.values()})
    return {
        position: _repeat(event, known[event.name]) if event.name in known else unfit[position]
        for position, event in candidates.items()
    }


def _repeat(event: MeterEvent, content: bytes) -> Outcome:
    if event.content == content:
        return EventOutcome.DUPLICATE
    detail = (
        f"id: {event.source} already sent an event {event.event_id} with another content, which stays;"
        " give the new one an id of its own"
    )
    return Refusal("conflicting_event", detail, "id", event.organization_id)
