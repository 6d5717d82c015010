"""The answer to "why is it so much" for a meter that events feed (L5)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from quill_pricing.period import BillingPeriod

from quill_usage_ingest.domain.event_aggregate import Aggregate
from quill_usage_ingest.domain.event_book import EventWindowKey
from quill_usage_ingest.domain.event_meter import EventMeter
from quill_usage_ingest.domain.meter_event import MeterEvent, Moment
from quill_usage_ingest.domain.organization import Organization
from quill_usage_ingest.domain.period_usage import NOTHING_USED, CounterUsage


@dataclass(frozen=True, slots=True)
class EventExplanation:
    """An event meter of one organization and period, beside the number that is stored and published.

    Attributes:
        windows: hours and their groups, in order.
        left_out: kept events of the meter's type in the period that do not fit it.
        voided: kept events of the type that a correction took out of count.
        known_at: the number as it was known at the instant asked for.
        is_from_events: made again from the kept events; else, of very many, put together from the stored hours.
        is_recounting: the stored number is not whole yet, and not published.
        named: the events that are first or last in a window.
    """

    organization: Organization
    period: BillingPeriod
    meter: EventMeter
    windows: Sequence[tuple[EventWindowKey, Aggregate]]
    total: Aggregate | None
    stored: Aggregate | None
    left_out: int
    known_at: CounterUsage | None
    is_recounting: bool
    is_from_events: bool
    named: Mapping[Moment, MeterEvent]
    voided: int = 0

    @property
    def usage(self) -> CounterUsage:
        return self.total.usage if self.total else NOTHING_USED

    @property
    def stored_usage(self) -> CounterUsage:
        return self.stored.usage if self.stored else NOTHING_USED

    @property
    def is_equal(self) -> bool:
        """Whether the kept events give the stored number; they always should."""
        if self.total is None:
            return self.stored is None or self.stored.events == 0
        return self.total == self.stored
