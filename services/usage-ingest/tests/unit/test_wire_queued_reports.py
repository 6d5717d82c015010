"""Reports as a queue holds them: what is read, and by which name each malformed one is refused (L4)."""

import base64
import gzip
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from quill_contracts.intakes import DailyReport
from quill_usage_ingest.domain.completeness import Completeness
from quill_usage_ingest.wire import queued_reports
from quill_usage_ingest.wire.daily_reports import InvalidDailyReport
from quill_usage_ingest.wire.queued_reports import read_queued_report

SENT = datetime(2026, 10, 6, 3, 45, tzinfo=UTC)
REPORT = {"date": "2026-10-05", "event_count_in_period": 12, "teams": {"1": {"event_count_in_period": 12}}}


def packed(content: bytes) -> str:
    return base64.b64encode(gzip.compress(content)).decode()


def carried(**changed: Any) -> bytes:
    return json.dumps({"organization_id": "acme", "usage_report": {**REPORT, **changed}}).encode()


def queued(body: str, **changed: Any) -> DailyReport:
    given = {"generation": "v1", "source": "us", "as_of": SENT, "encoding": "base64-gzip", "body": body}
    return DailyReport(**{**given, **changed})


@pytest.mark.parametrize("encoding", ["identity", "base64-gzip"])
def test_a_message_is_read_as_a_claim_with_its_teams_and_bytes(encoding):
    body = carried().decode() if encoding == "identity" else packed(carried())
    read = read_queued_report(queued(body, encoding=encoding), {"events"})
    report = read.report
    assert (report.organization_id, report.source, dict(report.counters)) == (
        "acme",
        "us",
        {"event_count_in_period": 12},
    )
    assert (report.completeness, report.as_of) == (Completeness.COMPLETE, SENT)
    assert (read.body, read.fields["teams"], read.note) == (carried(), REPORT["teams"], {})


def test_a_redelivery_is_the_same_claim_and_a_later_message_another():
    first, again = (read_queued_report(queued(packed(carried())), ()).report for _ in "12")
    later = read_queued_report(queued(packed(carried()), as_of=SENT + timedelta(hours=6)), ()).report
    assert first == again
    assert later.content_hash != first.content_hash


def test_the_carrier_says_whether_a_day_is_still_counted_and_where_the_line_stood():
    daily = queued(
        carried().decode(), encoding="identity", generation="v2", completeness="partial", run_id="r1", line=7
    )
    read = read_queued_report(daily, ())
    assert read.report.completeness is Completeness.PARTIAL
    assert read.note == {"run_id": "r1", "line": 7}


def test_a_day_that_is_not_over_when_the_message_was_sent_is_partial():
    read = read_queued_report(queued(packed(carried()), as_of=datetime(2026, 10, 5, 18, tzinfo=UTC)), ())
    assert read.report.completeness is Completeness.PARTIAL


@pytest.mark.parametrize(
    ("body", "code", "attribute"),
    [
        ("%%%", "bad_base64", "body"),
        ("é", "bad_base64", "body"),
        (base64.b64encode(b"plain").decode(), "bad_gzip", "body"),
        (base64.b64encode(gzip.compress(carried())[:-20]).decode(), "truncated_gzip", "body"),
        (base64.b64encode(gzip.compress(carried())[:6]).decode(), "truncated_gzip", "body"),
        (packed(b"not json"), "not_json", "body"),
        (packed(b"[]"), "required", "usage_report"),
        (packed(b'{"organization_id":"acme"}'), "required", "usage_report"),
        (packed(b'{"organization_id":"acme","usage_report":[]}'), "required", "usage_report"),
        (packed(b'{"usage_report":{"date":"2026-10-05"}}'), "required", "organization_id"),
        (packed(b'{"organization_id":7,"usage_report":{"date":"2026-10-05"}}'), "invalid_input", "organization_id"),
        (packed(carried(organization_id="globex")), "invalid_input", "organization_id"),
        (packed(carried(event_count_in_period=2**70)), "invalid_input", "event_count_in_period"),
        (packed(carried(event_count_in_period=-1)), "invalid_input", "event_count_in_period"),
        (packed(carried(event_count_in_period="12")), "invalid_input", "event_count_in_period"),
        (packed(carried(event_count_in_period=1.5)), "invalid_input", "event_count_in_period"),
        (packed(carried(event_count_in_period=True)), "invalid_input", "event_count_in_period"),
        (packed(carried(event_count_in_period=float("nan"))), "not_json", "body"),
        (packed(carried(date="yesterday")), "invalid_input", "date"),
        (packed(carried(date="2026-10-07")), "invalid_input", "date"),
        (packed(carried(teams=[])), "invalid_input", "teams"),
        (packed(carried(teams={"1": {"a_in_period": -1}})), "invalid_input", "teams__1__a_in_period"),
        (packed(b"[" * 100_000), "not_json", "body"),
    ],
)
def test_a_malformed_message_is_refused_by_name(body, code, attribute):
    with pytest.raises(InvalidDailyReport) as refused:
        read_queued_report(queued(body), ())
    assert (refused.value.code, refused.value.attribute) == (code, attribute)


def test_a_bomb_is_not_opened(monkeypatch):
    monkeypatch.setattr(queued_reports, "OPENED_BYTES_MAX", 1_000_000)
    with pytest.raises(InvalidDailyReport, match="opens to more than") as refused:
        read_queued_report(queued(packed(b" " * 10_000_000)), ())
    assert refused.value.code == "too_large"
