"""The fast decoder and the contract's model accept and refuse the same records."""

import json
from datetime import UTC, datetime

import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st
from quill_contracts.usage import UsageReport as WireUsageReport
from quill_runtime.consumption import Record, Rejected, rejection_of
from quill_usage_ingest.consumers import decode_usage_report
from quill_usage_ingest.wire import usage_reports
from quill_usage_ingest.wire.usage_reports import from_wire_usage_report

GOOD = {
    "report_id": "us:acme:2026-10-05",
    "source": "us",
    "organization_id": "acme",
    "window_start": "2026-10-05T00:00:00Z",
    "window_end": "2026-10-06T00:00:00Z",
    "completeness": "complete",
    "as_of": "2026-10-06T03:45:00Z",
    "counters": {"event_count_in_period": 12},
}


def with_raw(field: str, raw: str) -> bytes:
    """The good report with one field written as exactly this JSON text."""
    fields = {**{name: json.dumps(value) for name, value in GOOD.items()}, field: raw}
    return ("{" + ",".join(f'"{name}":{text}' for name, text in fields.items()) + "}").encode("utf-8", "surrogatepass")


FIELDS = [
    ("counters", '{"a":1.0}'),
    ("counters", '{"a":1e3}'),
    ("counters", '{"a":-1}'),
    ("counters", '{"a":-0}'),
    ("counters", '{"a":true}'),
    ("counters", '{"a":null}'),
    ("counters", '{"a":"1"}'),
    ("counters", '{"a":NaN}'),
    ("counters", '{"a":Infinity}'),
    ("counters", f'{{"a":{2**70}}}'),
    ("counters", '{"a":999999999999999}'),
    ("counters", '{"a":1000000000000000}'),
    ("counters", '{"":1}'),
    ("counters", json.dumps({"x" * 201: 1})),
    ("counters", json.dumps({"x" * 200: 1})),
    ("counters", json.dumps({f"c{n}": 1 for n in range(1001)})),
    ("counters", json.dumps({f"c{n}": 1 for n in range(1000)})),
    ("counters", "[]"),
    ("counters", "{}"),
    ("counters", '{"a":1,"a":2}'),
    ("counters", '{"\\ud800":1}'),
    ("teams", '{"1":{"a":1}}'),
    ("source", '"us\\n"'),
    ("source", '""'),
    ("source", '"a b"'),
    ("source", "7"),
    ("organization_id", '"acme\\n"'),
    ("organization_id", json.dumps("x" * 201)),
    ("license_id", '"a.b"'),
    ("license_id", "null"),
    ("license_id", '"a-b_1"'),
    ("report_id", json.dumps("é" * 200)),
    ("report_id", '""'),
    ("completeness", '"Complete"'),
    ("completeness", '"partial"'),
    ("completeness", '"corrected"'),
    ("correction", '{"actor":"ada","reason":"twice"}'),
    ("correction", '{"actor":"","reason":"twice"}'),
    ("correction", '{"actor":"ada"}'),
    ("as_of", '"2026-10-06T03:45:00"'),
    ("as_of", '"2026-10-06T03:45:00+02:00"'),
    ("as_of", '"2026-10-06T03:45:00+00:00"'),
    ("as_of", '"2026-10-06 03:45:00Z"'),
    ("as_of", '"2026-10-06T03:45Z"'),
    ("as_of", '"2026-10-06T03:45:00.1234567Z"'),
    ("as_of", '"2026-10-06T23:59:60Z"'),
    ("as_of", '"2026-10-06T24:00:00Z"'),
    ("as_of", '"2026-02-30T00:00:00Z"'),
    ("as_of", '"0000-01-01T00:00:00Z"'),
    ("as_of", '"9999-12-31T23:59:59Z"'),
    ("as_of", "1791172800"),
    ("as_of", '"1791172800"'),
    ("as_of", "null"),
    ("as_of", '"2026-10-06"'),
    ("window_end", '"2026-10-05T00:00:00Z"'),
    ("window_end", '"2026-10-06T00:00:00.000001Z"'),
    ("window_end", '"2026-10-05T12:00:00Z"'),
    ("window_end", '"2026-10-04T00:00:00Z"'),
    ("window_start", '"2026-10-05T12:00:00Z"'),
    ("window_start", '"2026-10-04T12:00:00Z"'),
    ("window_start", '"2026-10-05T01:00:00+01:00"'),
    ("added_later", '{"deep":[1,2,{"x":null}]}'),
    ("added_later", "NaN"),
    ("added_later", "1e999"),
    ("added_later", '"\\ud800"'),
    ("added_later", "[" * 100 + "]" * 100),
]
RAW = [
    b"",
    b"null",
    b"[]",
    b"{}",
    b"not json",
    b"\xff\xfe",
    b"\xef\xbb\xbf" + with_raw("source", '"us"'),
    with_raw("source", '"us"') + b" x",
    with_raw("source", '"us"')[:-1],
    with_raw("added_later", '"?"').replace(b"?", b"\xff"),
    with_raw("added_later", "[" * 50_000 + "]" * 50_000),
    b'{"a":' * 50_000,
    json.dumps({name: value for name, value in GOOD.items() if name != "as_of"}).encode(),
]
CORPUS = [with_raw(field, raw) for field, raw in FIELDS] + RAW


