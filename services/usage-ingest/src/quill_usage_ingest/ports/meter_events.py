"""Meter events and counting anew: what the use cases need of a store of events."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple, Protocol

from quill_usage_ingest.domain.event_aggregate import Aggregate
from quill_usage_ingest.domain.event_book import EventPeriodKey, EventWindowKey, Feed, SeenValue
from quill_usage_ingest.domain.event_meter import EventMeter, Group
from quill_usage_ingest.domain.meter_event import MeterEvent, Moment
from quill_usage_ingest.ports.usage import Arrival


@dataclass(frozen=True, slots=True)
class CounterRecount:
    """How far the recount for these dates has come (`DatedCounters.text`): the last organization, None when through."""

    dated: str = ""
    after: str | None = None


class MeterRecounts(Protocol):
    """What is counted anew because the catalog changed."""

    async def hold_meters(self) -> None:
        """For who changes the catalog: nobody else decides by it until the end. Taken before every other lock."""
        ...

    async def share_meters(self) -> None:
        """For who must not miss a change of the catalog: none until the end. Taken before every other lock."""
        ...

    async def counter_recount(self) -> CounterRecount: ...

    async def save_counter_recount(self, recount: CounterRecount) -> None: ...


@dataclass(frozen=True, slots=True)
class ArrivedEvent:
    """An event with its arrival."""

    event: MeterEvent
    arrival: Arrival


@dataclass(frozen=True, slots=True)
class KeptEvent:
    """An event as kept, with the exact bytes it came in."""

    event: MeterEvent
    received_at: datetime
    intake: str
    topic: str | None
    partition: int | None
    offset: int | None
    body: bytes
    voided_at: datetime | None = None
    """When a correction took it out of count; its name stays taken (L3)."""

    @property
    def counts(self) -> bool:
        return self.voided_at is None


class EventRecount(NamedTuple):
    """An organization whose kept events are counted anew for a meter; those up to ``reached`` are."""

    organization_id: str
    feed_id: int
    reached: Moment


class EventTransaction(MeterRecounts, Protocol):
    """Reads and writes of meter events in one transaction; writers hold the lock of the organization's row."""

    async def feeds(self) -> list[Feed]:
        """The event meters at work."""
        ...

    async def add_feed(self, meter: EventMeter) -> Feed: ...

    async def retire_feed(self, feed_id: int) -> None:
        """Its aggregates are of no use any more; a job removes them."""
        ...

    async def begin_recounts(self, feed: Feed) -> int:
        """Mark every organization that ever sent events of the feed's type; returns how many."""
        ...

    async def recounts(self, organization_ids: Collection[str]) -> dict[tuple[str, int], Moment]:
        """How far the recounts of these organizations have come, by organization and feed."""
        ...

    async def next_recount(self) -> EventRecount | None: ...

    async def save_recount(self, recount: EventRecount) -> None: ...

    async def finish_recount(self, recount: EventRecount) -> None: ...

    async def claim_names(self, contents: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
        """Take these names, each for a content; returns those that were taken before, with their contents."""
        ...

    async def release_names(self, names: Collection[bytes]) -> None:
        """Give back names claimed in this transaction."""
        ...

    async def contents(self, names: Collection[bytes]) -> dict[bytes, bytes]: ...

    async def keep_events(self, arrived: Sequence[ArrivedEvent], *, now: datetime) -> None: ...

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
        """Events whose time lies in [``start``, ``end``), in the order of their moments, after one of them."""
        ...

    async def events_at(self, organization_id: str, moments: Collection[Moment]) -> dict[Moment, KeptEvent]: ...

    async def set_voided(
        self, organization_id: str, moments: Collection[Moment], *, voided_at: datetime | None
    ) -> None:
        """Take kept events out of count, or with None back in."""
        ...

    async def replace_hour(
        self, whole: EventWindowKey, windows: Mapping[EventWindowKey, Aggregate], values: Collection[SeenValue]
    ) -> None:
        """Let these be the windows and values of the hour of this whole window, and no others."""
        ...

    async def count_events(self, organization_id: str, event_type: str, start: datetime, end: datetime) -> int:
        """How many are kept and not voided."""
        ...

    async def event_windows(self, keys: Collection[EventWindowKey]) -> dict[EventWindowKey, Aggregate]: ...

    async def event_windows_between(
        self, feed_id: int, organization_id: str, start: datetime, end: datetime, *, limit: int
    ) -> list[tuple[EventWindowKey, Aggregate]]:
        """Windows that start in [``start``, ``end``), wholes and groups, by start."""
        ...

    async def whole_windows(
        self, feed_id: int, organization_id: str, *, start: datetime | None = None, end: datetime | None = None
    ) -> list[tuple[datetime, Aggregate]]:
        """Every window that starts in [``start``, ``end``) as a whole, without its groups, by start."""
        ...

    async def save_event_windows(self, windows: Mapping[EventWindowKey, Aggregate]) -> None: ...

    async def event_periods(self, keys: Collection[EventPeriodKey]) -> dict[EventPeriodKey, Aggregate]: ...

    async def event_periods_of(self, organization_id: str) -> dict[EventPeriodKey, Aggregate]: ...

    async def save_event_periods(self, periods: Mapping[EventPeriodKey, Aggregate]) -> None: ...

    async def delete_event_periods(self, keys: Collection[EventPeriodKey]) -> None: ...

    async def seen_values(
        self, periods: Mapping[SeenValue, EventPeriodKey | None]
    ) -> tuple[set[SeenValue], set[tuple[EventPeriodKey, bytes]]]:
        """Which of these values their windows have already, and which of those with a period that period has."""
        ...

    async def save_values(self, values: Collection[SeenValue]) -> None: ...

    async def distinct_values(
        self,
        feed_id: int,
        organization_id: str,
        spans: Sequence[tuple[datetime, datetime]],
        buckets: Mapping[Group | None, str],
    ) -> dict[tuple[int, str], int]:
        """How many different values windows starting in each span have, by position of the span and bucket of group."""
        ...
