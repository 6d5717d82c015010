"""PostHog's daily report: which day, which counters, and what is refused by name."""

import json
from datetime import UTC, datetime, timedelta

import pytest
from quill_usage_ingest.domain.completeness import Completeness
from quill_usage_ingest.wire.daily_reports import InvalidDailyReport, from_wire_daily_report, to_usage_report

NOW = datetime(2026, 10, 6, 3, 45, tzinfo=UTC)
DAY = datetime(2026, 10, 5, tzinfo=UTC)
GOOD = {
    "organization_id": "acme",
    "organization_name": "Acme",
    "date": "2026-10-05",
    "period": {"start_inclusive": "2026-10-05T00:00:00+00:00", "end_inclusive": "2026-10-05T23:59:59.999999+00:00"},
    "event_count_in_period": 120,
    "recording_count_in_period": 0,
    "dashboard_count": 4,
    "dwh_total_storage_in_s3_in_mib": 1.5,
    "plugins_enabled": {"geoip": 1},
    "teams": {"1": {"event_count_in_period": 120, "dashboard_count": -1}},
}


def read(now: datetime = NOW, metered: tuple[str, ...] = (), **changed):
    body = json.dumps({**GOOD, **changed}).encode()
    return to_usage_report(from_wire_daily_report(body), source="acme-eu", metered_counters=metered, now=now)


def test_counters_are_the_fields_that_end_in_period_and_those_of_the_catalog():
    plain, _ = read()
    assert plain.counters == {"event_count_in_period": 120, "recording_count_in_period": 0}
    catalogued, note = read(metered=("dashboard_count", "dwh_total_storage_in_s3_in_mib"))
    assert catalogued.counters == {**plain.counters, "dashboard_count": 4}
    assert note == {"left_out_not_integer": ["dwh_total_storage_in_s3_in_mib"]}


@pytest.mark.parametrize(
    ("fields", "now", "completeness"),
    [
        ({"period": None}, DAY + timedelta(days=1), Completeness.COMPLETE),
        ({"date": None}, DAY + timedelta(days=1), Completeness.COMPLETE),
        ({}, DAY + timedelta(days=1) - timedelta(microseconds=1), Completeness.PARTIAL),
        ({}, DAY, Completeness.PARTIAL),
    ],
)
def test_the_day_is_complete_once_it_has_ended(fields, now, completeness):
    report, _ = read(now=now, **fields)
    assert (report.window.start, report.window.end) == (DAY, DAY + timedelta(days=1))
    assert (report.completeness, report.as_of, report.source) == (completeness, now, "acme-eu")


def test_a_day_that_begins_by_a_fast_clock_is_taken():
    """K12: a sender 45 s fast reports its new day before ours begins; 121 s is refused with the field."""
    assert read(now=DAY - timedelta(seconds=45))[0].window.start == DAY
    with pytest.raises(InvalidDailyReport, match="has not begun"):
        read(now=DAY - timedelta(seconds=121))


@pytest.mark.parametrize(
    ("changed", "attribute"),
    [
        ({"event_count_in_period": -1}, "event_count_in_period"),
        ({"event_count_in_period": 10**15}, "event_count_in_period"),
        ({"event_count_in_period": 2**70}, "event_count_in_period"),
        ({"event_count_in_period": 1.5}, "event_count_in_period"),
        ({"event_count_in_period": True}, "event_count_in_period"),
        ({"event_count_in_period": "120"}, "event_count_in_period"),
        ({"event_count_in_period": None}, "event_count_in_period"),
        ({"dashboard_count": -4}, "dashboard_count"),
        ({"teams": {"7": {"event_count_in_period": -1}}}, "teams__7__event_count_in_period"),
        ({"teams": {"7": 1}}, "teams__7"),
        ({"teams": []}, "teams"),
        ({"date": "yesterday"}, "date"),
        ({"date": 5}, "date"),
        ({"date": "9999-12-31", "period": None}, "date"),
        ({"date": "2026-10-04"}, "date"),
        ({"date": None, "period": None}, "date"),
        ({"date": "2026-10-07", "period": None}, "date"),
        ({"period": "today"}, "period"),
        ({"period": {}}, "period__start_inclusive"),
        ({"period": {**GOOD["period"], "start_inclusive": "2026-10-05T00:00:00"}}, "period__start_inclusive"),
        ({"period": {**GOOD["period"], "start_inclusive": "2026-10-05T01:00:00Z"}}, "period__start_inclusive"),
        ({"period": {**GOOD["period"], "end_inclusive": "2026-10-06T00:00:00Z"}}, "period__end_inclusive"),
        ({"period": {**GOOD["period"], "end_inclusive": 7}}, "period__end_inclusive"),
    ],
)
def test_what_is_wrong_is_named(changed, attribute):
    with pytest.raises(InvalidDailyReport) as refused:
        read(metered=("dashboard_count",), **changed)
    assert refused.value.attribute == attribute
    assert attribute in str(refused.value)


@pytest.mark.parametrize(
    ("body", "code", "attribute"),
    [
        (b"", "not_json", None),
        (b"\xff", "not_json", None),
        (b'{"event_count_in_period":NaN}', "not_json", None),
        (b"[" * 50_000, "not_json", None),
        (b"[]", "invalid_input", None),
        (b"{}", "required", "organization_id"),
        (b'{"organization_id":7}', "invalid_input", "organization_id"),
    ],
)
def test_a_body_without_an_organization_is_refused(body, code, attribute):
    with pytest.raises(InvalidDailyReport) as refused:
        from_wire_daily_report(body)
    assert (refused.value.code, refused.value.attribute) == (code, attribute)
