"""What feeds which meter: a counter of reports, or events."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from quill_pricing.period import BillingPeriod

from quill_usage_ingest.domain.dated_counters import DatedCounters, dated_name
from quill_usage_ingest.domain.event_meter import EventMeter


@dataclass(frozen=True, slots=True)
class MeteredProduct:
    """A product of the catalog at one revision; without a meter when it is not priced by usage.

    A meter is fed by ``counter`` or by ``event_meter``. Windows that start before ``counts_from`` do not count for it.
    """

    product_key: str
    revision: int
    usage_key: str | None
    counter: str | None
    counts_from: datetime | None = None
    event_meter: EventMeter | None = None


@dataclass(frozen=True, slots=True)
class MeterMap:
    """Meter (usage key) to what feeds it. One counter may feed several meters, each from an instant of its own."""

    counter_by_meter: Mapping[str, str] = field(default_factory=dict)
    counts_from: Mapping[str, datetime] = field(default_factory=dict)
    """From when a counter counts for a meter; absent: all that was ever received."""
    event_meters: Mapping[str, EventMeter] = field(default_factory=dict)

    @classmethod
    def of(cls, products: Iterable[MeteredProduct]) -> "MeterMap":
        """The map that these products make together."""
        ordered = sorted(products, key=lambda product: product.product_key)
        counters = {
            product.usage_key: product
            for product in ordered
            if product.usage_key is not None and product.counter is not None
        }
        return cls(
            counter_by_meter={key: product.counter for key, product in counters.items() if product.counter is not None},
            counts_from={
                key: product.counts_from for key, product in counters.items() if product.counts_from is not None
            },
            event_meters={
                product.usage_key: product.event_meter
                for product in ordered
                if product.usage_key is not None and product.event_meter is not None
            },
        )

    @property
    def counters(self) -> frozenset[str]:
        """Every counter that feeds a meter."""
        return frozenset(self.counter_by_meter.values())

    @property
    def dated(self) -> DatedCounters:
        """The counters that count for some meter from an instant on."""
        starts: dict[str, set[datetime]] = {}
        for meter, start in self.counts_from.items():
            starts.setdefault(self.counter_by_meter[meter], set()).add(start)
        return DatedCounters({counter: tuple(sorted(found)) for counter, found in sorted(starts.items())})

    def knows(self, meter: str) -> bool:
        return meter in self.counter_by_meter or meter in self.event_meters

    def recounted_since(self, before: "MeterMap") -> frozenset[str]:
        """Meters known before whose number has to be counted anew, because it is another one now."""
        events = {key for key, meter in self.event_meters.items() if before.event_meters.get(key) != meter}
        dated = {
            key
            for key, start in self.counts_from.items()
            if (before.counter_by_meter.get(key), before.counts_from.get(key)) != (self.counter_by_meter[key], start)
        }
        return frozenset(key for key in events | dated if before.knows(key))

    def only(self, meter: str) -> "MeterMap":
        """The map with this meter alone."""
        return MeterMap(
            {key: counter for key, counter in self.counter_by_meter.items() if key == meter},
            {key: start for key, start in self.counts_from.items() if key == meter},
            {key: held for key, held in self.event_meters.items() if key == meter},
        )

    def counter_in(self, meter: str, period: BillingPeriod) -> str | None:
        """Under which name period usage keeps a counter-fed meter; None when nothing in the period counts for it."""
        counter = self.counter_by_meter.get(meter)
        start = self.counts_from.get(meter)
        if counter is None or start is None or start <= period.start:
            return counter
        return dated_name(counter, start) if start < period.end else None

    def counts(self, meter: str, window_start: datetime) -> bool:
        """Whether a window that starts then counts for the meter."""
        start = self.counts_from.get(meter)
        return start is None or window_start >= start
