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
from quill_usage_ingest.store.array_text import array_text
from quill_usage_ingest.store.short_vectors import maximum_text, partial_text, ranks_text, whole_period, whole_ranks

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


many = st.lists(st.integers(0, 10**15), max_size=12)
rank_vectors = st.one_of(
    st.lists(st.integers(0, 2**61 - 1), max_size=12),
    st.tuples(st.integers(0, 2**61 - 1), st.integers(0, 12)).map(lambda alike: [alike[0]] * alike[1]),
)


def stored(text: str) -> list[int]:
    return [int(number) for number in text.strip("{}").split(",") if number]


@given(rank_vectors)
def test_ranks_come_back_from_their_short_form(held):
    quantities = list(range(len(held)))
    assert list(whole_ranks(stored(ranks_text(held)), quantities)) == held


@given(many, many, many, st.booleans(), st.booleans())
def test_periods_come_back_from_their_short_form(complete, partial, above, nothing_partial, at_maximum):
    length = min(len(complete), len(partial), len(above))
    complete, partial = complete[:length], [0] * length if nothing_partial else partial[:length]
    maximum = [
        a + b + (0 if at_maximum else more) for a, b, more in zip(complete, partial, above[:length], strict=True)
    ]
    back = whole_period(
        stored(array_text(complete)), stored(partial_text(partial)), stored(maximum_text(complete, partial, maximum))
    )
    assert [list(each) for each in back] == [complete, partial, maximum]


def test_what_the_others_tell_is_not_written():
    assert ranks_text([7, 7, 7]) == "{7}"
    assert ranks_text([7, 7, 8]) == "{7,7,8}"
    assert partial_text([0, 0]) == "{}"
    assert maximum_text([5, 6], [0, 0], [5, 6]) == "{}"
    assert maximum_text([5, 6], [1, 0], [6, 6]) == "{}"
    assert maximum_text([5, 0], [0, 0], [5, -1]) == "{5,-1}", "a counter that was never reported is no zero"
    assert maximum_text([5, 6], [0, 0], [9, 6]) == "{9,6}", "usage went back, the maximum did not (L3)"


whole_claims = st.lists(
    st.tuples(ranks, st.permutations(NAMES), st.lists(st.integers(0, 5), min_size=5, max_size=5)), max_size=6
)


@given(whole_claims, st.booleans())
def test_claims_about_every_counter_are_merged_as_vectors_and_mean_the_same(arriving, is_correction):
    cells, counters = PackedCells(LAYOUT), PackedCounters(LAYOUT)
    plain, one_by_one = PackedCells(LAYOUT), PackedCounters(LAYOUT)
    for rank, names, quantities in arriving:
        claimed = dict(zip(names, quantities, strict=True))
        cells, won = cells.joined(LAYOUT, LAYOUT.places(claimed), claimed.values(), rank=rank)
        counters, largest = counters.moved(LAYOUT, won, rank=rank, is_correction=is_correction)
        changes = []
        for name, quantity in claimed.items():  # one counter never makes a vector
            plain, alone = plain.joined(LAYOUT, LAYOUT.places([name]), [quantity], rank=rank)
            changes += alone
        one_by_one, expected = one_by_one.moved(LAYOUT, changes, rank=rank, is_correction=is_correction)
        assert sorted(won) == sorted(changes)
        assert largest == expected
    assert cells == plain
    assert counters == one_by_one
