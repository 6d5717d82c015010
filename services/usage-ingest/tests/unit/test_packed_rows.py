"""Packed rows say what plain cells say: the fast way and the law are one (L1, L2, L3, L6)."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st
from quill_usage_ingest.domain.completeness import Completeness
from quill_usage_ingest.domain.counter_layout import CounterLayout
from quill_usage_ingest.domain.packed_cells import PackedCells
from quill_usage_ingest.domain.packed_counters import PackedCounters
from quill_usage_ingest.domain.period_usage import NOTHING_USED, CounterUsage
from quill_usage_ingest.domain.usage_cells import Cell, is_complete, join, rank_of

INSTANT = datetime(2026, 10, 2, tzinfo=UTC)
NAMES = ("a", "b", "c", "d", "e")
LAYOUT = CounterLayout(NAMES)

ranks = st.builds(
    rank_of, st.sampled_from(Completeness), st.integers(0, 3).map(lambda hours: INSTANT + timedelta(hours=hours))
)
claims = st.tuples(ranks, st.dictionaries(st.sampled_from(NAMES), st.integers(0, 5)))


@given(st.lists(claims, max_size=6))
def test_merging_packed_is_merging_cell_by_cell(arriving):
    packed, plain = PackedCells(LAYOUT), {}
    for rank, counters in arriving:
        before = plain
        plain = join(plain, {counter: Cell(rank, quantity) for counter, quantity in counters.items()})
        slots = LAYOUT.places(counters)
        packed, won = packed.joined(LAYOUT, slots, counters.values(), rank=rank)
        assert {NAMES[slot] for slot, *_ in won} == {name for name in plain if plain[name] != before.get(name)}
        assert packed.holds(slots, counters.values(), rank=rank) == all(
            plain[name] == (rank, quantity) for name, quantity in counters.items()
        )
    assert packed == plain
    assert PackedCells.of(plain, LAYOUT) == packed
    assert len(packed) == len(plain)


@given(st.lists(claims, max_size=6), st.booleans())
def test_moving_packed_counters_is_taking_out_and_putting_in(arriving, is_correction):
    cells, counters, expected = PackedCells(LAYOUT), PackedCounters(LAYOUT), {}
    for rank, claimed in arriving:
        before = dict(cells)
        cells, won = cells.joined(LAYOUT, LAYOUT.places(claimed), claimed.values(), rank=rank)
        counters, largest = counters.moved(LAYOUT, won, rank=rank, is_correction=is_correction)
        changed = [name for name in claimed if cells[name] != before.get(name)]
        for name in changed:
            usage = expected.get(name, NOTHING_USED)
            sides = {True: usage.complete, False: usage.partial}
            if name in before:
                sides[is_complete(before[name].rank)] -= before[name].quantity
            sides[is_complete(rank)] += claimed[name]
            to_date = sides[True] + sides[False]
            maximum = to_date if is_correction else max(usage.maximum, to_date)
            expected[name] = CounterUsage(sides[True], sides[False], maximum)
        assert largest == max((expected[name].to_date for name in changed), default=0)
    assert counters == expected
    assert PackedCounters.of(expected, LAYOUT) == counters


def test_a_reported_zero_is_a_fact_and_a_gap_is_none():
    cells, _ = PackedCells(LAYOUT).joined(
        LAYOUT, LAYOUT.places(["d"]), [0], rank=rank_of(Completeness.PARTIAL, INSTANT)
    )
    assert dict(cells) == {"d": Cell(rank_of(Completeness.PARTIAL, INSTANT), 0)}
    assert "a" not in cells
    assert cells.get("a") is None


def test_rows_are_read_by_any_later_layout_and_repacked_for_a_foreign_one():
    cells = PackedCells.of({"a": Cell(7, 1)}, LAYOUT)
    longer, foreign = LAYOUT.extended(["z", "a"]), CounterLayout(("z", "a"))
    assert longer.names == (*NAMES, "z")
    assert longer.continues(LAYOUT)
    assert PackedCells.of(cells, longer) is cells
    repacked = PackedCells.of(cells, foreign)
    assert list(repacked.ranks) == [0, 7]
    assert repacked == cells