def accepted_by_contract(value: bytes) -> bool:
    try:
        WireUsageReport.from_bytes(value)
    except pydantic.ValidationError:
        return False
    return True


@pytest.mark.parametrize("value", CORPUS, ids=range(len(CORPUS)))
def test_both_decoders_accept_and_refuse_the_same(value):
    try:
        from_wire_usage_report(value)
    except (pydantic.ValidationError, usage_reports.UnstorableText):
        ours = False
    else:
        ours = True
    assert ours == accepted_by_contract(value)


@given(
    st.sampled_from(sorted({*GOOD, "correction", "license_id"})),
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats()
        | st.text(max_size=5)
        | st.sampled_from(list(map(str, GOOD.values()))),
        lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
        max_leaves=4,
    ),
)
def test_no_value_in_any_field_tells_the_decoders_apart(field, value):
    raw = with_raw(field, json.dumps(value))
    try:
        from_wire_usage_report(raw)
    except usage_reports.UnstorableText:
        assert accepted_by_contract(raw)
    except pydantic.ValidationError:
        assert not accepted_by_contract(raw)
    else:
        assert accepted_by_contract(raw)


def test_a_good_report_takes_the_fast_path_and_keeps_every_field(monkeypatch):
    monkeypatch.setattr(usage_reports, "_by_contract", lambda value: pytest.fail("took the slow path"))
    report = from_wire_usage_report(json.dumps(GOOD).encode())
    assert (report.report_id, report.organization_id, report.source) == ("us:acme:2026-10-05", "acme", "us")
    assert report.as_of == datetime(2026, 10, 6, 3, 45, tzinfo=UTC)
    assert report.counters == {"event_count_in_period": 12}


def test_the_same_content_written_otherwise_has_the_same_hash():
    one = from_wire_usage_report(json.dumps(GOOD).encode())
    other = from_wire_usage_report(json.dumps(dict(reversed(GOOD.items())), indent=1).encode())
    third = from_wire_usage_report(with_raw("counters", '{"event_count_in_period":13}'))
    assert one.content_hash == other.content_hash != third.content_hash


@pytest.mark.parametrize(
    ("value", "code", "attribute"),
    [
        (b"not json", "not_json", None),
        (b"\xff", "not_json", None),
        (b'{"a":' * 50_000, "not_json", None),
        (with_raw("counters", '{"events":-1}'), "invalid_message", "counters__events"),
        (with_raw("counters", f'{{"events":{2**70}}}'), "invalid_message", "counters__events"),
        (with_raw("counters", '{"events":1.5}'), "invalid_message", "counters__events"),
        (with_raw("correction", '{"actor":"ada"}'), "invalid_message", "correction__reason"),
        (with_raw("counters", '{"ev\\u0000ents":1}'), "invalid_message", "counters__ev\\0ents"),
        (with_raw("report_id", '"a\\u0000"'), "invalid_message", "report_id"),
        (None, "empty_value", None),
    ],
)
def test_a_refusal_says_which_field_and_why(value, code, attribute):
    with pytest.raises((Rejected, pydantic.ValidationError)) as refused:
        decode_usage_report(Record("usage.reports.v1", 0, 0, None, value, {}))
    rejection = rejection_of(refused.value)
    assert (rejection.code, rejection.attribute) == (code, attribute)


def test_a_wrong_team_does_not_keep_the_organizations_counters_out():
    """The teams' own consumer refuses it (`wire.team_reports`); limits do not wait for that."""
    value = with_raw("teams", '{"1":{"a":-1}}')
    assert from_wire_usage_report(value).counters == GOOD["counters"]
