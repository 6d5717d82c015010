"""Where a snapshot finds each meter: one slot, or by the period when a meter counts from a date on (L2, L3)."""

from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise

from quill_contracts.usage import PeriodUsageSnapshot
from quill_usage_ingest.domain.dated_counters import dated_name
from quill_usage_ingest.domain.meters import MeteredProduct, MeterMap
from quill_usage_ingest.store.meter_places import MeterPlaces, counters_of
from quill_usage_ingest.wire.snapshots import encode_snapshot

MONTHS = [datetime(2026, month, 1, tzinfo=UTC) for month in (9, 10, 11, 12)]
TENTH = datetime(2026, 10, 10, tzinfo=UTC)


@dataclass
class Row:
    period_start: datetime
    period_end: datetime
    complete: list[int]
    partial: list[int]
    maximum: list[int]
    as_of: datetime = TENTH


METERS = MeterMap.of(
    [
        MeteredProduct("whole", 1, "events", "events"),
        MeteredProduct("dated", 1, "events_from_tenth", "events", counts_from=TENTH),
        MeteredProduct("new", 1, "rows", "rows", counts_from=TENTH),
    ]
)


def test_a_meter_is_read_from_its_counter_from_its_dated_one_or_not_at_all():
    assert counters_of(METERS) == {"events", "rows", dated_name("events", TENTH), dated_name("rows", TENTH)}
    slots = {"events": 0, dated_name("events", TENTH): 1}
    events = {("acme", MONTHS[1], MONTHS[2]): {"calls": (7, 0, 7)}}
    places = MeterPlaces.of(METERS, slots, events)
    rows = [Row(start, end, [10, 4], [1, 0], [11, 5]) for start, end in pairwise(MONTHS)]
    rows[0].maximum[1] = -1
    encoded = encode_snapshot("acme", revision=3, periods=rows, places=places.everywhere, further=places.further)
    found = [
        {meter: (held.complete, held.partial, held.maximum) for meter, held in period.meters.items()}
        for period in PeriodUsageSnapshot.from_bytes(encoded).periods
    ]
    assert found == [
        {"events": (10, 1, 11)},
        {"events": (10, 1, 11), "events_from_tenth": (4, 0, 5), "calls": (7, 0, 7)},
        {"events": (10, 1, 11), "events_from_tenth": (10, 1, 11)},
    ]


def test_a_catalog_of_plain_counters_pays_for_no_other_place():
    plain = MeterMap.of([MeteredProduct("whole", 1, "events", "events")])
    assert not MeterPlaces.of(plain, {"events": 0}, {}).has_further
    assert MeterPlaces.of(METERS, {}, {}).has_further
