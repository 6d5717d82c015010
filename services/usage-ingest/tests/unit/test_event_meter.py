"""What an event is worth to a meter: exact numbers or a refusal that names the member (L11)."""

from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from quill_usage_ingest.domain.event_meter import Aggregation, EventMeter, UnfitEvent
from quill_usage_ingest.domain.meter_event import MeterEvent, content_of, name_of
from quill_usage_ingest.domain.usage_report import QUANTITY_MAX

NOON = datetime(2026, 10, 5, 12, 30, tzinfo=UTC)


def event(**data: object) -> MeterEvent:
    name, content = name_of("acme", "gateway", "1"), content_of("call", NOON, data)
    return MeterEvent("acme", "gateway", "1", "call", NOON, data, name, content)


def meter(aggregation: str = "sum", *, value: str | None = "seconds", decimals: int = 0, **more) -> EventMeter:
    return EventMeter("compute", "call", Aggregation(aggregation), value=value, decimals=decimals, **more)


@pytest.mark.parametrize(
    ("given_value", "decimals", "quantity"),
    [
        (12, 0, 12),
        ("12", 0, 12),
        (0, 3, 0),
        ("0.000", 3, 0),
        (Decimal("12.375"), 3, 12_375),
        ("12.375", 3, 12_375),
        (Decimal("12.3750000"), 3, 12_375),
        (Decimal("1E+3"), 2, 100_000),
        (Decimal("0.1"), 12, 100_000_000_000),
        (Decimal("0.000000000001"), 12, 1),
        (QUANTITY_MAX, 0, QUANTITY_MAX),
        ("999.999999999999", 12, QUANTITY_MAX),
    ],
)
def test_a_value_is_read_exactly_in_the_meters_smallest_unit(given_value, decimals, quantity):
    assert meter(decimals=decimals).measure(event(seconds=given_value)).quantity == quantity


@pytest.mark.parametrize(
    ("given_value", "said"),
    [
        (None, "needs it for the meter compute"),
        (-1, "must not be negative"),
        (Decimal("-0.001"), "must not be negative"),
        ("-5", "must not be negative"),
        (Decimal("0.0001"), "at most 3 decimal places"),
        ("1.2345", "at most 3 decimal places"),
        (2**70, "must be at most"),
        (10**12, "must be at most"),
        (Decimal("1E+400"), "must be at most"),
        (Decimal("1E+1000000000"), "must be at most"),
        (Decimal("1E-1000000000"), "at most 3 decimal places"),
        ("NaN", "must be a number"),
        ("Infinity", "must be a number"),
        (Decimal("NaN"), "must be a number"),
        (Decimal("Infinity"), "must be a number"),
        ("1e3", "must be a number"),
        ("", "must be a number"),
        ("१२", "must be a number"),
        (" 12", "must be a number"),
        (True, "must be a number"),
        ([1], "must be a number"),
        ({"a": 1}, "must be a number"),
    ],
)
def test_what_is_no_quantity_is_refused_by_member_and_fix(given_value, said):
    with pytest.raises(UnfitEvent, match=said) as refused:
        meter(decimals=3).measure(event(seconds=given_value))
    assert refused.value.attribute == "data__seconds"


def test_without_decimals_a_whole_number_is_asked_for():
    with pytest.raises(UnfitEvent, match="whole number"):
        meter().measure(event(seconds=Decimal("1.5")))


@given(st.integers(0, QUANTITY_MAX), st.integers(0, 12), st.booleans())
def test_reading_is_exact_multiplication(quantity, decimals, is_text):
    value = Decimal(quantity).scaleb(-decimals)
    given_value = f"{value:f}" if is_text else value
    assert meter(decimals=decimals).measure(event(seconds=given_value)).quantity == quantity


def test_counting_needs_no_value_and_distinct_values_take_texts_and_numbers():
    assert meter("count", value=None).measure(event()).quantity == 1
    seen = [meter("unique_count").measure(event(seconds=value)).value for value in (11, "11", Decimal("11.0"), "x")]
    assert seen[0] == seen[1] == seen[2] != seen[3]
    for wrong in (None, True, "", "x" * 1_001, [1], Decimal("1E+2000")):
        with pytest.raises(UnfitEvent):
            meter("unique_count").measure(event(seconds=wrong))


def test_groups_are_what_the_event_says_of_each_dimension():
    grouped = meter(group_by=("model", "team"))
    assert grouped.measure(event(seconds=1, model="large", team=7)).group == ("large", "7")
    assert grouped.measure(event(seconds=1, team=Decimal("7.50"))).group == (None, "7.5")
    assert grouped.measure(event(seconds=1, model=True, team="")).group == ("true", "")
    for wrong in ("x" * 201, "a\x00b", ["a"], {"a": 1}):
        with pytest.raises(UnfitEvent, match="data__model"):
            grouped.measure(event(seconds=1, model=wrong))


def test_a_meter_takes_its_type_from_its_instant_on():
    assert meter().takes(event())
    assert meter(counts_from=NOON.replace(minute=0)).takes(event())
    # The window that holds the instant starts before it (L2).
    assert not meter(counts_from=NOON).takes(event())
    other = EventMeter("compute", "other", Aggregation.COUNT)
    assert not other.takes(event())


def test_a_definition_comes_back_from_its_document_and_every_part_of_it_tells():
    full = EventMeter("compute", "call", Aggregation.LAST, "seconds", ("a", "b"), 3, NOON)
    assert EventMeter.from_document(full.document()) == full
    others = [
        EventMeter("other", "call", Aggregation.LAST, "seconds", ("a", "b"), 3, NOON),
        EventMeter("compute", "other", Aggregation.LAST, "seconds", ("a", "b"), 3, NOON),
        EventMeter("compute", "call", Aggregation.MAX, "seconds", ("a", "b"), 3, NOON),
        EventMeter("compute", "call", Aggregation.LAST, "other", ("a", "b"), 3, NOON),
        EventMeter("compute", "call", Aggregation.LAST, "seconds", ("b", "a"), 3, NOON),
        EventMeter("compute", "call", Aggregation.LAST, "seconds", ("a", "b"), 2, NOON),
        EventMeter("compute", "call", Aggregation.LAST, "seconds", ("a", "b"), 3, None),
    ]
    assert len({each.fingerprint for each in [full, *others]}) == 8


def test_content_is_what_is_said_and_not_how_it_is_written():
    one = content_of("call", NOON, {"a": Decimal("1.50"), "b": [1, {"c": None}]})
    assert one == content_of("call", NOON, {"b": [Decimal("1.0"), {"c": None}], "a": Decimal("1.5")})
    different = [{"a": "1.5"}, {"a": Decimal("1.51")}, {"a": True}, {"a": 1}, {"a": -1}, {"a": "True"}, {"b": 1}, {}]
    assert len({content_of("call", NOON, data) for data in different}) == len(different)
    assert name_of("a", "bc", "d") != name_of("ab", "c", "d") != name_of("a", "b", "cd")
