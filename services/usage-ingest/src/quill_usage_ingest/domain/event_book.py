"""Entering events: windows, periods and distinct values of the meters at hand, changed together."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple

from quill_pricing.period import BillingPeriod
from quill_pricing.schedule_history import Schedules

from quill_usage_ingest.domain.event_aggregate import Aggregate, aggregate_of, put_together
from quill_usage_ingest.domain.event_meter import EventMeter, Group, Measured, UnfitEvent
from quill_usage_ingest.domain.meter_event import MeterEvent, Moment
from quill_usage_ingest.domain.usage_book import CLOCK_TOLERANCE, USAGE_LATE_MAX, YEARS, Refusal, usage_too_old
from quill_usage_ingest.domain.usage_report import QUANTITY_MAX


class EventOutcome(StrEnum):
    """What became of an event that was not refused."""

    ACCEPTED = "accepted"
    """Kept, and counted wherever a meter counts its type."""
    DUPLICATE = "duplicate"
    """The same event is kept already."""


class Feed(NamedTuple):
    """An event meter at work: its definition under the number that its aggregates are kept by."""

    feed_id: int
    meter: EventMeter


class EventWindowKey(NamedTuple):
    """One meter's UTC hour of one organization: a group of it, or the whole when ``group`` is None."""

    feed_id: int
    organization_id: str
    start: datetime
    group: Group | None


class EventPeriodKey(NamedTuple):
    """One meter's billing period of one organization."""

    feed_id: int
    organization_id: str
    period: BillingPeriod


class SeenValue(NamedTuple):
    """A distinct value, hashed, in one window; of a group, or of the whole when ``group`` is None."""

    feed_id: int
    organization_id: str
    group: Group | None
    value: bytes
    start: datetime


class Feeding(NamedTuple):
    """What one event is worth to one meter."""

    feed: Feed
    measured: Measured


@dataclass(frozen=True, slots=True)
class EventFeeds:
    """All event meters at work, and how far the recount of some organizations has come.

    ``recounts`` holds organizations whose kept events are being counted anew for a meter: up to this moment they are.
    """

    by_type: Mapping[str, Sequence[Feed]]
    recounts: Mapping[tuple[str, int], Moment] = field(default_factory=dict)

    @classmethod
    def of(cls, feeds: Iterable[Feed], recounts: Mapping[tuple[str, int], Moment]) -> "EventFeeds":
        by_type: dict[str, list[Feed]] = {}
        for feed in feeds:
            by_type.setdefault(feed.meter.event_type, []).append(feed)
        return cls(by_type, recounts)

    def measure(self, event: MeterEvent) -> list[Feeding]:
        """What the event is worth to each meter that counts it now; the rest of a recount comes to it by itself.

        Raises:
            UnfitEvent: for one of the meters that take it; it must then count for none.
        """
        found = []
        for feed in self.by_type.get(event.event_type, ()):
            if not feed.meter.takes(event):
                continue
            measured = feed.meter.measure(event)
            reached = self.recounts.get((event.organization_id, feed.feed_id))
            if reached is None or event.moment <= reached:
                found.append(Feeding(feed, measured))
        return found


def measured(feed: Feed, event: MeterEvent) -> list[Feeding]:
    """An event kept before the meter was defined, and unfit for it, counts for nothing; nobody is to blame."""
    if not feed.meter.takes(event):
        return []
    try:
        return [Feeding(feed, feed.meter.measure(event))]
    except UnfitEvent:
        return []


def refuse_time(event: MeterEvent, *, now: datetime) -> Refusal | None:
    """An event of next year would hold its ``last`` for ever and push today's period out of the snapshot."""
    if event.time.year not in YEARS:
        return Refusal("time_out_of_range", "time: no billing period can hold it", "time", event.organization_id)
    if event.time < now - USAGE_LATE_MAX:
        return usage_too_old("the event happened", "time", event.organization_id, now=now)
    if event.time > now + CLOCK_TOLERANCE:
        detail = f"time: is more than {CLOCK_TOLERANCE.days} days ahead of {now.isoformat()}; set the sender's clock"
        return Refusal("time_in_the_future", detail, "time", event.organization_id)
    return None


@dataclass(slots=True)
class EventBook:
    """What is known of the windows, periods and values that some events touch, and what entering them made of it."""

    schedules: Mapping[str, Schedules]
    windows: dict[EventWindowKey, Aggregate] = field(default_factory=dict)
    periods: dict[EventPeriodKey, Aggregate] = field(default_factory=dict)
    seen: set[SeenValue] = field(default_factory=set)
    seen_in_period: set[tuple[EventPeriodKey, bytes]] = field(default_factory=set)
    changed_windows: set[EventWindowKey] = field(default_factory=set)
    changed_periods: set[EventPeriodKey] = field(default_factory=set)
    new_values: set[SeenValue] = field(default_factory=set)

    def window_keys(self, event: MeterEvent, feeding: Feeding) -> list[EventWindowKey]:
        """The windows the event counts in: the whole, and its group if the meter has groups."""
        whole = EventWindowKey(feeding.feed.feed_id, event.organization_id, event.window_start, None)
        group = feeding.measured.group
        return [whole] if group is None else [whole, whole._replace(group=group)]

    def period_key(self, event: MeterEvent, feeding: Feeding) -> EventPeriodKey:
        """The billing period it counts in: where its window starts (L2)."""
        period = self.schedules[event.organization_id].period_containing(event.window_start)
        return EventPeriodKey(feeding.feed.feed_id, event.organization_id, period)

    def values(self, event: MeterEvent, feeding: Feeding) -> list[SeenValue]:
        """The distinct values it brings, one per window it counts in."""
        value = feeding.measured.value
        if value is None:
            return []
        return [
            SeenValue(key.feed_id, key.organization_id, key.group, value, key.start)
            for key in self.window_keys(event, feeding)
        ]

    def refuse_overflow(self, event: MeterEvent, feedings: Iterable[Feeding]) -> Refusal | None:
        """A period total beyond fifteen digits cannot be published or billed; a person must look at the event."""
        for feeding in feedings:
            known = self.periods.get(self.period_key(event, feeding))
            meter = feeding.feed.meter
            after = put_together(meter.aggregation, known, aggregate_of(event, feeding.measured))
            if after.quantity > QUANTITY_MAX:
                attribute = f"data__{meter.value}"
                detail = f"{attribute}: {meter.usage_key} would pass {QUANTITY_MAX} in the period"
                return Refusal("period_overflow", detail, attribute, event.organization_id)
        return None

    def enter(self, event: MeterEvent, feedings: Iterable[Feeding]) -> None:
        """Count an event that was never counted before, for these meters."""
        for feeding in feedings:
            aggregation = feeding.feed.meter.aggregation
            values = self.values(event, feeding)
            for index, window in enumerate(self.window_keys(event, feeding)):
                is_new = bool(values) and self._is_new(values[index])
                alone = aggregate_of(event, feeding.measured, is_new_value=is_new)
                self.windows[window] = put_together(aggregation, self.windows.get(window), alone)
                self.changed_windows.add(window)
            period = self.period_key(event, feeding)
            is_new = bool(values) and (period, values[0].value) not in self.seen_in_period
            if values:
                self.seen_in_period.add((period, values[0].value))
            alone = aggregate_of(event, feeding.measured, is_new_value=is_new)
            self.periods[period] = put_together(aggregation, self.periods.get(period), alone)
            self.changed_periods.add(period)

    def _is_new(self, value: SeenValue) -> bool:
        if value in self.seen:
            return False
        self.seen.add(value)
        self.new_values.add(value)
        return True
