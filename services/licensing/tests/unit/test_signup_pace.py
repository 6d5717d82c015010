from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from quill_licensing.domain.signup_pace import Pace, TooManySignups

START = datetime(2026, 10, 1, tzinfo=UTC)
PACE = Pace(burst=3, interval=timedelta(seconds=60))

# second of the signup -> seconds to wait (0 = admitted)
STORY = [
    (0, 0),
    (0, 0),
    (0, 0),
    (0, 60),
    (59, 1),
    (60, 0),
    (60, 60),
    (179, 0),
    (180, 0),
    (181, 59),
    (10_000, 0),
    (10_000, 0),
    (10_000, 0),
    (10_000, 60),
]


def test_a_burst_passes_then_one_per_interval_and_a_refusal_says_how_long_to_wait():
    full_at = START
    for second, wait in STORY:
        now = START + timedelta(seconds=second)
        if wait:
            with pytest.raises(TooManySignups) as refused:
                PACE.admit(full_at=full_at, now=now)
            assert refused.value.retry_after == timedelta(seconds=wait), second
        else:
            full_at = PACE.admit(full_at=full_at, now=now)


@given(
    st.integers(1, 5),
    st.integers(1, 100),
    st.lists(st.integers(0, 50), max_size=60),
)
def test_no_span_ever_sees_more_than_the_burst_and_what_refilled_meanwhile(burst, interval, gaps):
    pace = Pace(burst=burst, interval=timedelta(seconds=interval))
    now, full_at, admitted = START, START, []
    for gap in gaps:
        now += timedelta(seconds=gap)
        try:
            full_at = pace.admit(full_at=full_at, now=now)
        except TooManySignups as refused:
            pace.admit(full_at=full_at, now=now + refused.retry_after)
        else:
            admitted.append(now)
    for first in range(len(admitted)):
        for last in range(first, len(admitted)):
            span = admitted[last] - admitted[first]
            assert last - first + 1 <= burst + span // pace.interval


@pytest.mark.parametrize(("burst", "seconds"), [(0, 60), (1, 0), (1, -1)])
def test_a_pace_that_admits_nobody_or_everybody_is_refused(burst, seconds):
    with pytest.raises(ValueError, match="pace"):
        Pace(burst=burst, interval=timedelta(seconds=seconds))
