"""CloudEvents as they come: read exactly, or refused by attribute (L4, L11)."""

from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import orjson
import pytest
from quill_contracts.meter_events import MeterEvent
from quill_usage_ingest.wire.meter_events import (
    BATCH_MAX,
    EVENT_BYTES_MAX,
    InvalidEvent,
    from_wire_event,
    shown,
    split_batch,
)

EVENT = {
    "specversion": "1.0",
    "id": "1",
    "source": "gateway",
    "type": "call",
    "subject": "acme",
    "time": "2026-10-05T12:30:00Z",
    "data": {"seconds": 1},
}


def encoded(**changes: object) -> bytes:
    return orjson.dumps({name: value for name, value in {**EVENT, **changes}.items() if value != "absent"})


def test_the_golden_event_of_the_contract_is_read():
    golden = Path(__file__).parents[4] / "libs/contracts/golden/usage.meter-events.v1.json"
    body = golden.read_bytes()
    event, wire = from_wire_event(body), MeterEvent.from_bytes(body)
    assert (event.event_id, event.source, event.event_type) == (wire.id, wire.source, wire.type)
    assert (event.organization_id, event.time, event.data) == (wire.subject, wire.time, wire.data)


def test_numbers_are_exact_decimals():
    body = b'{"specversion":"1.0","id":"1","source":"s","type":"t","subject":"acme","time":"2026-10-05T12:30:00Z",'
    event = from_wire_event(body + b'"data":{"a":0.1,"b":12345678901234567890.12345678901234567890,"c":7}}')
    assert event.data == {"a": Decimal("0.1"), "b": Decimal("12345678901234567890.12345678901234567890"), "c": 7}
    assert shown(event.data) == {"a": "0.1", "b": "12345678901234567890.12345678901234567890", "c": 7}


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("2026-10-05T12:30:00Z", datetime(2026, 10, 5, 12, 30, tzinfo=UTC)),
        ("2026-10-05t12:30:00z", datetime(2026, 10, 5, 12, 30, tzinfo=UTC)),
        ("2026-10-05T01:30:00+02:00", datetime(2026, 10, 4, 23, 30, tzinfo=UTC)),
        ("2026-10-05T12:30:00.123456789Z", datetime(2026, 10, 5, 12, 30, 0, 123456, tzinfo=UTC)),
    ],
)
def test_times_are_read_as_utc(written, meant):
    assert from_wire_event(encoded(time=written)).time == meant


@pytest.mark.parametrize(
    ("changes", "code", "attribute"),
    [
        ({"specversion": "0.3"}, "invalid_input", "specversion"),
        ({"specversion": "absent"}, "invalid_input", "specversion"),
        ({"id": "absent"}, "required", "id"),
        ({"id": ""}, "invalid_input", "id"),
        ({"id": 5}, "invalid_input", "id"),
        ({"id": "x" * 201}, "invalid_input", "id"),
        ({"source": "a\x00b"}, "invalid_input", "source"),
        ({"type": None}, "required", "type"),
        ({"subject": "absent"}, "required", "subject"),
        ({"subject": "a b"}, "invalid_input", "subject"),
        ({"subject": ["acme"]}, "invalid_input", "subject"),
        ({"time": "absent"}, "required", "time"),
        ({"time": "2026-10-05T12:30:00"}, "invalid_input", "time"),
        ({"time": "2026-10-05"}, "invalid_input", "time"),
        ({"time": "2026-02-30T00:00:00Z"}, "invalid_input", "time"),
        ({"time": "0001-01-01T00:00:00+10:00"}, "invalid_input", "time"),
        ({"time": 1759667400}, "invalid_input", "time"),
        ({"data": [1]}, "invalid_input", "data"),
        ({"data": "text"}, "invalid_input", "data"),
        ({"data": {str(n): n for n in range(101)}}, "invalid_input", "data"),
        ({"data": {"a": [[[[[[[[[[1]]]]]]]]]]}}, "invalid_input", "data"),
        ({"data_base64": "AAAA"}, "invalid_input", "data_base64"),
        ({"datacontenttype": "text/xml"}, "invalid_input", "datacontenttype"),
        ({"data": {"a": "x" * EVENT_BYTES_MAX}}, "event_too_large", None),
    ],
)
def test_what_is_no_event_is_refused_by_attribute(changes, code, attribute):
    with pytest.raises(InvalidEvent) as refused:
        from_wire_event(encoded(**changes))
    assert (refused.value.code, refused.value.attribute) == (code, attribute)


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b'"x"', b"\xff\xfe", b'{"a":' * 5_000, b'{"a":NaN}', b'{"a":"\\ud800"}', b'{"a":Infinity}'],
)
def test_what_is_not_json_or_no_object_is_refused(body):
    with pytest.raises(InvalidEvent):
        from_wire_event(body)


def test_what_cloudevents_allows_beside_is_let_be():
    event = from_wire_event(
        encoded(datacontenttype="application/json; charset=utf-8", traceparent="00-x", data="absent")
    )
    assert event.data == {}
    assert from_wire_event(encoded(datacontenttype="application/vnd.x+json")).data == {"seconds": 1}


def test_a_batch_is_split_into_the_exact_bytes_of_each_event():
    assert split_batch(b' [ {"a" : 1.10} ,{"b":"\\u00e9"}, 5 ] ') == [b'{"a" : 1.10}', b'{"b":"\\u00e9"}', b"5"]
    assert split_batch(b"[]") == []
    assert len(split_batch(b"[" + b",".join([b"{}"] * BATCH_MAX) + b"]")) == BATCH_MAX
    with pytest.raises(InvalidEvent, match="1001 events; send at most 1000") as refused:
        split_batch(b"[" + b",".join([b"{}"] * (BATCH_MAX + 1)) + b"]")
    assert refused.value.code == "batch_too_large"
    for body in (b"{}", b"[{]", b"[" * 5_000):
        with pytest.raises(InvalidEvent):
            split_batch(body)
