"""When a period closes, and what comes after it (L21)."""

from datetime import UTC, datetime, timedelta

import pytest
from quill_invoicing.domain.collection import final_report_instant, report_instant
from quill_invoicing.domain.period_close import Grace, period_from
from quill_invoicing.domain.terms import TermsHistory
from quill_pricing.period import BillingPeriod


def at(month, day, *time_of_day):
    return datetime(2026, month, day, *time_of_day, tzinfo=UTC)


@pytest.mark.parametrize(
    ("now", "may"),
    [(at(11, 1), False), (at(11, 1, 23, 59, 59), False), (at(11, 2), True), (at(12, 24), True)],
)
def test_a_period_closes_when_its_grace_has_passed(october, now, may):
    assert Grace(timedelta(hours=24)).may_close(october, now=now) is may


def schedules_of(*versions):
    return TermsHistory.of(versions).schedules


def test_periods_follow_the_anchor_without_drift(make_terms):
    schedules = schedules_of(make_terms(schedule={"anchor": at(1, 31), "interval": "month"}))
    february = period_from(at(2, 28), schedules)
    assert (february.start, february.end) == (at(2, 28), at(3, 31))
    assert period_from(february.end, schedules).end == at(4, 30)


def test_after_a_moved_anchor_no_period_overlaps_and_none_is_missing(make_terms, october):
    moved = make_terms(
        revision=2,
        effective_at=at(10, 20),
        schedule={"anchor": at(10, 15), "interval": "month"},
        period={"start": at(10, 15), "end": at(11, 15)},
    )
    schedules = schedules_of(make_terms(), moved)
    assert period_from(october.start, schedules) == BillingPeriod(at(10, 1), at(10, 15))
    assert period_from(at(10, 15), schedules) == BillingPeriod(at(10, 15), at(11, 15))


def test_terms_agreed_in_a_later_period_do_not_move_one_that_is_still_to_be_closed(make_terms, october, november):
    """October waits for a source when weeks are agreed in the middle of November: it is closed as it was."""
    weeks = make_terms(
        revision=2,
        effective_at=at(11, 20),
        schedule={"anchor": at(11, 15), "interval": "week"},
        period={"start": at(11, 15), "end": at(11, 22)},
    )
    schedules = schedules_of(make_terms(), weeks)
    assert period_from(october.start, schedules) == october
    assert period_from(november.start, schedules) == BillingPeriod(at(11, 1), at(11, 15))
    assert period_from(at(11, 15), schedules) == BillingPeriod(at(11, 15), at(11, 22))


def test_reports_rise_strictly_and_leave_the_last_second_to_the_final_one(october):
    end = october.end
    assert report_instant(now=at(10, 5), last=None, period=october) == at(10, 5)
    assert report_instant(now=at(10, 5), last=at(10, 5), period=october) == at(10, 5, 0, 0, 1)
    assert report_instant(now=at(10, 5), last=at(10, 9), period=october) == at(10, 9, 0, 0, 1)
    assert report_instant(now=end + timedelta(hours=3), last=None, period=october) == end - timedelta(seconds=2)
    assert report_instant(now=end, last=end - timedelta(seconds=2), period=october) is None
    assert final_report_instant(october) == end - timedelta(seconds=1)
