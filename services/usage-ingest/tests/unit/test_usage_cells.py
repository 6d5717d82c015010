"""Cells merge as L1 says, whatever the order, the repetition and the cut."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from quill_usage_ingest.domain.completeness import Completeness
from quill_usage_ingest.domain.usage_cells import Cell, as_of_rank, changes_by, is_complete, join, rank_of

INSTANTS = st.datetimes(timezones=st.just(UTC))
RANKS = st.builds(
    rank_of, st.sampled_from(Completeness), st.sampled_from([datetime(2026, 10, d, tzinfo=UTC) for d in (1, 2)])
)
CELLS = st.dictionaries(st.sampled_from("abc"), st.builds(Cell, RANKS, st.integers(0, 3)))


@given(CELLS, CELLS, CELLS)
def test_joining_cells_is_commutative_associative_and_idempotent(one, two, three):
    assert join(one, two) == join(two, one)
    assert join(join(one, two), three) == join(one, join(two, three))
    assert join(one, one) == one


@given(CELLS, CELLS)
def test_the_changes_of_a_claim_are_what_joining_it_changes(known, claimed):
    changes = changes_by(claimed, to=known)
    after = {**known, **{counter: change.after for counter, change in changes.items()}}
    assert after == join(known, claimed)


@given(st.tuples(st.sampled_from(Completeness), INSTANTS), st.tuples(st.sampled_from(Completeness), INSTANTS))
def test_ranks_order_by_completeness_and_then_by_as_of(one, other):
    plain = [(list(Completeness).index(completeness), as_of) for completeness, as_of in (one, other)]
    assert (rank_of(*one) < rank_of(*other)) == (plain[0] < plain[1])
    assert 0 < rank_of(*one) < 2**63
    assert as_of_rank(rank_of(*one)) == one[1]
    assert is_complete(rank_of(*one)) == (one[0] is not Completeness.PARTIAL)


EARLY = datetime(2026, 10, 6, tzinfo=UTC)
LATE = EARLY + timedelta(microseconds=1)


@pytest.mark.parametrize(
    ("first", "second", "winner"),
    [
        (("partial", EARLY, 9), ("partial", LATE, 5), 5),
        (("partial", LATE, 9), ("complete", EARLY, 5), 5),
        (("complete", LATE, 9), ("corrected", EARLY, 5), 5),
        (("complete", EARLY, 9), ("complete", LATE, 5), 5),
        (("complete", EARLY, 9), ("complete", EARLY, 5), 9),
        (("complete", LATE, 9), ("partial", LATE, 99), 9),
        (("complete", LATE, 0), ("complete", EARLY, 9), 0),
    ],
)
def test_a_cell_goes_to_the_claim_of_higher_rank_and_between_equals_to_the_larger(first, second, winner):
    cells = [{"events": Cell(rank_of(Completeness(c), as_of), quantity)} for c, as_of, quantity in (first, second)]
    assert join(*cells)["events"].quantity == winner


def test_a_counter_missing_in_a_later_report_keeps_what_it_had():
    early = {"events": Cell(10, 5), "recordings": Cell(10, 7)}
    assert join(early, {"events": Cell(20, 6)}) == {"events": Cell(20, 6), "recordings": Cell(10, 7)}
