"""Meter events in memory: the same behaviour as in Postgres, for unit tests and simulation."""

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from copy import copy
from dataclasses import dataclass, field, fields, replace
from datetime import datetime

from quill_usage_ingest.domain.event_aggregate import Aggregate
from quill_usage_ingest.domain.event_book import EventPeriodKey, EventWindowKey, Feed, SeenValue
from quill_usage_ingest.domain.event_meter import EventMeter, Group
from quill_usage_ingest.domain.meter_event import Moment
from quill_usage_ingest.ports import ArrivedEvent, EventRecount, KeptEvent
from quill_usage_ingest.store.memory_recounts import MemoryMeterRecounts
from quill_usage_ingest.usecases.recount_events import BEFORE_ALL


@dataclass(slots=True)
class MemoryEvents(MemoryMeterRecounts):
    """`EventTransaction` on dictionaries. One task at a time; `begin` undoes everything when its block fails."""

    names: dict[bytes, bytes] = field(default_factory=dict)
    events: dict[tuple[str, Moment], KeptEvent] = field(default_factory=dict)
    held_feeds: dict[int, Feed] = field(default_factory=dict)
    feeds_made: int = 0
    marks: dict[tuple[str, int], Moment] = field(default_factory=dict)
    windows: dict[EventWindowKey, Aggregate] = field(default_factory=dict)
    periods: dict[EventPeriodKey, Aggregate] = field(default_factory=dict)
    values: set[SeenValue] = field(default_factory=set)

    @asynccontextmanager
    async def begin(self) -> AsyncIterator["MemoryEvents"]:
        """A transaction: nothing of the block stays when it raises."""
        before = {held.name: copy(getattr(self, held.name)) for held in fields(self)}
        try:
            yield self
        except BaseException:
            for name, content in before.items():
                setattr(self, name, content)
            raise

    async def feeds(self) -> list[Feed]:
        return [self.held_feeds[feed_id] for feed_id in sorted(self.held_feeds)]

    async def add_feed(self, meter: EventMeter) -> Feed:
        self.feeds_made += 1
        feed = self.held_feeds[self.feeds_made] = Feed(self.feeds_made, meter)
        return feed

    async def retire_feed(self, feed_id: int) -> None:
        del self.held_feeds[feed_id]
        self.marks = {key: held for key, held in self.marks.items() if key[1] != feed_id}

    async def begin_recounts(self, feed: Feed) -> int:
        organizations = {key[0] for key, kept in self.events.items() if kept.event.event_type == feed.meter.event_type}
        self.marks |= {(organization_id, feed.feed_id): BEFORE_ALL for organization_id in organizations}
        return len(organizations)

    async def recounts(self, organization_ids: Collection[str]) -> dict[tuple[str, int], Moment]:
        return {key: reached for key, reached in self.marks.items() if key[0] in organization_ids}

    async def next_recount(self) -> EventRecount | None:
        if not self.marks:
            return None
        organization_id, feed_id = min(self.marks)
        return EventRecount(organization_id, feed_id, self.marks[organization_id, feed_id])

    async def save_recount(self, recount: EventRecount) -> None:
        self.marks[recount.organization_id, recount.feed_id] = recount.reached

    async def finish_recount(self, recount: EventRecount) -> None:
        del self.marks[recount.organization_id, recount.feed_id]

    async def claim_names(self, contents: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
        taken = {name: self.names[name] for name in contents if name in self.names}
        self.names |= {name: content for name, content in contents.items() if name not in taken}
        return taken

    async def release_names(self, names: Collection[bytes]) -> None:
        for name in names:
            del self.names[name]

    async def contents(self, names: Collection[bytes]) -> dict[bytes, bytes]:
        return {name: self.names[name] for name in names if name in self.names}

    async def keep_events(self, arrived: Sequence[ArrivedEvent], *, now: datetime) -> None:
        for item in arrived:
            event, arrival = item.event, item.arrival
            self.events[event.organization_id, event.moment] = KeptEvent(
                event, now, arrival.intake, arrival.topic, arrival.partition, arrival.offset, arrival.body
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
        found = [
            kept
            for key, kept in sorted(self.events.items(), key=lambda item: item[0])
            if key[0] == organization_id
            and start <= kept.event.time < end
            and event_type in (None, kept.event.event_type)
            and (after is None or key[1] > after)
        ]
        return found[:limit]

    async def events_at(self, organization_id: str, moments: Collection[Moment]) -> dict[Moment, KeptEvent]:
        return {
            moment: self.events[organization_id, moment]
            for moment in moments
            if (organization_id, moment) in self.events
        }

    async def set_voided(
        self, organization_id: str, moments: Collection[Moment], *, voided_at: datetime | None
    ) -> None:
        for moment in moments:
            self.events[organization_id, moment] = replace(self.events[organization_id, moment], voided_at=voided_at)

    async def replace_hour(
        self, whole: EventWindowKey, windows: Mapping[EventWindowKey, Aggregate], values: Collection[SeenValue]
    ) -> None:
        kept = {key: held for key, held in self.windows.items() if key._replace(group=None) != whole}
        self.windows = {**kept, **windows}
        hour = (whole.feed_id, whole.organization_id, whole.start)
        self.values = {held for held in self.values if (held[0], held[1], held.start) != hour} | set(values)

    async def count_events(self, organization_id: str, event_type: str, start: datetime, end: datetime) -> int:
        return sum(
            1
            for key, kept in self.events.items()
            if key[0] == organization_id
            and kept.event.event_type == event_type
            and start <= kept.event.window_start < end
            and kept.counts
        )

    async def event_windows(self, keys: Collection[EventWindowKey]) -> dict[EventWindowKey, Aggregate]:
        return {key: self.windows[key] for key in keys if key in self.windows}

    async def event_windows_between(
        self, feed_id: int, organization_id: str, start: datetime, end: datetime, *, limit: int
    ) -> list[tuple[EventWindowKey, Aggregate]]:
        found = [
            (key, held)
            for key, held in self.windows.items()
            if (key.feed_id, key.organization_id) == (feed_id, organization_id) and start <= key.start < end
        ]
        return sorted(found, key=lambda item: (item[0].start, repr(item[0].group)))[:limit]

    async def whole_windows(
        self, feed_id: int, organization_id: str, *, start: datetime | None = None, end: datetime | None = None
    ) -> list[tuple[datetime, Aggregate]]:
        return sorted(
            (key.start, held)
            for key, held in self.windows.items()
            if (key.feed_id, key.organization_id, key.group) == (feed_id, organization_id, None)
            and (start is None or start <= key.start)
            and (end is None or key.start < end)
        )

    async def save_event_windows(self, windows: Mapping[EventWindowKey, Aggregate]) -> None:
        self.windows |= windows

    async def event_periods(self, keys: Collection[EventPeriodKey]) -> dict[EventPeriodKey, Aggregate]:
        return {key: self.periods[key] for key in keys if key in self.periods}

    async def event_periods_of(self, organization_id: str) -> dict[EventPeriodKey, Aggregate]:
        return {key: held for key, held in self.periods.items() if key.organization_id == organization_id}

    async def save_event_periods(self, periods: Mapping[EventPeriodKey, Aggregate]) -> None:
        self.periods |= periods

    async def delete_event_periods(self, keys: Collection[EventPeriodKey]) -> None:
        for key in keys:
            del self.periods[key]

    async def seen_values(
        self, periods: Mapping[SeenValue, EventPeriodKey | None]
    ) -> tuple[set[SeenValue], set[tuple[EventPeriodKey, bytes]]]:
        in_period = {
            (period, value.value)
            for value, period in periods.items()
            if period is not None
            and any(
                held[:4] == value[:4] and period.period.start <= held.start < period.period.end for held in self.values
            )
        }
        return self.values & periods.keys(), in_period

    async def save_values(self, values: Collection[SeenValue]) -> None:
        self.values |= set(values)

    async def distinct_values(
        self,
        feed_id: int,
        organization_id: str,
        spans: Sequence[tuple[datetime, datetime]],
        buckets: Mapping[Group | None, str],
    ) -> dict[tuple[int, str], int]:
        found: dict[tuple[int, str], set[bytes]] = {}
        for held in self.values:
            if (held.feed_id, held.organization_id) != (feed_id, organization_id) or held.group not in buckets:
                continue
            for index, (start, end) in enumerate(spans):
                if start <= held.start < end:
                    found.setdefault((index, buckets[held.group]), set()).add(held.value)
        return {key: len(different) for key, different in found.items()}
