"""Where the meters of today's catalog stand in packed rows, and what the meters without one place used."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from quill_usage_ingest.domain.dated_counters import dated_name
from quill_usage_ingest.domain.meters import MeterMap
from quill_usage_ingest.store.carried_values import NOTHING_CARRIED, CarriedValues
from quill_usage_ingest.wire.snapshots import NEVER_REPORTED, PackedPeriod

EventUsage = Mapping[tuple[str, datetime, datetime], Mapping[str, tuple[int, int, int]]]
"""Organization and period to usage kept elsewhere, of event meters and stand-ins: complete, partial, maximum."""
_NONE: Final[Mapping[str, tuple[int, int, int]]] = {}


@dataclass(frozen=True, slots=True)
class _DatedPlace:
    """A meter that counts from an instant on: in later periods its counter's slot, in the one around it its own."""

    meter: str
    start: datetime
    whole: int | None
    dated: int | None

    def in_period(self, held: PackedPeriod) -> int | None:
        if self.start <= held.period_start:
            return self.whole
        return self.dated if self.start < held.period_end else None


@dataclass(frozen=True, slots=True)
class MeterPlaces:
    """Meters by place.

    Attributes:
        everywhere: meters whose counter stands at one slot in every period.
        has_further: whether some meter has another place; most catalogs have none, and pay nothing for it.
    """

    everywhere: tuple[tuple[str, int], ...]
    _dated: tuple[_DatedPlace, ...] = ()
    _events: EventUsage = field(default_factory=dict)
    _carried: CarriedValues = NOTHING_CARRIED

    @classmethod
    def of(
        cls,
        meters: MeterMap,
        slots: Mapping[str, int],
        events: EventUsage,
        carried: CarriedValues = NOTHING_CARRIED,
    ) -> "MeterPlaces":
        """``slots`` are those of `counters_of` the same meters."""
        everywhere = tuple(
            (meter, slots[counter])
            for meter, counter in meters.counter_by_meter.items()
            if counter in slots and meter not in meters.counts_from
        )
        dated = tuple(
            _DatedPlace(meter, start, slots.get(counter), slots.get(dated_name(counter, start)))
            for meter, start in meters.counts_from.items()
            for counter in (meters.counter_by_meter[meter],)
        )
        return cls(everywhere, dated, events, carried)

    @property
    def has_further(self) -> bool:
        return bool(self._dated or self._events or self._carried.meters)

    def further(self, organization_id: str, held: PackedPeriod) -> Iterable[tuple[str, tuple[int, int, int]]]:
        """Usage of the other meters in a stored period; those without any are left out."""
        for place in self._dated:
            slot = place.in_period(held)
            if slot is not None and slot < len(held.maximum) and held.maximum[slot] != NEVER_REPORTED:
                yield place.meter, (held.complete[slot], held.partial[slot], held.maximum[slot])
        fed = self._events.get((organization_id, held.period_start, held.period_end), _NONE)
        yield from fed.items()
        if self._carried.meters:
            for meter, value in self._carried.into(organization_id, held.period_start).items():
                if meter not in fed:
                    yield meter, (value, 0, value)


def counters_of(meters: MeterMap) -> Collection[str]:
    """Every name whose slot the meters need."""
    names = set(meters.counters)
    return names | {dated_name(meters.counter_by_meter[meter], start) for meter, start in meters.counts_from.items()}
