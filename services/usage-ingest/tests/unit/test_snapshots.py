"""The fast snapshot is the contract's message, byte for byte in meaning (L2, L3, L6)."""

import json
from dataclasses import dataclass
from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st
from quill_contracts.usage import MeterUsage, PeriodUsage, PeriodUsageSnapshot, UsageCut
from quill_usage_ingest.wire.snapshots import NEVER_REPORTED, encode_snapshot

OCTOBER, NOVEMBER = datetime(2026, 10, 1, tzinfo=UTC), datetime(2026, 11, 1, tzinfo=UTC)
QUANTITIES = st.integers(0, 2**63 - 1)
SLOTS = st.lists(st.tuples(QUANTITIES, QUANTITIES, st.just(NEVER_REPORTED) | QUANTITIES), max_size=4)


@dataclass
class Row:
    period_start: datetime
    period_end: datetime
    as_of: datetime
    complete: list[int]
    partial: list[int]
    maximum: list[int]


@given(SLOTS, st.integers(0, 9), st.datetimes(timezones=st.just(UTC)), st.lists(st.integers(2, 30), unique=True))
def test_the_bytes_are_what_the_contract_would_write(slots, customer, as_of, days):
    row = Row(OCTOBER, NOVEMBER, as_of, *([slot[n] for slot in slots] for n in range(3)))
    cuts = [(OCTOBER.replace(day=day), {"events": day}) for day in sorted(days)]
    places = [("events", 0), ("recordings", 2), ("surveys", 9)]
    encoded = encode_snapshot(
        "acme",
        revision=7,
        periods=[row],
        places=places,
        sources=["eu", "us"],
        customer_revision=customer,
        cuts=lambda _organization, _period: cuts,
    )
    meters = {
        meter: MeterUsage(complete=slots[slot][0], partial=slots[slot][1], maximum=slots[slot][2])
        for meter, slot in places
        if slot < len(slots) and slots[slot][2] != NEVER_REPORTED
    }
    period = PeriodUsage(
        period_start=OCTOBER,
        period_end=NOVEMBER,
        as_of=as_of,
        customer_revision=customer,
        meters=meters,
        cuts=[UsageCut(at=at, used=used) for at, used in cuts],
    )
    expected = PeriodUsageSnapshot(organization_id="acme", revision=7, periods=[period], sources=["eu", "us"])
    assert PeriodUsageSnapshot.from_bytes(encoded) == expected
    assert (
        json.loads(encoded) == json.loads(expected.to_bytes()) or as_of.microsecond
    )  # fractions of a second are written with fewer zeros
