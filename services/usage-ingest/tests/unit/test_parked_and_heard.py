"""Whose report a dead letter is; who was heard of, written once a minute; which sources are new to whom."""

import base64
import gzip
from datetime import UTC, datetime, timedelta

import orjson
import pytest
from quill_contracts.intakes import DailyReport, ReportRun
from quill_contracts.topics import DAILY_REPORTS, METER_EVENTS, REPORT_RUNS, USAGE_REPORTS
from quill_pricing.period import BillingSchedule, Interval
from quill_usage_ingest.domain.organization import UsageStanding
from quill_usage_ingest.store.heard_sources import WRITE_EVERY, HeardSources
from quill_usage_ingest.usecases.new_sources import new_sources
from quill_usage_ingest.wire.parked_reports import ParkedReport, read_parked_report

DAY = datetime(2026, 10, 5, tzinfo=UTC)
NATIVE = {"source": "us", "organization_id": "acme", "window_start": "2026-10-05T00:00:00Z", "counters": {"c": -1}}
EVENT = {"source": "gateway", "subject": "acme", "time": "2026-10-05T00:00:00Z"}
POINTER = {
    "version": 2,
    "run_id": "r1",
    "date": "2026-10-05",
    "report_completeness": "complete",
    "region": "US",
    "bucket": "b",
    "manifest_key": "m",
    "chunk_prefix": "p",
    "chunk_count": 1,
    "total_orgs": 1,
}


def daily(body: object, *, packed: bool = False) -> bytes:
    text = body if isinstance(body, bytes) else orjson.dumps(body)
    held = base64.b64encode(gzip.compress(text)).decode() if packed else text.decode()
    encoding = "base64-gzip" if packed else "identity"
    return DailyReport(generation="v1", source="eu", as_of=DAY, encoding=encoding, body=held).to_bytes()


@pytest.mark.parametrize(
    ("topic", "value", "read"),
    [
        (USAGE_REPORTS, orjson.dumps(NATIVE), ParkedReport("us", "acme", DAY)),
        (USAGE_REPORTS, orjson.dumps(NATIVE | {"source": "a b"}), ParkedReport(None, "acme", DAY)),
        (USAGE_REPORTS, orjson.dumps(NATIVE | {"organization_id": 7}), ParkedReport("us", "key-1", DAY)),
        (USAGE_REPORTS, orjson.dumps(NATIVE | {"window_start": "soon"}), ParkedReport("us", "acme", None)),
        (
            USAGE_REPORTS,
            orjson.dumps(NATIVE | {"window_start": "2026-10-05T02:00:00+02:00"}),
            ParkedReport("us", "acme"),
        ),
        (USAGE_REPORTS, b"not json", ParkedReport(None, "key-1")),
        (USAGE_REPORTS, b"[1]", ParkedReport(None, "key-1")),
        (USAGE_REPORTS, None, ParkedReport(None, "key-1")),
        (METER_EVENTS, orjson.dumps(EVENT), ParkedReport("gateway", "acme", DAY)),
        (
            DAILY_REPORTS,
            daily({"organization_id": "acme", "usage_report": {"date": "2026-10-05", "event_count_in_period": -1}}),
            ParkedReport("eu", "acme", DAY),
        ),
        (
            DAILY_REPORTS,
            daily(
                {
                    "usage_report": {
                        "organization_id": "acme",
                        "period": {"start_inclusive": "2026-10-05T00:00:00+00:00"},
                    }
                },
                packed=True,
            ),
            ParkedReport("eu", "acme", DAY),
        ),
        (DAILY_REPORTS, daily({"usage_report": {"date": "someday"}}), ParkedReport("eu")),
        (DAILY_REPORTS, daily(b"{"), ParkedReport("eu")),
        (DAILY_REPORTS, b"{", ParkedReport()),
        (
            REPORT_RUNS,
            ReportRun(source="eu", sent_at=DAY, body=orjson.dumps(POINTER).decode()).to_bytes(),
            ParkedReport("us", None, DAY),
        ),
        (REPORT_RUNS, ReportRun(source="eu", sent_at=DAY, body="{}").to_bytes(), ParkedReport("eu")),
    ],
)
def test_a_dead_letter_is_read_as_far_as_it_can_be(topic, value, read):
    assert read_parked_report(topic.name, b"key-1", value) == read


def test_who_is_heard_often_is_written_once_a_minute_and_never_forgotten():
    heard, written = HeardSources(), []
    for seconds in range(0, 200, 5):
        heard.note("us", DAY + timedelta(seconds=seconds))
        if due := heard.to_write():
            written.append(due["us"])
            heard.wrote(due)
    assert written == [DAY + number * WRITE_EVERY for number in range(4)]
    heard.note("eu", DAY)
    assert heard.to_write() == {"eu": DAY}
    assert heard.to_write() == {"eu": DAY}, "what was not written stays"


def test_what_is_no_source_name_is_counted_and_not_watched():
    heard = HeardSources()
    for name in ("https://gateway.example/", "", "a" * 101, "us\n"):
        heard.note(name, DAY)
    assert heard.to_write() == {}


def test_a_source_is_new_to_an_organization_once():
    standing = UsageStanding(BillingSchedule(DAY, Interval.parse("month")), 3, ["us"])
    pairs = [("acme", "us"), ("acme", "eu"), ("acme", "eu"), ("acme", "no name"), ("globex", "us")]
    known = {"acme": standing, "globex": UsageStanding(standing.schedules, 0)}
    assert new_sources(pairs, known) == {"acme": {"eu"}, "globex": {"us"}}
