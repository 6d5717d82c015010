"""When a period closes, and what comes after it (L21)."""

from datetime import UTC, datetime, timedelta

import pytest
from quill_invoicing.domain.collection import final_report_instant, report_instant
from quill_invoicing.domain.period_close import Grace, open_period_given, period_after
from quill_pricing.period import BillingPeriod


def at(month, day, *time_of_day):
    return datetime(2026, month, day, *time_of_day, tzinfo=UTC)


@pytest.mark.parametrize(
    ("now", "may"),
    [(at(11, 1), False), (at(11, 1, 23, 59, 59), False), (at(11, 2), True), (at(12, 24), True)],
)
def test_a_period_closes_when_its_grace_has_passed(october, now, may):
    assert Grace(timedelta(hours=24)).may_close(october, now=now) is may


def test_periods_follow_the_anchor_without_drift(make_terms):
    terms = make_terms(schedule={"anchor": at(1, 31), "interval": "month"})
    february = period_after(BillingPeriod(at(1, 31), at(2, 28)), terms)
    assert (february.start, february.end) == (at(2, 28), at(3, 31))
    assert period_after(february, terms).end == at(4, 30)


def test_after_a_moved_anchor_no_period_overlaps_and_none_is_missing(make_terms, october):
    moved = make_terms(
        schedule={"anchor": at(10, 15), "interval": "month"}, period={"start": at(10, 15), "end": at(11, 15)}
    )
    shortened = open_period_given(october, moved)
    assert (shortened.start, shortened.end) == (at(10, 1), at(10, 15))
    following = period_after(shortened, moved)
    assert (following.start, following.end) == (at(10, 15), at(11, 15))


def test_terms_of_a_later_period_do_not_move_the_open_one(make_terms, october, november):
    later = make_terms(period={"start": november.start, "end": november.end})
    assert open_period_given(october, later) == october


def test_reports_rise_strictly_and_leave_the_last_second_to_the_final_one(october):
    end = october.end
    assert report_instant(now=at(10, 5), last=None, period=october) == at(10, 5)
    assert report_instant(now=at(10, 5), last=at(10, 5), period=october) == at(10, 5, 0, 0, 1)
    assert report_instant(now=at(10, 5), last=at(10, 9), period=october) == at(10, 9, 0, 0, 1)
    assert report_instant(now=end + timedelta(hours=3), last=None, period=october) == end - timedelta(seconds=2)
    assert report_instant(now=end, last=end - timedelta(seconds=2), period=october) is None
    assert final_report_instant(october) == end - timedelta(seconds=1)
