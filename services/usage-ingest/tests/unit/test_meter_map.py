"""Which meters a change of the catalog makes another number of."""

from datetime import UTC, datetime

import pytest
from quill_usage_ingest.domain.event_meter import Aggregation, EventMeter
from quill_usage_ingest.domain.meters import MeteredProduct, MeterMap

TENTH, TWENTIETH = datetime(2026, 10, 10, tzinfo=UTC), datetime(2026, 10, 20, tzinfo=UTC)
CALLS, SUM = EventMeter("m", "call", Aggregation.COUNT), EventMeter("m", "call", Aggregation.SUM, "n")


def fed(counter=None, counts_from=None, events=None) -> MeterMap:
    return MeterMap.of([MeteredProduct("p", 1, "m", counter, counts_from, events)])


@pytest.mark.parametrize(
    ("before", "after", "is_recounted"),
    [
        (fed(events=CALLS), fed(events=CALLS), False),
        (fed(events=CALLS), fed(events=SUM), True),
        (fed("c"), fed(events=CALLS), True),
        (fed("c"), fed("c", TENTH), True),
        (fed("c", TENTH), fed("c", TENTH), False),
        (fed("c", TENTH), fed("c", TWENTIETH), True),
        (fed("other", TENTH), fed("c", TENTH), True),
        (fed(events=CALLS), fed("c", TENTH), True),
        (fed("c", TENTH), fed("c"), False),
        (fed(events=CALLS), fed("c"), False),
        (fed("c"), fed("other"), False),
        (fed(events=CALLS), fed(), False),
        (MeterMap(), fed(events=CALLS), False),
        (MeterMap(), fed("c", TENTH), False),
    ],
    ids=[
        "the same events",
        "other events",
        "from a counter to events",
        "a first date",
        "the same date",
        "another date",
        "another counter under the date",
        "from events to a dated counter",
        "the date is lifted: the whole counter is there",
        "from events to a whole counter",
        "another whole counter",
        "nothing feeds it any more",
        "a new event meter has no number of before",
        "a new dated meter has none either",
    ],
)
def test_a_meter_is_counted_anew_when_its_number_is_another_that_nobody_has_yet(before, after, is_recounted):
    assert after.recounted_since(before) == (frozenset({"m"}) if is_recounted else frozenset())
