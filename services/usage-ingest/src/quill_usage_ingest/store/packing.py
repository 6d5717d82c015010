"""Cells and counters as arrays indexed by slot."""

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from quill_usage_ingest.domain.period_usage import CounterUsage
from quill_usage_ingest.domain.usage_cells import Cell, Cells

_new_tuple: Final = tuple.__new__
NEVER_REPORTED_MAXIMUM = -1
"""In ``maximum``: the counter has no usage in this period. A reported zero is a fact and is kept."""


def pack_cells(cells: Cells, slot: Callable[[str], int]) -> tuple[list[int], list[int]]:
    """Quantities and ranks; a slot nobody reported holds rank 0."""
    placed = {slot(counter): cell for counter, cell in cells.items()}
    length = max(placed, default=-1) + 1
    quantities, ranks = [0] * length, [0] * length
    for index, cell in placed.items():
        ranks[index], quantities[index] = cell
    return quantities, ranks


def unpack_cells(quantities: Sequence[int], ranks: Sequence[int], names: Sequence[str]) -> dict[str, Cell]:
    """Cells by counter."""
    return {
        name: _new_tuple(Cell, cell)
        for name, cell in zip(names, zip(ranks, quantities, strict=True), strict=False)
        if cell[0]
    }


def pack_counters(
    counters: Mapping[str, CounterUsage], slot: Callable[[str], int]
) -> tuple[list[int], list[int], list[int]]:
    """Complete, partial and maximum."""
    placed = {slot(counter): usage for counter, usage in counters.items()}
    length = max(placed, default=-1) + 1
    complete, partial, maximum = [0] * length, [0] * length, [NEVER_REPORTED_MAXIMUM] * length
    for index, usage in placed.items():
        complete[index], partial[index], maximum[index] = usage.complete, usage.partial, usage.maximum
    return complete, partial, maximum


def unpack_counters(
    complete: Sequence[int], partial: Sequence[int], maximum: Sequence[int], names: Sequence[str]
) -> dict[str, CounterUsage]:
    """Usage by counter."""
    return {
        name: _new_tuple(CounterUsage, usage)
        for name, usage in zip(names, zip(complete, partial, maximum, strict=True), strict=False)
        if usage[2] != NEVER_REPORTED_MAXIMUM
    }
