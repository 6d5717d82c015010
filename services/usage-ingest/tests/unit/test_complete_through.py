"""Watermarks and complete days, in any order: the largest word counts, and a hole stays a hole (L1)."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from quill_usage_ingest.domain.complete_through import HOLES_MAX, NOTHING_TOLD, CompleteThrough, Span

OCTOBER = datetime(2026, 10, 1, tzinfo=UTC)


def at(day: int) -> datetime:
    return OCTOBER + timedelta(days=day - 1)


def day(number: int) -> Span:
    return Span(at(number), at(number + 1))


def told(*said: int | Span, since: CompleteThrough = NOTHING_TOLD) -> CompleteThrough:
    """``told(3, day(3))``: a watermark at 3 October, then the complete day after it."""
    complete = since
    for each in said:
        complete = complete.told_before(at(each)) if isinstance(each, int) else complete.told(each)
    return complete


@pytest.mark.parametrize(
    ("said", "through", "ahead"),
    [
        ((), None, ()),
        ((3,), 3, ()),
        ((3, 3, 2), 3, ()),
        ((2, 3), 3, ()),
        ((3, day(3)), 4, ()),
        ((3, day(2)), 3, ()),
        ((3, day(4)), 3, (day(4),)),
        ((3, day(4), day(3)), 5, ()),
        ((3, day(5), day(4)), 3, (Span(at(4), at(6)),)),
        ((3, day(5), 5), 6, ()),
        ((3, day(5), 4), 4, (day(5),)),
        ((day(5),), 6, ()),
        ((day(5), day(4)), 6, ()),
        ((day(5), day(7)), 6, (day(7),)),
    ],
)
def test_what_was_told_and_what_is_complete_then(said, through, ahead):
    assert told(*said) == CompleteThrough(None if through is None else at(through), ahead)


CLAIMS = st.lists(st.integers(1, 20) | st.builds(day, st.integers(1, 20)), max_size=12)


@given(CLAIMS.flatmap(lambda said: st.tuples(st.just(said), st.permutations([*said, *said]))))
def test_once_there_is_a_beginning_order_and_repetition_do_not_matter(said_and_again):
    said, again = said_and_again
    begun = told(1)
    assert told(*again, since=begun) == told(*said, since=begun)


@given(CLAIMS)
def test_it_never_falls_and_never_passes_a_day_that_nobody_told(said):
    complete = told(1)
    for each in said:
        after = told(each, since=complete)
        assert after.through >= complete.through
        complete = after
    largest = max((each for each in said if isinstance(each, int)), default=1)
    days = {each.start for each in said if isinstance(each, Span)}
    expected = at(largest)
    while expected in days:
        expected += timedelta(days=1)
    assert complete.through == expected


def test_beyond_a_thousand_holes_the_latest_is_forgotten_which_only_claims_less():
    hours = [Span(OCTOBER + timedelta(hours=2 * n), OCTOBER + timedelta(hours=2 * n + 1)) for n in range(1, 1_100)]
    complete = told(*hours, since=told(1))
    assert len(complete.ahead) == HOLES_MAX
    assert complete.through == OCTOBER


def test_an_empty_span_is_none():
    with pytest.raises(ValueError, match="must end after its start"):
        Span(at(1), at(1))
