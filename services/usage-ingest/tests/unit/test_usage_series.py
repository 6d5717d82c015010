"""A series is the cells again, added up by interval: nothing lost at its edges, and today marked (L6)."""

from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from quill_usage_ingest.domain.usage_series import Amount, SeriesInterval, SeriesSpan, series

DAYS = st.dates(date(2024, 1, 1), date(2026, 12, 31)).map(
    lambda day: datetime(day.year, day.month, day.day, tzinfo=UTC)
)
DAY = timedelta(days=1)
LATER = datetime(2030, 1, 1, tzinfo=UTC)


@given(DAYS, st.integers(1, 366), st.sampled_from(SeriesInterval), st.data())
def test_points_cover_the_span_without_a_gap_and_hold_every_amount(start, length, interval, data):
    span = SeriesSpan(start, start + length * DAY, interval)
    offsets = data.draw(st.lists(st.tuples(st.integers(0, length - 1), st.integers(0, 10**15)), max_size=20))
    amounts = [Amount(start + offset * DAY, quantity, is_partial=False) for offset, quantity in offsets]
    points = series(span, amounts, now=LATER)
    assert (points[0].start, points[-1].end) == (span.start, span.end)
    assert [point.start for point in points[1:]] == [point.end for point in points[:-1]]
    assert sum(point.quantity for point in points) == sum(amount.quantity for amount in amounts)
    for point in points:
        held = [amount.quantity for amount in amounts if point.start <= amount.at < point.end]
        assert point.quantity == sum(held)


@pytest.mark.parametrize(
    ("interval", "starts"),
    [
        (SeriesInterval.WEEK, ["2026-09-30", "2026-10-05", "2026-10-12"]),
        (SeriesInterval.MONTH, ["2026-09-30", "2026-10-01"]),
    ],
)
def test_weeks_begin_on_monday_and_the_first_interval_is_cut_to_the_span(interval, starts):
    span = SeriesSpan(datetime(2026, 9, 30, tzinfo=UTC), datetime(2026, 10, 14, tzinfo=UTC), interval)
    assert [point.start.date().isoformat() for point in series(span, [], now=LATER)] == starts


def test_a_point_is_partial_while_a_source_still_counts_in_it_or_it_is_not_over():
    start = datetime(2026, 10, 1, tzinfo=UTC)
    amounts = [Amount(start, 1, is_partial=True), Amount(start + DAY, 2, is_partial=False)]
    span = SeriesSpan(start, start + 4 * DAY, SeriesInterval.DAY)
    points = series(span, amounts, now=start + timedelta(days=2, hours=5))
    assert [(point.quantity, point.is_partial) for point in points] == [(1, True), (2, False), (0, True), (0, True)]
